"""A new modality, embedder and rule are one file each, discovered by entry points of a user's package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MODALITY = '''
from mm_embed_kernels.error_classes import declare
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities import Modality, Segment

BAD_LETTER = declare(
    "bad_letter",
    meaning="The sequence holds a letter other than A, C, G and T.",
    action="Correct the file and register a new version.",
)


class Dna(Modality):
    """Sequences over ACGT, one a file."""

    name = "dna"
    embedder = "trinucleotides"

    def claims(self, mime):
        return mime == "text/x-dna"

    def probe(self, data):
        if set(data.decode("ascii").strip()) - set("ACGT"):
            raise SampleError(BAD_LETTER, "a letter is none of A, C, G, T")
        return {"mime": "text/x-dna"}

    def segment(self, data):
        return [Segment(span="full", text=data.decode("ascii").strip(), cost=len(data))]
'''
EMBEDDER = '''
import itertools
from pathlib import Path

import numpy as np

from mm_embed_kernels.embedders import Embedder


class Trinucleotides(Embedder):
    """Counts of the 64 triplets."""

    name = "trinucleotides"
    modality = "dna"
    dimension = 64
    weights = (Path(__file__),)
    preprocessing = {"triplets": "overlapping"}

    def load(self):
        pass

    def embed(self, inputs):
        triplets = ["".join(t) for t in itertools.product("ACGT", repeat=3)]
        return np.array([[sum(s.startswith(t, i) for i in range(len(s))) for t in triplets] for s in inputs], dtype=np.float32)
'''
RULE = '''
from dataclasses import dataclass

import pyarrow.compute as pc

from mm_embed_kernels.rules import Rule, Verdict


@dataclass
class Tiny(Rule):
    """A file of very few bytes."""

    name = "tiny_file"
    columns = ("size",)
    action: str = "drop"
    min_bytes: int = 6

    def judge(self, batch):
        return Verdict(pc.greater_equal(batch["size"], self.min_bytes), batch["size"], "has too few bytes")
'''

# Runs commands one after the other, and prints the JSON of each in a line.
SCRIPT = """
import contextlib, io, json, sys
from mm_assets.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv, said = ["mm", *words, "--json"], io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main.main()
        except SystemExit as end:
            assert not end.code, (words, end.code)
    print(json.dumps(json.loads(said.getvalue())))
"""


def test_one_file_each_through_the_whole_path(tmp_path: Path) -> None:
    package = tmp_path / "site" / "genome"
    package.mkdir(parents=True)
    for name, text in {"__init__": "", "modality": MODALITY, "embedder": EMBEDDER, "rule": RULE}.items():
        (package / f"{name}.py").write_text(text)
    info = tmp_path / "site" / "genome-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: genome\nVersion: 1.0\n")
    points = {"modalities": "modality", "embedders": "embedder", "rules": "rule"}
    (info / "entry_points.txt").write_text(
        "".join(f"[mm.{kind}]\ngenome = genome.{module}\n" for kind, module in points.items())
    )
    data = tmp_path / "data"
    data.mkdir()
    for name, sequence in {
        "a": "ACGTACGTAC",
        "b": "ACGTACGTAA",
        "c": "GGGGGGCCCC",
        "d": "ACG",
        "e": "ACGTX?ACGT",
    }.items():
        (data / f"{name}.dna").write_text(sequence)
    (data / "spec.yaml").write_text(
        "name: genome\nversion: v1\ngates: {max_failed_share: 0.5}\nsources:\n- {name: reads, modality: dna, uri: '*.dna'}\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MM_", "DAGSTER_"))}
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])

    commands = [
        ["register", str(data / "spec.yaml")],
        ["backfill", "genome@v1"],
        ["status", "genome@v1"],
        ["failures", "genome@v1"],
        ["failures", "--classes"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=tmp_path, env={**kept, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, result, status, failures, classes = (json.loads(line) for line in done.stdout.splitlines())
    assert result["cells"][0]["status"] == "published", result
    assert result["cells"][0]["computed"]["embed:trinucleotides"] == 3
    (cell,) = status["cells"]
    assert (cell["published"], cell["dropped"], cell["failures"]) == (3, 1, {"bad_letter": 1})
    assert failures[0]["source_uri"].endswith("e.dna")
    assert classes[-1] == {
        "name": "bad_letter",
        "meaning": "The sequence holds a letter other than A, C, G and T.",
        "transient": False,
        "action": "Correct the file and register a new version.",
    }

"""Plug-ins through real entry points: a package with its metadata on the path of a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.plugins import UnknownPlugin, discover, pick

RULE = '''
from dataclasses import dataclass
import pyarrow as pa
import pyarrow.compute as pc
from mm_embed_kernels.rules import Rule, Verdict

@dataclass
class {cls}(Rule):
    """Shouting: one exclamation mark in four characters."""

    name = "{name}"
    modalities = ("text",)
    columns = ("characters",)
    most: int = 7

    def judge(self, batch: pa.Table) -> Verdict:
        return Verdict(pc.less_equal(batch["characters"], self.most), batch["characters"], "is loud")
'''
MODALITY = '''
import pyarrow as pa
from mm_embed_kernels.contracts import field
from mm_embed_kernels.modalities import Modality, Segment

class Tone(Modality):
    """One tone, written as its frequency."""

    name = "tone"
    embedder = "ear"
    signals = [field("hertz", pa.float64(), "frequency", ge=0)]

    def claims(self, mime):
        return mime == "audio/midi"

    def probe(self, data):
        return {"mime": self.require(data), "hertz": float(data[5:])}

    def segment(self, data):
        return [Segment("full")]
'''
EMBEDDER = """
from mm_embed_kernels.embedders.base import Embedder

class Ear(Embedder):
    name = "ear"
    modality = "tone"
    weights = ()
    preprocessing = {}
    def load(self): pass
    def embed(self, inputs): raise NotImplementedError
"""
SOURCE = """
from mm_resources.sources import Listed, Source

class Dial(Source):
    name = "dial"

    @classmethod
    def accepts(cls, spec):
        return spec.uri.startswith("dial://")

    def list(self):
        yield Listed("a", self.spec.uri)

    def fetch(self, uri, locator):
        return b"MThd\\x00440"
"""


def package(folder: Path, files: dict[str, str], entries: str, name: str = "loud") -> Path:
    """An installed distribution, as pip would leave it."""
    (folder / name).mkdir(parents=True)
    for file, text in {"__init__.py": "", **files}.items():
        (folder / name / file).write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
    return folder


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a fresh interpreter that has the package installed."""
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )


def printed(folder: Path, code: str) -> Any:
    done = python(folder, f"import json\n{code}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_rule_behind_an_entry_point(tmp_path: Path) -> None:
    package(
        tmp_path, {"rule.py": RULE.format(cls="Loud", name="loud")}, "[mm.rules]\nloud = loud.rule:Loud\n"
    )
    code = """
    from mm_embed_kernels.rules import rules, rule_set
    import pyarrow as pa
    rule = next(rule for rule in rule_set("text", {"loud": {"most": 3}}) if rule.name == "loud")
    verdict = rule.judge(pa.table({"characters": [3, 4]}))
    image = [rule.name for rule in rule_set("image", {})]
    print(json.dumps([sorted(rules()), verdict.passed.to_pylist(), rule.threshold, image]))
    """
    names, passed, threshold, image = printed(tmp_path, _dedent(code))
    assert {"loud", "empty", "exact_duplicate"} <= set(names)
    assert names == sorted(names)
    assert (passed, threshold) == ([True, False], "most=3")
    assert "loud" not in image


def test_a_modality_its_embedder_and_a_source_in_one_package(tmp_path: Path) -> None:
    entries = "[mm.modalities]\ntone = loud.tone\n[mm.embedders]\near = loud.ear\n[mm.sources]\ndial = loud.dial:Dial\n"
    package(tmp_path, {"tone.py": MODALITY, "ear.py": EMBEDDER, "dial.py": SOURCE}, entries)
    code = """
    from mm_embed_kernels.contracts import VALIDATED_SAMPLES
    from mm_embed_kernels.embedders import create
    from mm_embed_kernels.modalities import get, modalities, modality_of
    from mm_embed_kernels.rules import rule_set
    from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
    from mm_embed_kernels.spec.dataset_spec import SourceSpec
    from mm_resources.sources import open_source

    if __name__ == "__main__":
        tone = get("tone")
        source = open_source(SourceSpec(name="d", modality="tone", uri="dial://x"), {})
        sandbox = Sandbox(Limits())
        row, = sandbox.map(tone.probe, [(source.fetch("dial://x", ""),)])
        sandbox.close()
        columns = VALIDATED_SAMPLES.extend(tone.signals).schema.names
        rules = [rule.name for rule in rule_set("tone", {})]
        print(json.dumps([list(modalities()), modality_of("audio/midi"), row, create("ear").modality, "hertz" in columns, rules]))
    """
    names, owner, row, modality, column, rules = printed(tmp_path, _dedent(code))
    assert {"image", "text", "tone"} <= set(names)
    assert names == sorted(names)
    assert (owner, modality, column) == ("tone", "tone", True)
    assert row == {"mime": "audio/midi", "hertz": 440.0}
    assert rules == ["exact_duplicate"]


def test_one_class_named_twice_is_one(tmp_path: Path) -> None:
    package(
        tmp_path,
        {"rule.py": RULE.format(cls="Loud", name="loud")},
        "[mm.rules]\na = loud.rule\nb = loud.rule:Loud\n",
    )
    assert "loud" in printed(
        tmp_path, "from mm_embed_kernels.rules import rules; print(json.dumps(list(rules())))"
    )


@pytest.mark.parametrize(
    ("files", "entries", "name"),
    [
        ({"a.py": RULE.format(cls="Mine", name="empty")}, "[mm.rules]\na = loud.a\n", "empty"),
        (
            {f"{x}.py": RULE.format(cls="Mine", name="loud") for x in "ab"},
            "[mm.rules]\na = loud.a\nb = loud.b\n",
            "loud",
        ),
    ],
    ids=["with a bundled one", "with each other"],
)
def test_two_of_one_name(tmp_path: Path, files: dict[str, str], entries: str, name: str) -> None:
    package(tmp_path, files, entries)
    done = python(tmp_path, "from mm_embed_kernels.rules import rules; rules()")
    assert done.returncode == 1
    assert f"ValueError: two rules are named '{name}'" in done.stderr
    assert "loud.a" in done.stderr


def test_base_classes_and_helpers_are_no_plugins(tmp_path: Path) -> None:
    """A module may import other rules and define abstract ones: only what it defines and names counts."""
    text = (
        RULE.format(cls="Loud", name="loud")
        + "\nfrom mm_embed_kernels.rules.empty import Empty\nclass Nameless(Loud):\n    name = ''\n"
    )
    text += "from abc import abstractmethod\nclass Half(Loud):\n    name = 'half'\n    @abstractmethod\n    def more(self): ...\n"
    package(tmp_path, {"rule.py": text}, "[mm.rules]\nloud = loud.rule\n")
    names = printed(tmp_path, "from mm_embed_kernels.rules import rules; print(json.dumps(list(rules())))")
    assert "loud" in names
    assert names.count("empty") == 1
    assert set(names).isdisjoint({"half", ""})


def test_pick_names_the_choices() -> None:
    with pytest.raises(UnknownPlugin, match="no rule is named 'x'; there are: a, b"):
        pick({"a": 1, "b": 2}, "rule", "x")
    with pytest.raises(UnknownPlugin, match="there are: none"):
        pick({}, "rule", "x")


def test_discovery_is_cached_and_sorted() -> None:
    from mm_embed_kernels.rules import Rule

    found = discover("mm_embed_kernels.rules", "rules", Rule)
    assert found is discover("mm_embed_kernels.rules", "rules", Rule)
    assert list(found) == sorted(found)


def test_discovery_loads_nothing_heavy() -> None:
    """The code location and `mm --help` discover plug-ins at every start."""
    code = "from mm_embed_kernels import modalities as m, rules as r, embedders as e; from mm_resources.sources import sources\n"
    code += "m.modalities(); r.rules(); e.embedders(); sources(); import sys\n"
    code += "print(json.dumps([name for name in ('torch', 'ray', 'dagster', 'transformers', 'timm', 'PIL', 'lance') if name in sys.modules]))"
    assert printed(Path.cwd(), code) == []


def _dedent(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)

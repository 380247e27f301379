"""Write the store that `test_stored.py` reads, and what the code that wrote it answers about it.

Run once, with the commit that is to be compared with on the path (`eec7213`, the last one before the packages were cut
into rooms):

    git worktree add /tmp/before eec7213
    cd /tmp/before && PYTHONPATH=/tmp/before PYTHON /path/to/tests/stored/make.py /path/to/tests/stored

The store lies at a fixed place, since listings hold absolute paths. Sources have whole seconds as their times, so that an
archive keeps them exactly.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

ROOT = Path("/tmp/mm-stored-before-rooms")
SPEC = """
name: small
version: {version}
{parent}schema: {{stars: int}}
gates: {{max_failed_share: 0.5}}
embedders: {{text: [wordllama, minilm]}}
sources:
  - {{name: photos, modality: image, uri: "{root}/photos/**/*.jpg", label: {{from: parent_dir}}}}
  - {{name: sentences, modality: text, uri: "{root}/{sentences}", record: {{id: id, text: text, label: topic}}}}
  - {{name: clips, modality: video, uri: "{root}/clips/*.mp4"}}
  - {{name: sounds, modality: audio, uri: "{root}/sounds/*.wav"}}
"""
SENTENCES = [
    {"id": "s1", "text": "The cat sleeps on the warm sofa all day long.", "topic": "pets", "stars": 5},
    {
        "id": "s2",
        "text": "Espresso is made by forcing hot water through ground coffee.",
        "topic": "food",
        "stars": 4,
    },
    {"id": "s3", "text": "The cat sleeps on the warm sofa all day long.", "topic": "pets", "stars": 5},
]
# Every command whose answer the new code must repeat, by name.
COMMANDS: dict[str, list[str]] = {
    "status-v1": ["status", "small@v1"],
    "status-v2": ["status", "small@v2"],
    "failures": ["failures", "small@v1"],
    "search-text": ["search", "a cat", "--dataset-version", "small@v1", "--modality", "text", "-k", "3"],
    "search-where": [
        "search",
        "coffee",
        "--dataset-version",
        "small@v2",
        "--modality",
        "text",
        "--where",
        "label = 'food'",
    ],
    "search-image": [
        "search",
        "a flower",
        "--dataset-version",
        "small@production",
        "--modality",
        "image",
        "-k",
        "2",
    ],
    "search-audio": [
        "search",
        f"{ROOT}/sounds/melody.wav",
        "--dataset-version",
        "small@v1",
        "--modality",
        "audio",
        "-k",
        "2",
    ],
    "diff": ["diff", "small@v1", "small@v2"],
    "datasets": ["datasets"],
    "audit": ["audit", "small@v1", "--modality", "text", "--sample", "2"],
}


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MM_", "DAGSTER_"))}
    places = {"MM_STORE": ROOT / "store", "DAGSTER_HOME": ROOT / "home", "MM_DATASETS": ROOT / "datasets"}
    # The format that models compute in is part of a fingerprint, and by default the processor decides it.
    return {**kept, **{name: str(place) for name, place in places.items()}, "MM_PRECISION": "float32"}


def mm(*words: str) -> Any:
    """Run a command with ``--json``; its answer."""
    command = [sys.executable, "-m", "mm_assets.cli.main", *words, "--json"]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mm {' '.join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def export(folder: Path) -> Any:
    """The manifest of an export of the text features."""
    mm("export", "small@v1", "--modality", "text", "--out", str(folder))
    return json.loads((folder / "_manifest.json").read_text("utf-8"))


def fingerprints() -> dict[str, Any]:
    """Fingerprints of the bundled embedders and modalities, versions of the rules, and of the libraries behind them."""
    from mm_embed_kernels.embedders import create, embedders
    from mm_embed_kernels.identity import library_versions
    from mm_embed_kernels.modalities import modalities
    from mm_embed_kernels.rules import rules

    made = {name: create(name) for name, kind in embedders().items() if not kind.takes_model}
    return {
        "embedders": {name: embedder.fingerprint for name, embedder in made.items()},
        "modalities": {
            name: {kind: modality.fingerprint(kind) for kind in ("probe", "segment")}
            for name, modality in modalities().items()
        },
        "rules": {name: rule.version for name, rule in rules().items()},
        "libraries": {
            name: version
            for embedder in made.values()
            for name, version in library_versions(embedder.libraries).items()
        },
    }


def write_sources() -> None:
    import sklearn
    from PIL import Image

    from tests.kernels.kernel_sound import melody, noise, recorded
    from tests.kernels.kernel_video import filmed, pan

    pictures = Path(sklearn.__file__).parent / "datasets" / "images"
    for label, name in (("flower", "flower.jpg"), ("temple", "china.jpg")):
        (ROOT / "photos" / label).mkdir(parents=True)
        with Image.open(pictures / name) as image:
            image.resize((240, 160)).save(ROOT / "photos" / label / "1.jpg", quality=85)
    broken = (ROOT / "photos" / "flower" / "1.jpg").read_bytes()
    (ROOT / "photos" / "flower" / "broken.jpg").write_bytes(broken[: len(broken) // 3])
    lines = [json.dumps(line) for line in SENTENCES]
    (ROOT / "sentences.jsonl").write_text("\n".join([*lines, "{not json"]) + "\n", "utf-8")
    more = {"id": "s4", "text": "A dog runs along the beach in the evening.", "topic": "pets", "stars": 3}
    (ROOT / "more.jsonl").write_text("\n".join([*lines, json.dumps(more)]) + "\n", "utf-8")
    (ROOT / "clips").mkdir()
    (ROOT / "clips" / "pan.mp4").write_bytes(filmed(pan(seconds=2.0)))
    (ROOT / "sounds").mkdir()
    (ROOT / "sounds" / "melody.wav").write_bytes(recorded(melody(3.0)))
    (ROOT / "sounds" / "noise.wav").write_bytes(recorded(noise(1.0)))
    for path in ROOT.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def main(folder: Path) -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    write_sources()
    for version, parent, sentences in (("v1", "", "sentences.jsonl"), ("v2", "parent: v1\n", "more.jsonl")):
        spec = ROOT / f"{version}.yaml"
        spec.write_text(SPEC.format(version=version, parent=parent, sentences=sentences, root=ROOT), "utf-8")
        mm("register", str(spec))
        mm("backfill", f"small@{version}")
    mm("promote", "small@v1", "--to", "production")
    answers = {name: mm(*words) for name, words in COMMANDS.items()}
    answers["unchanged"] = mm("backfill", "small@v1")
    feature = answers["search-text"][0]["feature_id"]
    answers["explain"] = mm("explain", feature)
    answers["export"] = export(ROOT / "exported")
    answers["fingerprints"] = fingerprints()
    (folder / "answers.json").write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n", "utf-8")
    with tarfile.open(folder / "store.tar.xz", "w:xz") as archive:
        archive.add(ROOT, ROOT.name, filter=lambda item: None if "/home" in item.name else item)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The core alone reads, searches, filters, explains and exports; whatever else is asked for, it names the extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WANTED = {
    "rows": 2,
    "by_vector": ["Espresso is made by forcing hot water through ground coffee.", 1.0],
    "by_id": ["Espresso is made by forcing hot water through ground coffee."],
    "by_words": ["food"],
    "filtered": [1, ["food"]],
    "decisions": [3, 2],
    "explained": True,
    "exported": {"parquet": 1, "lance": 1},
    "loaded": [],
}
EXTRAS = {
    "loader": "train",
    "frame": "export",
    "shards": "export",
    "on_ray": "ray",
    "words": "media",
    "file": "media",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the stored store, elsewhere than it was written."""
    folder = tmp_path_factory.mktemp("store")
    with tarfile.open(ROOT / "tests" / "stored" / "store.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (found,) = folder.glob("*/store")
    return found


def run(
    command: list[object], folder: Path, store: Path, path: Path | None = ROOT, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MM_", "DAGSTER_", "PYTHON"))}
    environment |= {"MM_STORE": str(store), **({"PYTHONPATH": str(path)} if path else {}), **more}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def check_reader(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert {name: found[name] for name in WANTED} == WANTED
    for name, extra in EXTRAS.items():
        assert found[name].endswith(f"which is not installed: pip install 'mm-features[{extra}]'"), found[
            name
        ]


def test_a_reader_needs_nothing_else(store: Path, tmp_path: Path) -> None:
    check_reader(
        run([sys.executable, HERE / "core_only.py", HERE / "reader.py", store, tmp_path], tmp_path, store)
    )


@pytest.mark.parametrize("modalities", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_backfills_need_the_platform_alone(modalities: int, tmp_path: Path) -> None:
    """Neither Ray nor transcribers, models of a hub, or the server."""
    import numpy as np
    import soundfile
    from PIL import Image

    data = tmp_path / "data"
    data.mkdir()
    rows = [{"id": i, "text": f"Number {i} is a short text about herons and ponds."} for i in range(3)]
    (data / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 255, (96, 96, 3), np.uint8)).save(data / "noise.png")
    soundfile.write(data / "noise.wav", noise.normal(0, 0.1, 16_000), 16_000)
    sources = [
        f"{{name: notes, modality: text, uri: {data}/notes.jsonl, record: {{id: id, text: text}}}}",
        f"{{name: pictures, modality: image, uri: '{data}/*.png'}}",
        f"{{name: sounds, modality: audio, uri: '{data}/*.wav'}}",
    ]
    spec = f"{{name: small, version: v1, sources: [{', '.join(sources[:modalities])}]}}"
    (tmp_path / "small.yaml").write_text(spec)
    mm = [sys.executable, HERE / "core_only.py", "mm"]
    for words in (["register", "small.yaml"], ["backfill", "small@v1", "--json"]):
        done = run([*mm, *words], tmp_path, tmp_path / "store", EXTRAS="platform")
        assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in json.loads(done.stdout)["cells"]] == ["published"] * modalities
    found = run(
        [*mm, "search", "a heron", "--modality", "text"], tmp_path, tmp_path / "store", EXTRAS="media"
    )
    assert "herons and ponds" in found.stdout, found.stderr


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("search coffee --modality text --mode text", 0, "Espresso is made by forcing"),
        ("export small@v1 --modality text --out rows", 0, "2 rows of small@v1 in rows (parquet)"),
        ("status small@v1", 0, "gate failed_share passed"),
        ("search coffee --modality text", 2, "error: embedder wordllama needs the package wordllama, which is not installed: pip install 'mm-features[media]'"),
        ("backfill small@v1", 2, "which is not installed: pip install 'mm-features[platform]'"),
        ("demo", 2, "error: the demo needs the package dagster, which is not installed: pip install 'mm-features[platform]'"),
        ("init .", 2, "which is not installed: pip install 'mm-features[media]'"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_commands_work_or_name_the_extra(
    words: str, code: int, line: str, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a text")
    program = [] if words == "demo" else ["mm"]
    done = run([sys.executable, HERE / "core_only.py", *program, *words.split()], tmp_path, store)
    assert done.returncode == code, done.stderr
    assert line in (done.stderr if code else done.stdout)
    if code:
        assert done.stderr.count("\n") == 1, done.stderr

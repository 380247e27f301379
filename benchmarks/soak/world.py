"""A store with its home and sources, what was done to it, and what must therefore be in it."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak.processes import Command, Runner, Trouble
from mm_embed_kernels.identity import content_hash
from tests.s3 import S3

_SPEC = """
name: {dataset}
version: {version}
{parent}embedders: {{text: [wordllama]}}
gates: {{max_failed_share: 0.95}}
sources:
  - {{name: notes, modality: text, uri: {version}.jsonl, record: {{id: id, text: text, label: label}}}}
"""
_WORDS = 4_000
HANGS_SECONDS = 900.0


@dataclass
class Version:
    """A version and the records of its source, which never change.

    Attributes:
        texts: key -> text; a text may stand under two keys.
        bad: lines that are no JSON.
    """

    dataset: str
    name: str
    texts: dict[str, str]
    bad: int
    registered: bool = False

    @property
    def dataset_version(self) -> str:
        return f"{self.dataset}@{self.name}"

    def miscount(self, accounting: dict[str, int], forgotten: set[str]) -> str:
        """Return where its accounting differs from a count by hand, once it is published again; "" nowhere.

        A forgotten text leaves the listing that names it, and fails where it is listed afterwards.
        """
        kept = [text for text in self.texts.values() if text not in forgotten]
        found = {name: accounting[name] for name in ("discovered", "published", "dropped", "failed")}
        expected = {"published": len(set(kept)), "dropped": len(kept) - len(set(kept))}
        most = self.bad + len(self.texts) - len(kept)
        closes = found["discovered"] == found["published"] + found["dropped"] + found["failed"]
        if closes and expected.items() <= found.items() and self.bad <= found["failed"] <= most:
            return ""
        return f"{found}, by hand {expected} and {self.bad} to {most} failed"


@dataclass
class World:
    """One store.

    Attributes:
        server: of a store on S3.
        disk: folder of the store on a small disk that can be filled; None where none could be mounted.
        grace_seconds: grace period of upkeep and collections, longer than any command.
    """

    name: str
    folder: Path
    store: str
    server: S3 | None = None
    disk: Path | None = None
    grace_seconds: float = 180.0
    versions: list[Version] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)
    unfinished: str = ""
    running: list[Command] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "sources").mkdir(parents=True)
        more = self.server.environment() if self.server else {}
        environment = {
            "MM_STORE": self.store,
            "DAGSTER_HOME": str(self.folder / "home"),
            "MM_DATASETS": str(self.folder / "datasets"),
            "MM_PROFILE": "bundled",
            **more,
        }
        self.runner = Runner(self.folder, environment)

    # -- sources

    def new_version(self, seed: int, dataset: str) -> Version:
        """Write source and spec of the next version of a dataset: some records differ from the last one's."""
        dice = random.Random(seed)
        earlier = [version for version in self.versions if version.dataset == dataset]
        texts = dict(earlier[-1].texts) if earlier else {}
        for key in dice.sample(sorted(texts), min(3, len(texts))):
            del texts[key]
        for number in range(12 if not texts else dice.randint(1, 6)):
            texts[f"k{seed}-{number}"] = _text(dice)
        for key in dice.sample(sorted(texts), 2):
            texts[f"{key}-again"] = texts[key]
        version = Version(dataset, f"v{len(earlier) + 1}", texts, dice.randint(0, 2))
        folder = self.folder / "sources" / dataset
        folder.mkdir(exist_ok=True)
        lines = [json.dumps({"id": key, "text": text, "label": key[:2]}) for key, text in texts.items()]
        lines += [f"{{broken {number}" for number in range(version.bad)]
        (folder / f"{version.name}.jsonl").write_text("\n".join(lines) + "\n")
        parent = f"parent: {earlier[-1].name}\n" if earlier and dice.random() < 0.7 else ""
        self.spec_path(version).write_text(_SPEC.format(dataset=dataset, version=version.name, parent=parent))
        self.versions.append(version)
        return version

    def spec_path(self, version: Version) -> Path:
        """Path of a version's spec."""
        return self.folder / "sources" / version.dataset / f"{version.name}.yaml"

    def texts(self) -> list[str]:
        """All texts that were not forgotten, sorted."""
        return sorted({t for version in self.versions for t in version.texts.values()} - self.forgotten)

    # -- commands

    def start(self, words: list[str], trouble: Trouble | None = None) -> Command:
        """Start a command."""
        started = self.runner.start(words, trouble or Trouble())
        self.running.append(started)
        return started

    def finish(self, command: Command) -> int:
        """Wait for a command, and note what it may not say."""
        while command.victim.code is None:
            command.kill_if_due()
            command.victim.process.join(0.1)
            if command.victim.code is None and _age(command) > HANGS_SECONDS:
                self.findings.append(f"hangs for {HANGS_SECONDS:g} s: mm {' '.join(command.words)}")
                command.victim.kill()
        self.reap()
        return int(command.victim.code)

    def reap(self) -> None:
        """Note what ended commands have said, if they may not."""
        for command in list(self.running):
            command.kill_if_due()
            if command.victim.code is not None:
                self.running.remove(command)
                if problem := _problem(command):
                    words, output = " ".join(command.words), command.victim.output
                    self.findings.append(f"mm {words} ({command.trouble}): {problem}; {output}")

    # -- troubles

    def fill_disk(self, room: int) -> None:
        """Leave this many bytes on the store's disk."""
        assert self.disk is not None
        free = shutil.disk_usage(self.disk).free
        with (self.disk / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, free - room))

    def empty_disk(self) -> None:
        """Leave all of the disk to the store."""
        if self.disk is not None:
            (self.disk / "ballast").unlink(missing_ok=True)


def digest_of(text: str) -> str:
    """Return the content hash of a text."""
    return content_hash(text.encode())


def _text(dice: random.Random) -> str:
    """Return a text like no other: near-duplicates would be dropped."""
    return "The " + " ".join(f"word{dice.randrange(_WORDS)}" for _ in range(24)) + "."


def _age(command: Command) -> float:
    return time.monotonic() - command.began


# What a command may say beside others, and in trouble.
_BESIDE = (
    "published by another run since",
    "replaced by another run while",
    "is processing a cell and could restore",
    "was marked",
    "is not complete (receipt",
    "is not registered",
    "no sample of this store has the id",
    "nothing is published",
    "another process writes",
)


def _problem(command: Command) -> str:
    """Return what is wrong with how a command ended; "" for nothing."""
    code, text, trouble = command.victim.code, command.victim.text, command.trouble
    if code == -9 and trouble.kills:
        return ""
    if "Traceback (most recent call last)" in text:
        return "a traceback"
    if code in (0, 3):  # 3: another run processes the cell
        return ""
    if code not in (1, 2):
        return f"exit code {code}"
    reasons = command.reasons
    if not reasons:
        return "it does not say why it failed"
    others = [line for line in reasons if not any(words in line for words in _BESIDE)]
    if others and not trouble.fails:
        return others[0][:400]
    return ""

"""One alert: what is wrong, of which dataset, and the names by which it is silenced."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mm_embed_kernels.identity import digest

# Kinds of alerts, each of which has a sensor of its own: `alert_KIND`.
GATES, CHECKS, SOURCES, STALE = "gates", "checks", "sources", "stale"
KINDS = {
    GATES: "a closed gate: nothing is published until it opens",
    CHECKS: "a check that failed without closing a gate, or that was overridden",
    SOURCES: "sources that changed since a version was frozen",
    STALE: "datasets whose newest publish is older than `card.fresh_within`",
}


@dataclass(frozen=True)
class Alert:
    """Something to tell a person.

    Attributes:
        kind: one of `KINDS`.
        check: name of the check, or that of the kind.
        dataset: name of the dataset.
        version: its version; "" where it is about the dataset.
        modality: of the cell.
        severity: ``error`` or ``warning``.
        text: what is wrong, and what to do, in one line.
        run_id: the run that found it; "" without one.
    """

    kind: str
    check: str
    dataset: str
    version: str
    modality: str
    severity: str
    text: str
    run_id: str = ""

    @property
    def names(self) -> set[str]:
        """The names by which it is silenced, from the widest to the narrowest."""
        cell = f"{self.dataset}/{self.modality}"
        return {self.kind, self.check, self.dataset, cell, f"{cell}/{self.check}"}

    @property
    def subject(self) -> str:
        """The thing that is concerned, which is told once for each of its states."""
        return "|".join((self.kind, self.check, self.dataset, self.version, self.modality))

    @property
    def state(self) -> str:
        """The state of the subject, which changes with the text."""
        return digest("alert", self.text)[:12]

    @property
    def title(self) -> str:
        """One line for a subject of a mail or the head of a message."""
        version = f"{self.dataset}@{self.version}" if self.version else self.dataset
        return f"{self.severity}: {version} {self.modality}: {self.check}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with the title: the body of a webhook, and what a cursor keeps."""
        return {**asdict(self), "title": self.title}

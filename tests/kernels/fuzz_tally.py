"""Counts of the suite of hostile input, reported at the end of a run."""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass, field

import pytest


@dataclass
class Tally:
    """Inputs and outcomes of the suite."""

    inputs: int = 0
    crashes: int = 0
    unrecorded: int = 0
    hangs: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    children: int = 0

    def line(self) -> str:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        causes = ", ".join(f"{name} {count:,}" for name, count in self.causes.most_common())
        return (
            f"hostile input: {self.inputs:,} inputs tried, {self.crashes} crashes of the run, {self.unrecorded} samples without a record, "
            f"{self.hangs} hangs, peak memory {own:,} MiB here and {self.children:,} MiB in a child ({causes})"
        )


TALLY = pytest.StashKey[Tally]()

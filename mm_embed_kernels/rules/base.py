"""Base class of curation rules: a columnar judgment over the probe's columns, without access to bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.plugins import discover
from mm_embed_kernels.sql import CellReader

Action = Literal["drop", "flag", "off"]


@dataclass(frozen=True)
class Evidence:
    """Detected duplicates of a batch, one entry per row.

    Attributes:
        group: name of the duplicate group, or null.
        duplicates: list of {of, kind, score, span}.
    """

    group: pa.Array
    duplicates: pa.Array


@dataclass(frozen=True)
class Verdict:
    """Judgment of a batch by one rule, one entry per row.

    Attributes:
        passed: whether the row passes; null, where nothing was measured, counts as passed.
        value: measured value.
        reason: reason that is recorded for rows that fail.
        evidence: detected duplicates, of a rule that groups.
    """

    passed: pa.Array | pa.ChunkedArray
    value: pa.Array | pa.ChunkedArray
    reason: str
    evidence: Evidence | None = None


@dataclass
class Rule(ABC):
    """One rule; a subclass is a dataclass whose fields are its parameters in the spec's `curation.rules`.

    Attributes:
        name: id under which decisions are recorded.
        version: raised when a change of the code changes judgments.
        modalities: modalities that it judges; empty for all.
        columns: columns of the probe that it reads.
        compared: those of `columns` that only `prepare` reads.
        cost: order of evaluation, cheap rules first.
        action: ``drop``, ``flag`` (recorded, the sample stays) or ``off``.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    modalities: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ()
    compared: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[int] = 1

    action: Action = "flag"

    @abstractmethod
    def judge(self, batch: pa.Table) -> Verdict:
        """Judge a batch that has at least `columns` without `compared`."""

    def prepare(self, read: CellReader) -> None:  # noqa: B027 - most rules judge each row alone
        """Stream the whole cell before `judge` is called, in rules that compare samples."""

    @property
    def threshold(self) -> str:
        """Parameters in the form that is recorded with each decision."""
        return ", ".join(
            f"{item.name}={getattr(self, item.name)}"
            for item in fields(self)
            if item.init and item.name != "action"
        )

    def groups(self) -> str | None:
        """SQL for ``sample_id`` and ``group`` of the samples that `prepare` grouped, if the rule groups."""
        return None


def rules() -> dict[str, type[Rule]]:
    """All rule classes by name."""
    return discover("mm_embed_kernels.rules", "rules", Rule)


def rule_set(modality: str, settings: Mapping[str, Mapping[str, Any]]) -> list[Rule]:
    """Rules of a modality with the settings of a spec, cheapest first.

    Raises:
        UserError: for an unknown rule, an unknown parameter, or a value of the wrong type.
    """
    known = rules()
    for name in settings:
        if name not in known:
            raise UserError(f"curation.rules.{name}: no such rule; there are: {', '.join(known)}")
    chosen = [
        _configure(rule, settings.get(name, {}))
        for name, rule in known.items()
        if not rule.modalities or modality in rule.modalities
    ]
    return sorted((rule for rule in chosen if rule.action != "off"), key=lambda rule: (rule.cost, rule.name))


def _configure(rule: type[Rule], settings: Mapping[str, Any]) -> Rule:
    """Create a rule from the settings of a spec; raises as `rule_set`."""
    parameters = {item.name: item for item in fields(rule) if item.init and not item.name.startswith("_")}
    for name, value in settings.items():
        if name not in parameters:
            raise UserError(
                f"curation.rules.{rule.name}.{name}: no such parameter; there are: {', '.join(parameters)}"
            )
        default = parameters[name].default
        if name == "action" and value not in ("drop", "flag", "off", False):
            raise UserError(f"curation.rules.{rule.name}.action: {value!r} is not drop, flag or off")
        if isinstance(default, (int, float)) and (
            isinstance(value, bool) or not isinstance(value, (int, float))
        ):
            raise UserError(f"curation.rules.{rule.name}.{name}: {value!r} is not a number")
        if name != "action" and isinstance(default, str) and not isinstance(value, str):
            raise UserError(f"curation.rules.{rule.name}.{name}: {value!r} is not a text such as {default!r}")
    # YAML reads a bare `off` as false.
    return rule(
        **{name: "off" if name == "action" and value is False else value for name, value in settings.items()}
    )

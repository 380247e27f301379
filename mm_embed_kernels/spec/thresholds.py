"""Thresholds of a spec: gates, promotion, drift, validation bounds, curation and watching of sources."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mm_embed_kernels.spec.model import Duration, SpecModel


class Gates(SpecModel):
    """Thresholds of a cell above which nothing is published, as shares of its samples, 0 to 1."""

    max_failed_share: float = Field(default=0.2, ge=0, le=1, description="share that may fail")
    max_failed_share_by_class: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="error class -> share that may fail with it"
    )
    max_failed_share_above_parent: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="largest difference to the failed share of the published parent version",
    )


class Promotion(SpecModel):
    """Requirements on a version before an alias moves to it; shares are 0 to 1."""

    min_recall: float = Field(
        default=0.95, ge=0, le=1, description="recall@10 of each table's index against exact search"
    )
    min_label_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="least samples of each label, as a share of those in the alias's present version",
    )
    max_duplicate_share: float = Field(
        default=0.2, ge=0, le=1, description="published samples that duplicate another one of their group"
    )
    min_centroid_cosine: float = Field(
        default=0.8, ge=-1, le=1, description="cosine between the mean vectors of the two versions"
    )


class DriftLimits(SpecModel):
    """Distances to parent and production, 0 to 1, above which the report states drift; no gate."""

    max_label_shift: float = Field(
        default=0.1, ge=0, le=1, description="total variation between the shares of labels"
    )
    max_decision_shift: float = Field(
        default=0.1, ge=0, le=1, description="largest change, over the rules, of the share that does not pass"
    )
    max_failure_shift: float = Field(
        default=0.05, ge=0, le=1, description="change of the share that fails with an error class"
    )
    max_signal_shift: float = Field(
        default=0.2, ge=0, le=1, description="Kolmogorov-Smirnov statistic of each measured signal"
    )
    max_vector_shift: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Kolmogorov-Smirnov statistic of the vectors' cosines to the earlier mean vector",
    )


class ColumnRule(SpecModel):
    """Permitted values of a column; min and max are inclusive, and a value that was not measured passes."""

    min: int | float | None = Field(default=None, description="least value")
    max: int | float | None = Field(default=None, description="greatest value")
    one_of: list[bool | int | float | str] | None = Field(default=None, description="permitted values")
    none_of: list[bool | int | float | str] | None = Field(default=None, description="refused values")

    @model_validator(mode="after")
    def _check_bounds(self) -> ColumnRule:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a rule sets min, max, one_of or none_of")
        return self


class Curation(SpecModel):
    """Curation profile: rule name -> settings (`action: drop|flag|off` and the rule's own parameters)."""

    rules: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="rule -> `action` and its own parameters"
    )


class Watch(SpecModel):
    """Automatic checks of the sources, and the action after a change.

    Not part of the frozen spec: it may be changed and registered again under the same version.
    """

    sources: Literal["off", "propose", "register"] = Field(
        default="off",
        description="propose: report the change and the command; register: register the next version, "
        "request its cells",
    )
    every: Duration = Field(
        default="1h", description="time between two checks, each of which lists the sources anew"
    )
    settle: Duration = Field(
        default="10min", description="time for which the sources must be unchanged before the action"
    )
    names: Literal["number", "date"] = Field(
        default="number", description="name of the next version: v1, v2, or the date"
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _read_off(cls, sources: object) -> object:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if sources is False else sources

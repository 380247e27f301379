"""TODO."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mm_embed_kernels.spec.model import Duration, SpecModel


class Gates(SpecModel):
    """Thresholds of a cell above which nothing is published; all are shares of its samples, 0 to 1."""

    max_failed_share: float = Field(default=0.2, ge=0, le=1)
    max_failed_share_by_class: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="error class -> share that may fail for this cause"
    )
    max_failed_share_above_parent: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="how much larger a share may fail than of the published parent version",
    )


class Promotion(SpecModel):
    """What a version must show before an alias moves to it; shares are 0 to 1."""

    min_recall: float = Field(
        default=0.95, ge=0, le=1, description="recall@10 of each table's index against exact search"
    )
    min_label_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="of the samples that each label has behind the alias now, how many it must have at least",
    )
    max_duplicate_share: float = Field(
        default=0.2, ge=0, le=1, description="published samples that repeat another one of their group"
    )
    min_centroid_cosine: float = Field(
        default=0.8, ge=-1, le=1, description="between the mean vectors of the two versions"
    )


class DriftLimits(SpecModel):
    """How far a version may lie from its parent and from production before its report calls it drift; nothing is held back. 0 to 1."""

    max_label_shift: float = Field(
        default=0.1, ge=0, le=1, description="total variation between the shares of labels"
    )
    max_decision_shift: float = Field(
        default=0.1, ge=0, le=1, description="change of the share that does not pass a rule, of the worst one"
    )
    max_failure_shift: float = Field(
        default=0.05, ge=0, le=1, description="change of the share that fails for a cause"
    )
    max_signal_shift: float = Field(
        default=0.2, ge=0, le=1, description="Kolmogorov-Smirnov statistic of each measured signal"
    )
    max_vector_shift: float = Field(
        default=0.2, ge=0, le=1, description="the same of the vectors' cosines to the earlier mean vector"
    )


class ColumnRule(SpecModel):
    """What a column of a sample may hold: bounds are part of what is allowed, and what was not measured passes."""

    min: int | float | None = None
    max: int | float | None = None
    one_of: list[bool | int | float | str] | None = None
    none_of: list[bool | int | float | str] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ColumnRule:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a rule sets min, max, one_of or none_of")
        return self


class Curation(SpecModel):
    """The curation profile: rule name -> its settings (`action: drop|flag|off` and the rule's own parameters)."""

    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Watch(SpecModel):
    """Whether the platform looks at the sources by itself, and what it does when they have moved on.

    No part of the frozen spec: it may be changed, and registered again, under the same version.
    """

    sources: Literal["off", "propose", "register"] = Field(
        default="off",
        description="propose: say so, with the command; register: register the next version and request its cells",
    )
    every: Duration = Field(
        default="1h", description="time between two looks, each of which lists the sources anew"
    )
    settle: Duration = Field(
        default="10min", description="how long the sources must stay as they are before anything is done"
    )
    names: Literal["number", "date"] = Field(
        default="number", description="how the next version is called: v1, v2, or by the day"
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _off(cls, sources: object) -> object:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if sources is False else sources

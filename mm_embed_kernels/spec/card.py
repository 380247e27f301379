"""The card of a dataset: what a catalogue of data says about it, beside what is in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mm_embed_kernels.spec.model import Duration, SpecModel

# What Dagster accepts as an owner, as a tag's key and value, and as the key of an asset.
_OWNER = r"^(team:\w+|[^@\s]+@[^@\s]+\.[^@\s]+)$"
_TAG = r"^([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}$"
_TAG_VALUE = r"^[A-Za-z0-9_.-]{0,63}$"
_ASSET = r"^[A-Za-z0-9_./-]{1,255}$"


class Card(SpecModel):
    """The dataset in a catalogue of data, such as Dagster's.

    Not part of the frozen spec: it may be changed and registered again under the same version.
    """

    description: str = Field(default="", max_length=10_000, description="what the dataset is, in Markdown")
    owners: list[Annotated[str, Field(pattern=_OWNER)]] = Field(
        default_factory=list, description="e-mail addresses, or `team:NAME`"
    )
    tags: dict[Annotated[str, Field(pattern=_TAG)], Annotated[str, Field(pattern=_TAG_VALUE)]] = Field(
        default_factory=dict, description="tag -> its value, or an empty one"
    )
    made_from: list[Annotated[str, Field(pattern=_ASSET)]] = Field(
        default_factory=list,
        description="keys of Dagster assets, `a/b`, that write the sources: edges of the graph, for people",
    )
    fresh_within: Duration | None = Field(
        default=None,
        description="time after which a publish is stale: Dagster's freshness policy, and an alert",
    )

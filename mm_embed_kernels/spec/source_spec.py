"""TODO."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.spec.model import SpecModel


class LabelRule(SpecModel):
    """Where a file's label comes from when it stands in no table."""

    from_: Literal["parent_dir"] = Field(alias="from")


class RecordMapping(SpecModel):
    """Which fields of a record (a JSON line, a row of a table) mean what; one of `text`, `bytes`, `url` is its content."""

    text: str | None = None
    bytes: str | None = Field(
        default=None, description="field of bytes, of base64, or of Hugging Face's {bytes, path}"
    )
    url: str | None = Field(
        default=None, description="field of URLs, or of paths relative to the table: each is a sample"
    )
    id: str | None = None
    label: str | None = None
    link: str | None = None
    group: str | None = None

    @model_validator(mode="after")
    def _one_content(self) -> RecordMapping:
        if sum(field is not None for field in (self.text, self.bytes, self.url)) != 1:
            raise ValueError("a record's content is required: name one of text, bytes and url")
        return self

    @property
    def content(self) -> str:
        """The field that holds the content, or says where it is."""
        return self.text or self.bytes or self.url or ""


class SideTable(SpecModel):
    """A CSV, JSONL or Parquet table that adds columns to the files of a source, joined on the file's key or name."""

    uri: str
    key: str
    columns: list[str]


class SourceSpec(SpecModel):
    """One place that samples come from. Source names are unique in a spec."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    modality: str
    uri: str
    track_of: str | None = Field(
        default=None,
        description="source of videos whose sound tracks are the samples; it gives uri, label and table",
    )
    format: str | None = Field(
        default=None, description="source kind; by default chosen from `record` and the ending"
    )
    label: LabelRule | None = None
    record: RecordMapping | None = None
    table: SideTable | None = None
    members: str | None = Field(
        default=None,
        description="glob over members of archives; by default all but those that describe others",
    )
    allow_empty: bool = False
    fetch: FetchPolicy = FetchPolicy()

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str) -> str:
        if re.match(r"[\w+.-]+://[^/?#]*:[^/?#]*@", uri):
            raise ValueError(
                "a URI with a password would be stored and shown; give credentials in the usual places of its file system"
            )
        return uri

    blobs: Literal["copy", "reference"] = Field(
        default="copy",
        description="whether the bytes are copied into the store, or stay where they are and are verified at each read",
    )

    @model_validator(mode="after")
    def _whole_objects(self) -> SourceSpec:
        if self.blobs == "reference" and (self.record is not None or self.track_of is not None):
            raise ValueError("blobs: reference is for whole files; records and tracks are copied")
        if self.blobs == "reference" and self.fetch.allow_private and re.match(r"https?://", self.uri):
            raise ValueError("blobs: reference is for public addresses; what private ones send is copied")
        return self

    @model_validator(mode="after")
    def _one_way_to_a_label(self) -> SourceSpec:
        for name in ("label", "table") if self.record else ():
            if getattr(self, name) is not None:
                raise ValueError(
                    f"a source of records takes everything from its records; move what {name!r} gives into `record` and `schema`"
                )
        return self


def holds_tracks(source: SourceSpec) -> bool:
    return source.modality == "video" and source.record is None and source.track_of is None

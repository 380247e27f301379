"""Sources of a spec: location, mapping of records, side table and labels."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.spec.model import SpecModel
from mm_embed_kernels.urls import REFERENCE


class LabelRule(SpecModel):
    """Rule for the label of a file, where no table gives one."""

    from_: Literal["parent_dir"] = Field(alias="from", description="name of the folder that holds the file")


class RecordMapping(SpecModel):
    """Fields of a record (a JSON line, a row of a table) by meaning; text, bytes or url is its content."""

    text: str | None = Field(default=None, description="field with the text")
    bytes: str | None = Field(
        default=None, description="field with bytes, base64, or Hugging Face's {bytes, path}"
    )
    url: str | None = Field(
        default=None, description="field with URLs, or paths relative to the table; each is a sample"
    )
    id: str | None = Field(default=None, description="field with the key; by default the record's number")
    label: str | None = Field(default=None, description="field with the label")
    link: str | None = Field(
        default=None, description="field with the key of a sample of another source: both are one entity"
    )
    group: str | None = Field(default=None, description="field with a group that has one split")

    @model_validator(mode="after")
    def _check_content(self) -> RecordMapping:
        if sum(field is not None for field in (self.text, self.bytes, self.url)) != 1:
            raise ValueError("a record's content is required: name one of text, bytes and url")
        return self

    @property
    def content(self) -> str:
        """Field that holds the content or its URL."""
        return self.text or self.bytes or self.url or ""


class SideTable(SpecModel):
    """A CSV, JSONL or Parquet table with further columns, joined on the key or the name of the files."""

    uri: str = Field(description="path or URL of the table, relative to the spec")
    key: str = Field(description="column with the key or the name of the files")
    columns: list[str] = Field(
        description="columns to read: those of the spec's `schema`, and label, link, group and transcript"
    )


class SourceSpec(SpecModel):
    """One location of samples. Source names are unique in a spec."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the source")
    modality: str = Field(description="text, image, audio, video or that of a plug-in; auto: by content")
    uri: str = Field(description="file, folder, glob or URL, relative to the spec")
    track_of: str | None = Field(
        default=None,
        description="source of the videos whose sound tracks are the samples; gives uri, label, table and "
        "exclude",
    )
    format: str | None = Field(
        default=None, description="source kind; by default chosen by `record` and the file extension"
    )
    label: LabelRule | None = Field(default=None, description="rule for the label of a file")
    record: RecordMapping | None = Field(default=None, description="fields of a record, by meaning")
    table: SideTable | None = Field(default=None, description="side table with further columns")
    members: str | None = Field(
        default=None,
        description="glob over members of archives; by default all except those that describe others",
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="names, folders or globs below the root of `uri` to leave out, also of members: "
        "`drafts`, `*_thumb.jpg`",
    )
    allow_empty: bool = Field(default=False, description="admit a source that lists no sample")
    fetch: FetchPolicy = Field(default=FetchPolicy(), description="limits of its network access")
    blobs: Literal["copy", "reference"] = Field(
        default="copy",
        description="copy the bytes into the store, or leave them in place and verify them at each read",
    )

    @field_validator("exclude")
    @classmethod
    def _refuse_empty(cls, exclude: list[str]) -> list[str]:
        if any(not pattern.strip("/ ") for pattern in exclude):
            raise ValueError(
                "an entry is empty; name a file or a folder, or write a glob such as *_thumb.jpg"
            )
        return exclude

    @field_validator("uri")
    @classmethod
    def _refuse_password(cls, uri: str) -> str:
        if re.match(r"[\w+.-]+://[^/?#]*:[^/?#]*@", REFERENCE.sub("", uri).replace(":@", "@")):
            raise ValueError(
                "a URI with a password would be stored and displayed; give credentials in the usual places "
                "of its file system, or name user and password by ${env:MM_SECRET_NAME} or ${file:NAME}"
            )
        return uri

    @model_validator(mode="after")
    def _check_references(self) -> SourceSpec:
        if self.blobs == "reference" and (self.record is not None or self.track_of is not None):
            raise ValueError("blobs: reference is for whole files; records and tracks are copied")
        if self.blobs == "reference" and self.fetch.allow_private and re.match(r"https?://", self.uri):
            raise ValueError("blobs: reference is for public addresses; data of private ones is copied")
        return self

    @model_validator(mode="after")
    def _check_record_columns(self) -> SourceSpec:
        for name in ("label", "table") if self.record else ():
            if getattr(self, name) is not None:
                raise ValueError(
                    "a source of records takes all columns from its records; "
                    f"move what {name!r} gives into `record` and `schema`"
                )
        return self

    @property
    def is_video_files(self) -> bool:
        """True for a source of video files, to whose sound tracks `track_of` of another source may refer."""
        return self.modality == "video" and self.record is None and self.track_of is None

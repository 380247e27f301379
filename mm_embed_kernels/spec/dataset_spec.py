"""Pydantic model of the dataset spec, the user's YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationError, field_validator, model_validator

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical_json, check_name, check_version, digest
from mm_embed_kernels.spec.card import Card
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.spec.mistakes import describe_mistakes
from mm_embed_kernels.spec.model import SAMPLE_FIELDS, USER_TYPES, SpecModel, user_column
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.spec.thresholds import ColumnRule, Curation, DriftLimits, Gates, Promotion, Watch
from mm_embed_kernels.spec.yaml_text import parse_yaml, read_text


class DatasetSpec(SpecModel):
    """One dataset version."""

    name: str = Field(description="name of the dataset")
    version: str = Field(description="name of this version, for example v1; quote one that is a number")
    parent: str | None = Field(
        default=None, description="version that this one follows, whose samples keep their split"
    )
    schema_: dict[str, Literal["string", "int", "float", "bool", "timestamp"]] = Field(
        default_factory=dict,
        alias="schema",
        description="user column -> its type; the tables name it `user__COLUMN`",
    )
    sources: list[SourceSpec] = Field(min_length=1, description="locations of the samples")
    splits: dict[str, float] = Field(
        default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1},
        description="split -> its share of the entities; the shares sum to 1",
    )
    embedders: dict[str, list[str]] = Field(
        default_factory=dict,
        description="modality -> embedders, the primary one first; by default that of the profile",
    )
    transcribe: dict[str, str] = Field(
        default_factory=dict, description="modality -> transcriber of its speech"
    )
    validation: dict[str, dict[str, ColumnRule]] = Field(
        default_factory=dict,
        description="modality -> column of the listing or the probe -> permitted values; other samples fail",
    )
    on_partial: Literal["reject", "keep_prefix"] = Field(
        default="reject",
        description="media that are cut off: fail, or keep the readable beginning (see `read_share`)",
    )
    curation: Curation = Field(default=Curation(), description="settings of the curation rules")
    gates: Gates = Field(default=Gates(), description="limits above which nothing is published")
    promotion: Promotion = Field(default=Promotion(), description="requirements of `mm promote`")
    drift: DriftLimits = Field(default=DriftLimits(), description="limits above which drift is reported")
    watch: Watch = Field(default=Watch(), description="checks of the sources for changes")
    card: Card = Field(default=Card(), description="the dataset in a catalogue of data")

    @model_validator(mode="before")
    @classmethod
    def _inherit_tracks(cls, raw: Any) -> Any:
        """Complete a source of tracks by uri, label, table and exclude of the source that it names."""
        sources = raw.get("sources") if isinstance(raw, dict) else None
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            return raw
        named = {source.get("name"): source for source in sources}

        def complete(source: dict[str, Any]) -> dict[str, Any]:
            given = named.get(source.get("track_of"), {})
            return {
                **{name: given[name] for name in ("uri", "label", "table", "exclude") if name in given},
                **source,
            }

        return {
            **raw,
            "sources": [complete(source) if source.get("track_of") else source for source in sources],
        }

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return check_name(name)

    @field_validator("version", mode="before")
    @classmethod
    def _check_version(cls, version: object) -> str:
        if version is None:
            raise ValueError("a version is required, for example v1")
        if isinstance(version, float):
            raise ValueError(f"YAML reads this version as the number {version}; quote it")
        return check_version(str(version))

    @field_validator("parent", mode="before")
    @classmethod
    def _check_parent(cls, parent: object) -> str | None:
        return None if parent is None else cls._check_version(parent)

    @field_validator("schema_")
    @classmethod
    def _check_columns(cls, schema: dict[str, str]) -> dict[str, str]:
        taken: dict[str, str] = {}
        for name in schema:
            if not name.strip():
                raise ValueError("a column needs a name")
            other = taken.setdefault(user_column(name).casefold(), name)
            if other != name:
                raise ValueError(
                    f"{other!r} and {name!r} would be one table column, {user_column(name)}; "
                    "rename one in the source"
                )
        return schema

    @field_validator("splits")
    @classmethod
    def _check_shares(cls, splits: dict[str, float]) -> dict[str, float]:
        if (
            not splits
            or not all(share >= 0 for share in splits.values())
            or not abs(sum(splits.values()) - 1) <= 1e-6
        ):
            raise ValueError(f"split shares must be 0 or more and sum to 1, not {sum(splits.values()):g}")
        return splits

    @model_validator(mode="after")
    def _check_sources(self) -> DatasetSpec:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source names must be unique; {', '.join(twice)} stands more than once")
        if self.parent == self.version:
            raise ValueError("a version cannot be its own parent")
        for source in self.sources:
            if source.track_of and not any(
                other.name == source.track_of and other.is_video_files for other in self.sources
            ):
                raise ValueError(
                    f"source {source.name}: track_of: {source.track_of!r} is not a source of video files "
                    "in this spec"
                )
            unknown = [
                name
                for name in (source.table.columns if source.table else ())
                if name not in {*self.schema_, *SAMPLE_FIELDS}
            ]
            if unknown:
                raise ValueError(
                    f"source {source.name}: table column {unknown[0]!r} is not in schema; "
                    "declare its type there"
                )
        return self

    @property
    def dataset_version(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def modalities(self) -> list[str]:
        """Declared modalities; ``auto``: those of the listed samples."""
        return sorted({source.modality for source in self.sources})

    def sources_of(self, modality: str) -> list[SourceSpec]:
        """Return the sources that may contain samples of a modality."""
        return [source for source in self.sources if source.modality in (modality, "auto")]

    @property
    def user_fields(self) -> list[pa.Field]:
        """Declared user columns as ``user__*`` Arrow fields."""
        return [
            pa.field(
                user_column(name), USER_TYPES[kind], metadata={"description": "declared in the spec's schema"}
            )
            for name, kind in self.schema_.items()
            if name not in ("label", "transcript")
        ]

    @property
    def digest(self) -> str:
        """Digest of the spec without `watch` and `card`; equal digests are the same version."""
        # The order of the splits decides which hash belongs to which, so it is part of the digest; JSON
        # objects have none.
        written = {
            **self.model_dump(by_alias=True, mode="json", exclude={"watch", "card"}),
            "splits": list(self.splits.items()),
        }
        # A field that was added later is left out by default, so that older specs have the same digest as
        # before.
        for part, defaults in _later_fields(written):
            for name, default in defaults.items():
                if name in part and part[name] == default:
                    del part[name]
        return digest("spec", canonical_json(written))


def _later_fields(written: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the parts of a dumped spec that gained fields after the first release, and their defaults."""
    yield (
        written,
        {
            "on_partial": "reject",
            "promotion": Promotion().model_dump(mode="json"),
            "drift": DriftLimits().model_dump(mode="json"),
        },
    )
    for source in written["sources"]:
        yield source["fetch"], {"allow": []}
        yield source, {"exclude": [], "members": None, "fetch": FetchPolicy().stored_fields, "blobs": "copy"}
        yield source["record"] or {}, {"bytes": None, "url": None}


# Type of the Dagster component whose attributes are a spec.
COMPONENT = "mm_assets.Dataset"


def parse_spec(text: str, origin: str, base: str | None = None) -> DatasetSpec:
    """Parse a spec from YAML; relative URIs are resolved against `base`, the spec's folder.

    Args:
        text: the YAML; also that of a Dagster component whose attributes are the spec, see `COMPONENT`.
        origin: file name for error messages.
        base: folder of the spec, or None to leave relative URIs as they are.

    Raises:
        UserError: naming the file, the line, the field and the cause in one line.
    """
    raw = parse_yaml(text, origin)
    if isinstance(raw, dict) and raw.get("type") == COMPONENT:
        raw = raw.get("attributes")
    if not isinstance(raw, dict):
        raise UserError(f"{origin}: a spec is a mapping with name, version and sources")
    spec = restore_spec(raw, origin, text)
    return spec if base is None else _resolve_uris(spec, base)


def restore_spec(raw: object, origin: str, text: str = "") -> DatasetSpec:
    """Return a spec from the JSON of one that was parsed before.

    Args:
        text: the YAML that it was parsed from, whose lines a mistake names.

    Raises:
        UserError: naming the origin, the field and the cause in one line.
    """
    try:
        return DatasetSpec.model_validate(raw)
    except ValidationError as error:
        # Without its cause, which quotes the values: one may be a password.
        raise UserError(
            f"{origin}: {describe_mistakes(error, DatasetSpec.model_json_schema(), text)}"
        ) from None


def load_spec(path: Path) -> DatasetSpec:
    """Read a spec file; relative URIs become absolute.

    Raises:
        UserError: see `parse_spec`; also for a file that cannot be read.
    """
    return parse_spec(read_text(path), str(path), str(path.absolute().parent))


def escape_glob(path: str) -> str:
    """Escape the wildcards of a path."""
    return re.sub(r"([*?\[{])", r"[\1]", path)


def _resolve_uris(spec: DatasetSpec, base: str) -> DatasetSpec:
    def absolute(uri: str, base: str) -> str:
        return uri if "://" in uri or uri.startswith("/") else f"{base.rstrip('/')}/{uri.removeprefix('./')}"

    sources = [
        source.model_copy(
            update={
                # The folder's own name is literal, whatever characters it has.
                "uri": absolute(source.uri, escape_glob(base)),
                "table": source.table
                and source.table.model_copy(update={"uri": absolute(source.table.uri, base)}),
            }
        )
        for source in spec.sources
    ]
    return spec.model_copy(update={"sources": sources})

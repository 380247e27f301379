"""The dataset spec: what a user writes in YAML, as a pydantic model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical, check_name, check_version, digest
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.spec.model import SAMPLE_FIELDS, USER_TYPES, SpecModel, user_column
from mm_embed_kernels.spec.source_spec import SourceSpec, holds_tracks
from mm_embed_kernels.spec.thresholds import ColumnRule, Curation, DriftLimits, Gates, Promotion, Watch


class DatasetSpec(SpecModel):
    """One dataset version."""

    name: str
    version: str
    parent: str | None = Field(
        default=None, description="version that this one follows: what is placed in a split stays there"
    )
    schema_: dict[str, Literal["string", "int", "float", "bool", "timestamp"]] = Field(
        default_factory=dict, alias="schema"
    )
    sources: list[SourceSpec] = Field(min_length=1)
    splits: dict[str, float] = Field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    embedders: dict[str, list[str]] = Field(
        default_factory=dict,
        description="modality -> embedders, the primary one first; by default the profile's",
    )
    transcribe: dict[str, str] = Field(
        default_factory=dict, description="modality -> transcriber that writes down what is said in it"
    )
    validation: dict[str, dict[str, ColumnRule]] = Field(
        default_factory=dict,
        description="modality -> column of the listing or the probe -> what it may hold; anything else fails",
    )
    on_partial: Literal["reject", "keep_prefix"] = Field(
        default="reject",
        description="media that are cut off: failures, or kept as far as they can be read (`read_share` says how far)",
    )
    curation: Curation = Curation()
    gates: Gates = Gates()
    promotion: Promotion = Promotion()
    drift: DriftLimits = DriftLimits()
    watch: Watch = Watch()

    @model_validator(mode="before")
    @classmethod
    def _tracks(cls, raw: Any) -> Any:
        """A source of tracks takes from the one that it names what it does not say itself."""
        sources = raw.get("sources") if isinstance(raw, dict) else None
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            return raw
        named = {source.get("name"): source for source in sources}

        def whole(source: dict[str, Any]) -> dict[str, Any]:
            given = named.get(source.get("track_of"), {})
            return {**{name: given[name] for name in ("uri", "label", "table") if name in given}, **source}

        return {**raw, "sources": [whole(source) if source.get("track_of") else source for source in sources]}

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name)

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, version: object) -> str:
        if version is None:
            raise ValueError("a version is needed, for example v1")
        if isinstance(version, float):
            raise ValueError(f"YAML reads this version as the number {version}; put it into quotes")
        return check_version(str(version))

    @field_validator("parent", mode="before")
    @classmethod
    def _parent(cls, parent: object) -> str | None:
        return None if parent is None else cls._version(parent)

    @field_validator("schema_")
    @classmethod
    def _columns(cls, schema: dict[str, str]) -> dict[str, str]:
        taken: dict[str, str] = {}
        for name in schema:
            if not name.strip():
                raise ValueError("a column needs a name")
            other = taken.setdefault(user_column(name).casefold(), name)
            if other != name:
                raise ValueError(
                    f"{other!r} and {name!r} would be one table column, {user_column(name)}; rename one in the source"
                )
        return schema

    @field_validator("splits")
    @classmethod
    def _shares(cls, splits: dict[str, float]) -> dict[str, float]:
        if (
            not splits
            or not all(share >= 0 for share in splits.values())
            or not abs(sum(splits.values()) - 1) <= 1e-6
        ):
            raise ValueError(f"split shares must be 0 or more and sum to 1, not {sum(splits.values()):g}")
        return splits

    @model_validator(mode="after")
    def _unique_sources(self) -> DatasetSpec:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source names must be unique; {', '.join(twice)} stands more than once")
        if self.parent == self.version:
            raise ValueError("a version cannot be its own parent")
        for source in self.sources:
            if source.track_of and not any(
                other.name == source.track_of and holds_tracks(other) for other in self.sources
            ):
                raise ValueError(
                    f"source {source.name}: track_of: {source.track_of!r} is no source of video files in this spec"
                )
            unknown = [
                name
                for name in (source.table.columns if source.table else ())
                if name not in {*self.schema_, *SAMPLE_FIELDS}
            ]
            if unknown:
                raise ValueError(
                    f"source {source.name}: table column {unknown[0]!r} is not in schema; declare its type there"
                )
        return self

    @property
    def dataset_version(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def modalities(self) -> list[str]:
        """The modalities that the spec declares (``auto`` stands for what its listing turns out to hold)."""
        return sorted({source.modality for source in self.sources})

    @property
    def user_fields(self) -> list[pa.Field]:
        """The declared user columns as ``user__*`` Arrow fields."""
        return [
            pa.field(
                user_column(name), USER_TYPES[kind], metadata={"description": "declared in the spec's schema"}
            )
            for name, kind in self.schema_.items()
            if name not in ("label", "transcript")
        ]

    @property
    def digest(self) -> str:
        # The order of the splits decides which hashes fall into which, so it counts; JSON objects have none.
        written = {
            **self.model_dump(by_alias=True, mode="json", exclude={"watch"}),
            "splits": list(self.splits.items()),
        }
        # A field that came later says nothing by its default: specs that were frozen before it are still the same.
        for part, later in _later(written):
            for name, default in later.items():
                if name in part and part[name] == default:
                    del part[name]
        return digest("spec", canonical(written))


def _later(written: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The parts of a spec that have got fields since the first one was frozen, and what these fields are by default."""
    yield (
        written,
        {
            "on_partial": "reject",
            "promotion": Promotion().model_dump(mode="json"),
            "drift": DriftLimits().model_dump(mode="json"),
        },
    )
    for source in written["sources"]:
        yield source, {"members": None, "fetch": FetchPolicy().model_dump(mode="json"), "blobs": "copy"}
        yield source["record"] or {}, {"bytes": None, "url": None}


def parse_spec(text: str, origin: str, base: str | None = None) -> DatasetSpec:
    """Read a spec from YAML; relative URIs are resolved against `base` (the spec's folder).

    Raises:
        UserError: one line that names the file, the field and the cause.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{origin}: a spec is a mapping with name, version and sources")
    try:
        spec = DatasetSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec"
        raise UserError(f"{origin}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    return spec if base is None else _absolute(spec, base)


def load_spec(path: Path) -> DatasetSpec:
    """Read a spec file; relative URIs become absolute."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the spec: {error}") from error
    return parse_spec(text, str(path), str(path.absolute().parent))


def escape_glob(path: str) -> str:
    """A path in which no character is a wildcard."""
    return re.sub(r"([*?\[{])", r"[\1]", path)


def _absolute(spec: DatasetSpec, base: str) -> DatasetSpec:
    def absolute(uri: str, base: str) -> str:
        return uri if "://" in uri or uri.startswith("/") else f"{base.rstrip('/')}/{uri.removeprefix('./')}"

    sources = [
        source.model_copy(
            update={
                # The folder's own name is no pattern, whatever it holds.
                "uri": absolute(source.uri, escape_glob(base)),
                "table": source.table
                and source.table.model_copy(update={"uri": absolute(source.table.uri, base)}),
            }
        )
        for source in spec.sources
    ]
    return spec.model_copy(update={"sources": sources})

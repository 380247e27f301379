"""The dataset spec: what a user writes in YAML, as a pydantic model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.fetching import Fetching
from mm_embed_kernels.identity import canonical, check_name, check_version, digest

USER_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


# What a side table says of a sample beside the user's own columns.
SAMPLE_FIELDS = ("label", "link", "group", "transcript")


def user_column(name: str) -> str:
    """The table column of a user's column: what SQL would have to quote is replaced by ``_``."""
    return "user__" + re.sub(r"\W", "_", name)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


Duration = Annotated[str, Field(pattern=r"^[1-9]\d{0,5}(s|min|h|d)$")]
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def seconds(duration: str) -> int:
    """``10min`` -> 600."""
    number = duration.rstrip("sminhd")
    return int(number) * _SECONDS[duration[len(number) :]]


class LabelRule(_Model):
    """Where a file's label comes from when it stands in no table."""

    from_: Literal["parent_dir"] = Field(alias="from")


class RecordMapping(_Model):
    """Which fields of a record (a JSON line, a row of a table) mean what; one of `text`, `bytes`, `url` is its content."""

    text: str | None = None
    bytes: str | None = Field(default=None, description="field of bytes, of base64, or of Hugging Face's {bytes, path}")
    url: str | None = Field(default=None, description="field of URLs, or of paths relative to the table: each is a sample")
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


class SideTable(_Model):
    """A CSV, JSONL or Parquet table that adds columns to the files of a source, joined on the file's key or name."""

    uri: str
    key: str
    columns: list[str]


class SourceSpec(_Model):
    """One place that samples come from. Source names are unique in a spec."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    modality: str
    uri: str
    track_of: str | None = Field(
        default=None, description="source of videos whose sound tracks are the samples; it gives uri, label and table"
    )
    format: str | None = Field(default=None, description="source kind; by default chosen from `record` and the ending")
    label: LabelRule | None = None
    record: RecordMapping | None = None
    table: SideTable | None = None
    members: str | None = Field(default=None, description="glob over members of archives; by default all but those that describe others")
    allow_empty: bool = False
    fetch: Fetching = Fetching()

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str) -> str:
        if re.match(r"[\w+.-]+://[^/?#]*:[^/?#]*@", uri):
            raise ValueError("a URI with a password would be stored and shown; give credentials in the usual places of its file system")
        return uri

    blobs: Literal["copy", "reference"] = Field(
        default="copy", description="whether the bytes are copied into the store, or stay where they are and are verified at each read"
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


def _holds_tracks(source: SourceSpec) -> bool:
    return source.modality == "video" and source.record is None and source.track_of is None


class Gates(_Model):
    """Thresholds of a cell above which nothing is published; all are shares of its samples, 0 to 1."""

    max_failed_share: float = Field(default=0.2, ge=0, le=1)
    max_failed_share_by_class: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="error class -> share that may fail for this cause"
    )
    max_failed_share_above_parent: float | None = Field(
        default=None, ge=0, le=1, description="how much larger a share may fail than of the published parent version"
    )


class Promotion(_Model):
    """What a version must show before an alias moves to it; shares are 0 to 1."""

    min_recall: float = Field(default=0.95, ge=0, le=1, description="recall@10 of each table's index against exact search")
    min_label_share: float = Field(
        default=0.5, ge=0, le=1, description="of the samples that each label has behind the alias now, how many it must have at least"
    )
    max_duplicate_share: float = Field(default=0.2, ge=0, le=1, description="published samples that repeat another one of their group")
    min_centroid_cosine: float = Field(default=0.8, ge=-1, le=1, description="between the mean vectors of the two versions")


class DriftLimits(_Model):
    """How far a version may lie from its parent and from production before its report calls it drift; nothing is held back. 0 to 1."""

    max_label_shift: float = Field(default=0.1, ge=0, le=1, description="total variation between the shares of labels")
    max_decision_shift: float = Field(
        default=0.1, ge=0, le=1, description="change of the share that does not pass a rule, of the worst one"
    )
    max_failure_shift: float = Field(default=0.05, ge=0, le=1, description="change of the share that fails for a cause")
    max_signal_shift: float = Field(default=0.2, ge=0, le=1, description="Kolmogorov-Smirnov statistic of each measured signal")
    max_vector_shift: float = Field(default=0.2, ge=0, le=1, description="the same of the vectors' cosines to the earlier mean vector")


class ColumnRule(_Model):
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


class Curation(_Model):
    """The curation profile: rule name -> its settings (`action: drop|flag|off` and the rule's own parameters)."""

    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Watch(_Model):
    """Whether the platform looks at the sources by itself, and what it does when they have moved on.

    No part of the frozen spec: it may be changed, and registered again, under the same version.
    """

    sources: Literal["off", "propose", "register"] = Field(
        default="off", description="propose: say so, with the command; register: register the next version and request its cells"
    )
    every: Duration = Field(default="1h", description="time between two looks, each of which lists the sources anew")
    settle: Duration = Field(default="10min", description="how long the sources must stay as they are before anything is done")
    names: Literal["number", "date"] = Field(default="number", description="how the next version is called: v1, v2, or by the day")

    @field_validator("sources", mode="before")
    @classmethod
    def _off(cls, sources: object) -> object:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if sources is False else sources


class DatasetSpec(_Model):
    """One dataset version."""

    name: str
    version: str
    parent: str | None = Field(default=None, description="version that this one follows: what is placed in a split stays there")
    schema_: dict[str, Literal["string", "int", "float", "bool", "timestamp"]] = Field(default_factory=dict, alias="schema")
    sources: list[SourceSpec] = Field(min_length=1)
    splits: dict[str, float] = Field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    embedders: dict[str, list[str]] = Field(
        default_factory=dict, description="modality -> embedders, the primary one first; by default the profile's"
    )
    transcribe: dict[str, str] = Field(default_factory=dict, description="modality -> transcriber that writes down what is said in it")
    validation: dict[str, dict[str, ColumnRule]] = Field(
        default_factory=dict, description="modality -> column of the listing or the probe -> what it may hold; anything else fails"
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
                raise ValueError(f"{other!r} and {name!r} would be one table column, {user_column(name)}; rename one in the source")
        return schema

    @field_validator("splits")
    @classmethod
    def _shares(cls, splits: dict[str, float]) -> dict[str, float]:
        if not splits or not all(share >= 0 for share in splits.values()) or not abs(sum(splits.values()) - 1) <= 1e-6:
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
            if source.track_of and not any(other.name == source.track_of and _holds_tracks(other) for other in self.sources):
                raise ValueError(f"source {source.name}: track_of: {source.track_of!r} is no source of video files in this spec")
            unknown = [name for name in (source.table.columns if source.table else ()) if name not in {*self.schema_, *SAMPLE_FIELDS}]
            if unknown:
                raise ValueError(f"source {source.name}: table column {unknown[0]!r} is not in schema; declare its type there")
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
            pa.field(user_column(name), USER_TYPES[kind], metadata={"description": "declared in the spec's schema"})
            for name, kind in self.schema_.items()
            if name not in ("label", "transcript")
        ]

    @property
    def digest(self) -> str:
        # The order of the splits decides which hashes fall into which, so it counts; JSON objects have none.
        written = {**self.model_dump(by_alias=True, mode="json", exclude={"watch"}), "splits": list(self.splits.items())}
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
        yield source, {"members": None, "fetch": Fetching().model_dump(mode="json"), "blobs": "copy"}
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
                "table": source.table and source.table.model_copy(update={"uri": absolute(source.table.uri, base)}),
            }
        )
        for source in spec.sources
    ]
    return spec.model_copy(update={"sources": sources})

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, load_spec, parse_spec

GOOD = """
name: birds
version: v1
schema: {stars: int, weight: float, seen: timestamp, wild: bool, note: string, label: string}
sources:
  - {name: photos, modality: image, uri: "photos/**/*.jpg", label: {from: parent_dir}}
  - name: notes
    modality: text
    uri: s3://bucket/notes.jsonl
    record: {text: body, id: id, label: kind, link: bird, group: walk}
  - {name: more, modality: auto, uri: /data/more, allow_empty: true, table: {uri: ./more.csv, key: file, columns: [label, stars]}}
splits: {train: 0.7, test: 0.3}
curation: {rules: {too_short: {min_words: 4, action: drop}}}
gates: {max_failed_share: 0.1}
"""


def changed(**top: Any) -> str:
    """The good spec with other top-level values; None removes one."""
    raw = {**yaml.safe_load(GOOD), **top}
    return yaml.safe_dump({key: value for key, value in raw.items() if value is not None}, sort_keys=False)


def with_source(**source: Any) -> str:
    return changed(sources=[{"name": "s", "modality": "text", "uri": "x", **source}])


def test_good_spec() -> None:
    spec = parse_spec(GOOD, "birds.yaml")
    assert (spec.name, spec.version, spec.dataset_version) == ("birds", "v1", "birds@v1")
    assert spec.modalities == ["auto", "image", "text"]
    assert spec.sources[0].label is not None
    assert spec.sources[1].record is not None
    assert (spec.sources[1].record.text, spec.sources[1].record.group) == ("body", "walk")
    assert spec.sources[2].table is not None
    assert spec.sources[2].allow_empty
    assert spec.splits == {"train": 0.7, "test": 0.3}
    assert spec.gates.max_failed_share == 0.1
    assert spec.curation.rules == {"too_short": {"min_words": 4, "action": "drop"}}


def test_defaults() -> None:
    spec = parse_spec("{name: a, version: 1, sources: [{name: s, modality: text, uri: x}]}", "f")
    assert spec.version == "1"
    assert spec.splits == {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert (spec.schema_, spec.curation.rules, spec.gates.max_failed_share) == ({}, {}, 0.2)
    assert not spec.sources[0].allow_empty


def test_user_fields() -> None:
    fields = {item.name: item.type for item in parse_spec(GOOD, "f").user_fields}
    assert fields == {
        "user__stars": pa.int64(),
        "user__weight": pa.float64(),
        "user__seen": pa.timestamp("us", tz="UTC"),
        "user__wild": pa.bool_(),
        "user__note": pa.string(),
    }


@pytest.mark.parametrize(
    ("text", "field", "cause"),
    [
        (changed(name=None), "name", "required"),
        (changed(version=None), "version", "required"),
        (changed(sources=None), "sources", "required"),
        (changed(sources=[]), "sources", "at least 1"),
        (changed(colour="red"), "colour", "there is no such key"),
        (changed(name="my birds"), "name", "must match"),
        (changed(name="birds@home"), "name", "must match"),
        (changed(name="b" * 32), "name", "31"),
        (changed(name=12), "name", "string"),
        (changed(version="v 1"), "version", "must match"),
        (changed(version="1..2"), "version", "'..'"),
        (changed(version="latest"), "version", "alias"),
        (changed(version="Production"), "version", "alias"),
        (changed(schema={"stars": "integer"}), "schema.stars", "'string', 'int'"),
        (changed(splits={"train": 0.5, "test": 0.4}), "splits", "sum to 1, not 0.9"),
        (changed(splits={"train": 1.5, "test": -0.5}), "splits", "0 or more"),
        (changed(splits={}), "splits", "sum to 1"),
        (changed(splits={"train": "most"}), "splits.train", "number"),
        (changed(splits={"train": float("nan"), "test": 0.5}), "splits", "sum to 1"),
        (changed(gates={"max_failed_share": 2}), "gates.max_failed_share", "less than or equal to 1"),
        (
            changed(gates={"max_failed_shares": 0.2}),
            "gates.max_failed_shares",
            "did you mean 'max_failed_share'?",
        ),
        (
            changed(gates={"max_failed_share_by_class": {"timeout": 2}}),
            "gates.max_failed_share_by_class.timeout",
            "less than or equal to 1",
        ),
        (
            changed(gates={"max_failed_share_above_parent": -0.1}),
            "gates.max_failed_share_above_parent",
            "greater than or equal to 0",
        ),
        (
            changed(validation={"image": {"size": {}}}),
            "validation.image.size",
            "sets min, max, one_of or none_of",
        ),
        (
            changed(validation={"image": {"size": {"least": 3}}}),
            "validation.image.size.least",
            "there is no such key",
        ),
        (
            changed(validation={"image": {"size": {"min": "big"}}}),
            "validation.image.size.min",
            "must be a number (integer)",
        ),
        (changed(curation={"rules": ["too_short"]}), "curation.rules", "mapping"),
        (changed(curation={"rules": {"too_short": 3}}), "curation.rules.too_short", "mapping"),
        (with_source(name="a b"), "sources.0.name", "match pattern"),
        (with_source(name="../b"), "sources.0.name", "match pattern"),
        (with_source(uri=None), "sources.0.uri", "string"),
        (with_source(label={"from": "file_name"}), "sources.0.label.from", "parent_dir"),
        (with_source(record={"id": "id"}), "sources.0.record", "content is required"),
        (
            with_source(record={"text": "t", "bytes": "b"}),
            "sources.0.record",
            "name one of text, bytes and url",
        ),
        (with_source(uri="sftp://user:secret@host/a"), "sources.0.uri", "usual places"),
        (with_source(fetch={"retries": -1}), "sources.0.fetch.retries", "greater than or equal to 0"),
        (
            with_source(fetch={"allow_private": ["intranet"]}),
            "sources.0.fetch.allow_private",
            "does not appear to be",
        ),
        (with_source(record={"text": "t", "txt": "t"}), "sources.0.record.txt", "there is no such key"),
        (with_source(table={"uri": "t.csv", "key": "k"}), "sources.0.table.columns", "required"),
        (with_source(glob="*"), "sources.0.glob", "there is no such key"),
        (
            with_source(record={"text": "t"}, label={"from": "parent_dir"}),
            "sources.0",
            "move what 'label' gives",
        ),
        (
            with_source(table={"uri": "t.csv", "key": "k", "columns": ["stars", "size"]}),
            "spec",
            "'size' is not in schema",
        ),
        (
            changed(schema={"photo.id": "int", "Photo ID": "int"}),
            "schema",
            "would be one table column, user__Photo_ID",
        ),
        (changed(schema={"": "int"}), "schema", "needs a name"),
        (changed(parent="v1"), "spec", "its own parent"),
        (changed(parent="latest"), "parent", "alias"),
        (with_source(allow_empty="perhaps"), "sources.0.allow_empty", "boolean"),
        (
            changed(sources=[{"name": "s", "modality": "text", "uri": uri} for uri in "ab"]),
            "spec",
            "s stands more than once",
        ),
        ("name: [birds", "not valid YAML", "expected"),
        ("name: a\n\tversion: b", "not valid YAML", "tab character"),
        ("- a\n- b", "a spec is a mapping", "name, version and sources"),
        ("", "a spec is a mapping", "sources"),
    ],
    ids=lambda value: None if len(value) > 40 else value,
)
def test_each_mistake_is_one_line_that_names_file_field_and_cause(text: str, field: str, cause: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(text, "specs/birds.yaml")
    line = str(caught.value)
    assert line.startswith(f"specs/birds.yaml: {field}")
    assert cause in line
    assert "\n" not in line


def test_all_mistakes_are_named_at_once_with_their_lines() -> None:
    text = """\
name: birds
verion: v1
splits: [train]
sources:
  - name: photos
    modality: image
    url: photos
  - {name: texts, modality: text, uri: t.csv, record: {text: t, labels: l}, members: 3}
"""
    for wrapped in (
        text,
        "type: mm_assets.Dataset\nattributes:\n" + "".join(f"  {line}\n" for line in text.splitlines()),
    ):
        shift = wrapped.count("\n") - text.count("\n")
        with pytest.raises(UserError) as caught:
            parse_spec(wrapped, "f.yaml")
        assert str(caught.value).removeprefix("f.yaml: ").split("; ") == [
            "version: is required",
            f"sources.0.uri (line {5 + shift}): is required",
            f"sources.0.url (line {7 + shift}): there is no such key",
            "did you mean 'uri'?",
            f"sources.1.record.labels (line {8 + shift}): there is no such key",
            "did you mean 'label'?",
            f"sources.1.members (line {8 + shift}): must be a text (string)",
            "quote it",
            f"splits (line {3 + shift}): must be a mapping, `key: value`",
            f"verion (line {2 + shift}): there is no such key",
            "did you mean 'version'?",
        ]


def test_a_key_of_another_part_and_the_keys_that_there_are() -> None:
    source = "sources: [{name: s, modality: text, uri: x, max_failed_share: 1}]"
    with pytest.raises(UserError, match=r"did you mean 'max_failed_share', a key of `gates`\?"):
        parse_spec(f"{{name: a, version: v1, {source}}}", "f")
    with pytest.raises(
        UserError, match=r"no such key; the keys here are: name, version, parent, schema, sources"
    ):
        parse_spec(
            f"{{name: a, version: v1, colour: red, {source.replace(', max_failed_share: 1', '')}}}", "f"
        )


def test_a_version_without_a_value_is_a_mistake() -> None:
    """``version:`` is YAML's null, and no version is called None."""
    with pytest.raises(UserError, match="version"):
        parse_spec("{name: a, version: , sources: [{name: s, modality: text, uri: x}]}", "f")


def test_off_is_off_although_yaml_reads_it_as_false() -> None:
    from mm_embed_kernels.rules import rule_set

    spec = parse_spec(GOOD.replace("action: drop", "action: off"), "f")
    assert "too_short" not in {rule.name for rule in rule_set("text", spec.curation.rules)}


def test_relative_uris_stand_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    path = tmp_path / "specs" / "birds.yaml"
    path.write_text(GOOD)
    spec = load_spec(path)
    assert [source.uri for source in spec.sources] == [
        f"{tmp_path}/specs/photos/**/*.jpg",
        "s3://bucket/notes.jsonl",
        "/data/more",
    ]
    assert spec.sources[2].table is not None
    assert spec.sources[2].table.uri == f"{tmp_path}/specs/more.csv"


def test_relative_spec_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_spec(Path("birds.yaml")).sources[0].uri == f"{tmp_path}/photos/**/*.jpg"


def test_uris_beside_a_remote_spec() -> None:
    assert parse_spec(GOOD, "f", "s3://bucket/specs/").sources[0].uri == "s3://bucket/specs/photos/**/*.jpg"
    assert parse_spec(GOOD, "f").sources[0].uri == "photos/**/*.jpg"


@pytest.mark.parametrize("data", [None, b"\xff\xfe\xfa", "folder"], ids=["missing", "not text", "a folder"])
def test_unreadable_spec_files(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "birds.yaml"
    if data == "folder":
        path.mkdir()
    elif data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match="cannot read the spec") as caught:
        load_spec(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_round_trip() -> None:
    spec = parse_spec(GOOD, "f")
    again = DatasetSpec.model_validate(spec.model_dump(by_alias=True, mode="json"))
    assert again == spec
    assert again.digest == spec.digest


@pytest.mark.parametrize(
    "other",
    [
        changed(splits={"train": 0.6, "test": 0.4}),
        changed(curation=None),
        changed(gates=None),
        changed(schema={"stars": "float"}),
        GOOD.replace("parent_dir}", "parent_dir}, allow_empty: true"),
        GOOD.replace("group: walk", "group: day"),
    ],
    ids=range(6),
)
def test_digest_changes_with_the_spec(other: str) -> None:
    assert parse_spec(other, "f").digest != parse_spec(GOOD, "f").digest


def test_digest_ignores_how_the_yaml_is_written() -> None:
    raw = yaml.safe_load(GOOD)
    backwards = yaml.safe_dump({key: raw[key] for key in reversed(raw)}, sort_keys=False)
    assert (
        parse_spec(backwards, "f").digest == parse_spec(changed(), "f").digest == parse_spec(GOOD, "g").digest
    )


def test_specs_are_frozen() -> None:
    spec = parse_spec(GOOD, "f")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "bees"

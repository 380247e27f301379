"""YAML from strangers: aliases, depth, size and values that Python does not have cost one short line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import load_spec, parse_spec

SPEC = "name: birds\nversion: v1\nsources:\n  - {name: a, modality: text, uri: x}\n"
# Nine anchors of nine aliases each: 9^9 nodes.
BOMB = (
    SPEC
    + "curation: {rules: {too_short: {min_words: [&a [1,1,1,1,1,1,1,1,1]"
    + "".join(
        f", &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]}}}\n"
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BOMB, "aliases stand for more than"),
        ("name: " + "[" * 3000 + "]" * 3000, "nests at most 64 levels"),
        ("name: " + "{a: " * 3000 + "}" * 3000, "nests at most 64 levels"),
        ("name: &a [*a]", "stands inside what it names"),
        (SPEC + "#" * (1 << 20), "at most 1,048,576 characters"),
        ("name: 2001-99-99", "month must be in"),
        (f"name: {'9' * 9000}", "Exceeds the limit"),
        ("? [a]\n: b", "unhashable key"),
        ("- *q", "undefined alias"),
        (SPEC + "".join(f"key{place}: 1\n" for place in range(3000)), "and 2,990 more mistakes"),
        (f"{SPEC}{'k' * 900}: 1\n", "there is no such key"),
        ("name: [1, 2\nversion", "not valid YAML"),
    ],
)
def test_a_hostile_spec_is_one_short_line(text: str, cause: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(text, "f.yaml")
    line = str(caught.value)
    assert cause in line
    assert line.startswith("f.yaml: ")
    assert "\n" not in line
    assert len(line) < 5_000
    assert caught.value.__cause__ is None


def test_anchors_that_stand_for_little_are_read() -> None:
    text = SPEC.replace(
        "uri: x}", "uri: x, fetch: &p {retries: 1}}\n  - {name: b, modality: text, uri: y, fetch: *p}"
    )
    assert [source.fetch.retries for source in parse_spec(text, "f").sources] == [1, 1]


def test_a_pipe_is_no_spec(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "spec.yaml")
    with pytest.raises(UserError, match="no regular file"):
        load_spec(tmp_path / "spec.yaml")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot read the spec"):
        load_spec(tmp_path / "link.yaml")


def test_an_error_quotes_no_value() -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(SPEC.replace("uri: x", "uri: 'https://u:Hidden@h/x', members: 7"), "f")
    assert "Hidden" not in str(caught.value)
    assert "MM_SECRET_" in str(caught.value)


def test_what_a_list_may_name_is_part_of_a_spec_only_where_it_is_given() -> None:
    """The digest of an earlier spec, with a `fetch` of its own, is as it was before `allow` existed."""
    plain = parse_spec(SPEC.replace("uri: x", "uri: x, fetch: {retries: 1}"), "f")
    given = parse_spec(SPEC.replace("uri: x", "uri: x, fetch: {retries: 1, allow: ['s3://mine/']}"), "f")
    assert plain.digest == "ae7582d8fefa07431f16f113d3fef15b0cebd6afc2397ca26a3eb5285d732a3a"
    assert given.digest != plain.digest
    for allowed in ("mine", "s3://", "s3://mine/../x", "https://h?x"):
        with pytest.raises(UserError, match="no bucket or folder"):
            parse_spec(SPEC.replace("uri: x", f"uri: x, fetch: {{allow: ['{allowed}']}}"), "f")

"""A version is frozen only where each of its sources lists something."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.registry.registry import Registry
from mm_resources.registry.source_look import look_at_sources
from tests.resources.specs import spec_of


def test_sources_that_list_something(registry: Registry, data: Path) -> None:
    (data / "notes.jsonl").write_text('{"text": "a"}\n')
    spec = spec_of(
        {"uri": str(data)},
        {"uri": f"{data}/*.txt"},
        {"uri": f"{data}/notes.jsonl", "record": {"text": "text"}},
        {"uri": f"{data}/*.nothing", "allow_empty": True},
    )
    assert list(look_at_sources(registry, spec)) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("nosuch/*.txt", "source s0 cannot be listed: {data}/nosuch does not exist; the nearest path that exists is {data}"),
        ("x/y/z", "source s0 cannot be listed: {data}/x/y/z does not exist; the nearest path that exists is {data}"),
        ("*.nothing", "source s0 lists nothing at {data}/*.nothing; mend the path or set allow_empty: true"),
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere(registry: Registry, data: Path, path: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        list(look_at_sources(registry, spec_of({"uri": f"{data}/{path}"})))
    assert str(caught.value) == line.format(data=data)


def test_a_service_that_does_not_answer_is_a_note(
    registry: Registry, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    (note,) = look_at_sources(registry, spec_of({"uri": "s3://bucket/notes"}))
    assert note.startswith("source s0 does not answer now: ")

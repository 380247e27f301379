"""Sensors beside files that cannot be read: the others are registered, and the page names what was not."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_assets.automation import spec_sensor
from mm_assets.automation.refresh import nightly
from mm_assets.automation.source_sensor import sources
from mm_embed_kernels.errors import UserError
from tests.assets.automation.test_sensors import requested, resources, tick

SPEC = "name: {name}\nversion: {version}\nsources: [{{name: a, modality: text, uri: {uri}}}]\n{more}"


@pytest.fixture
def folder(platform: Any, tmp_path: Path) -> Path:
    (tmp_path / "t.txt").write_text("a text of some words\n")
    found: Path = platform.settings.datasets
    found.mkdir(parents=True)
    return found


def write(folder: Path, file: str, name: str, version: str = "v1", more: str = "") -> Path:
    path = folder / file
    path.write_text(SPEC.format(name=name, version=version, uri=folder.parent.parent / "t.txt", more=more))
    return path


def skipped(found: dg.SensorResult) -> str:
    return str(found.skip_reason.skip_message) if isinstance(found.skip_reason, dg.SkipReason) else ""


def observed(found: dg.SensorResult) -> list[str]:
    return [str(event.description) for event in found.asset_events]


def test_a_parent_in_a_later_file(platform: Any, folder: Path) -> None:
    write(folder, "k-v10.yaml", "k", "v10", "parent: v9\n")
    write(folder, "k-v9.yaml", "k", "v9")
    write(folder, "m.yaml", "m", "v2", "parent: v1\n")
    first = tick(platform, None)
    assert platform.registry.datasets() == ["k@v10", "k@v9"]
    assert requested(first) == ["k@v10|text", "k@v9|text"]
    assert "m@v2: its parent is not registered" in observed(first)[0]
    # It waits, and is named by each tick but reported once, until the parent comes by another way.
    second = tick(platform, first.cursor)
    assert "m@v2: its parent is not registered" in skipped(second)
    assert observed(second) == []
    platform.register(write(folder.parent, "elsewhere.yaml", "m"))
    third = tick(platform, second.cursor)
    assert requested(third) == ["m@v2|text"]
    assert observed(third) == ["the sensor specs reads all again"]
    assert requested(tick(platform, third.cursor)) == []


@pytest.mark.parametrize(
    "kind", ["dangling", "loop", "folder", "pipe", "deep", "bomb", "binary", "large", "unreadable"]
)
def test_one_file_costs_itself(platform: Any, folder: Path, kind: str) -> None:
    bad = folder / "a-bad.yaml"
    if kind == "dangling":
        bad.symlink_to("/nowhere/x.yaml")
    elif kind == "loop":
        bad.symlink_to(bad)
    elif kind == "folder":
        bad.mkdir()
    elif kind == "pipe":
        os.mkfifo(bad)
    else:
        bad.write_bytes(
            {
                "deep": b"name: " + b"[" * 3000 + b"]" * 3000,
                "bomb": b"a: &a [1,1]\n"
                + b"".join(b"%c: &%c [*%c,*%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120)),
                "binary": b"\xff\xfe\x00name",
                "large": b"#" * (5 << 20),
                "unreadable": b"name: \x1b[2J\x00",
            }[kind]
        )
    write(folder, "good.yaml", "good")
    first = tick(platform, None)
    assert requested(first) == ["good@v1|text"]
    (line,) = observed(first)
    assert "a-bad.yaml" in line
    assert line.isprintable()
    assert len(line) < 1_000
    second = tick(platform, first.cursor)
    assert "a-bad.yaml" in skipped(second)
    assert observed(second) == []
    if kind != "folder":
        bad.unlink()
        assert observed(tick(platform, second.cursor)) == ["the sensor specs reads all again"]


def test_an_error_of_any_kind_costs_its_file(
    platform: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = spec_sensor.load_spec

    def fail(path: Path) -> Any:
        if path.name == "a.yaml":
            raise ZeroDivisionError("planted")
        return load(path)

    monkeypatch.setattr(spec_sensor, "load_spec", fail)
    write(folder, "a.yaml", "a")
    write(folder, "b.yaml", "b")
    assert requested(tick(platform, None)) == ["b@v1|text"]


def test_what_a_tick_has_no_time_for_comes_next(
    platform: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec_sensor, "_SECONDS", -1.0)
    for name in "abc":
        write(folder, f"{name}.yaml", name)
    cursor: str | None = None
    for name in "abc":
        found = tick(platform, cursor)
        assert requested(found) == [f"{name}@v1|text"]
        cursor = found.cursor
    assert requested(tick(platform, cursor)) == []


def test_an_older_cursor_is_read(platform: Any, folder: Path) -> None:
    import json

    path = write(folder, "a.yaml", "a")
    info = path.stat()
    assert requested(tick(platform, json.dumps({str(path): f"{info.st_size}-{info.st_mtime_ns}"}))) == []


def damage(platform: Any, name: str) -> None:
    (Path(platform.settings.store) / name).write_text('{"spec": {')


def test_a_damaged_version_costs_itself(platform: Any, folder: Path) -> None:
    write(folder, "bad.yaml", "bad", more="watch: {sources: propose}\n")
    write(folder, "good.yaml", "good", more="watch: {sources: propose}\n")
    tick(platform, None)
    damage(platform, "registry/datasets/bad/v1.json")
    with pytest.raises(UserError, match=r"bad@v1 cannot be read: registry/datasets/bad/v1.json .* damaged"):
        platform.registry.spec("bad", "v1")
    assert platform.registry.spec("good", "v1").version == "v1"

    def check(cursor: str | None) -> dg.SensorResult:
        with dg.build_sensor_context(
            instance=platform.instance, cursor=cursor, resources=resources(platform)
        ) as context:
            found = sources(context)
        assert isinstance(found, dg.SensorResult)
        return found

    first = check(None)
    assert "bad@v1 cannot be read" in observed(first)[0]
    second = check(first.cursor)
    assert observed(second) == []
    assert "bad@v1 cannot be read" in skipped(second)
    with dg.build_schedule_context(
        instance=platform.instance,
        scheduled_execution_time=datetime(2026, 1, 1),
        resources=resources(platform),
    ) as context:
        found = nightly(context)
    assert "bad@v1 cannot be read" in str(found)

"""The soak: actions follow from the seed, and what it checks is told from what it permits."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.soak.actions import choose
from benchmarks.soak.invariants import growth, violations
from benchmarks.soak.processes import Command, Trouble
from benchmarks.soak.world import Version, World, _problem

MIB = 1 << 20


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World("local", tmp_path / "world", str(tmp_path / "store"))
    for seed in range(3):
        made.new_version(seed, "notes")
    return made


def test_a_seed_gives_its_actions(world: World) -> None:
    def chosen(seed: int) -> list[object]:
        dice = random.Random(seed)
        return [choose(dice, world) for _ in range(50)]

    assert chosen(7) == chosen(7) != chosen(8)
    assert {name for name, _ in chosen(7)} >= {"backfill", "forget", "gc", "upkeep", "redrive", "look"}


def test_versions_follow_each_other(world: World) -> None:
    first, second, third = world.versions
    assert (first.name, second.name, third.name) == ("v1", "v2", "v3")
    assert set(first.texts.values()) & set(third.texts.values())
    assert first.texts != second.texts != third.texts
    assert len(set(first.texts.values())) == len(first.texts) - 2, "two stand twice"


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ({"discovered": 5, "published": 2, "dropped": 1, "failed": 2}, True),
        ({"discovered": 4, "published": 2, "dropped": 1, "failed": 1}, True),  # it left the listing
        ({"discovered": 5, "published": 2, "dropped": 1, "failed": 1}, False),  # does not close
        ({"discovered": 5, "published": 3, "dropped": 1, "failed": 1}, False),  # the forgotten text
        ({"discovered": 6, "published": 2, "dropped": 1, "failed": 3}, False),
    ],
)
def test_the_count_by_hand(found: dict[str, int], holds: bool) -> None:
    """Three texts, one of them twice, one forgotten, and a bad line."""
    version = Version("notes", "v1", {"a": "A", "b": "B", "a-again": "A", "c": "C"}, 1)
    assert (version.miscount(found, {"C"}) == "") is holds


def test_growth_of_a_reader() -> None:
    flat = [(400 * MIB + number % 7 * MIB, 20 + number % 3) for number in range(90)]
    assert growth(flat) == ""
    assert growth([(rss + number * MIB * 4, files) for number, (rss, files) in enumerate(flat)]).startswith(
        "memory"
    )
    assert growth([(rss, files + number) for number, (rss, files) in enumerate(flat)]).startswith(
        "descriptors"
    )
    assert growth(flat[:10]) == "", "too few to tell"


@pytest.mark.parametrize(
    ("code", "text", "trouble", "problem"),
    [
        (0, "", Trouble(), ""),
        (3, "tiny@v1 text is busy: run 1 is processing it; nothing was done", Trouble(), ""),
        (-9, "", Trouble(at=3), ""),
        (-9, "", Trouble(), "exit code -9"),
        (1, "text is failed: x was published by another run since this one began", Trouble(), ""),
        (1, "text is failed: No space left on device", Trouble(), "No space left on device"),
        (1, "text is failed: No space left on device", Trouble(room=0), ""),
        (1, "", Trouble(), "it does not say why it failed"),
        (1, "Traceback (most recent call last):", Trouble(room=0), "a traceback"),
    ],
)
def test_how_a_command_may_end(code: int, text: str, trouble: Trouble, problem: str) -> None:
    victim = SimpleNamespace(code=code, text=text)
    assert _problem(Command(["backfill"], victim, trouble)) == problem  # type: ignore[arg-type]


def test_an_error_of_a_reader_is_a_finding(world: World) -> None:
    """Nothing of the store exists: each check says so, and none ends the others."""
    found = list(violations(world))
    for version in world.versions:
        assert f"{version.dataset_version}|text is not published" in found
        assert any(line.startswith(f"{version.dataset_version}|text: search: ") for line in found)
        assert any(line.startswith(f"{version.dataset_version}|text: loader: ") for line in found)

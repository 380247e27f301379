"""The actions of the soak: each is a name and parameters, which suffice to do it again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from benchmarks.soak.processes import Trouble
from benchmarks.soak.world import World, digest_of

_VERSIONS = 12
_BESIDE = 2
Parameters = dict[str, Any]


def choose(dice: random.Random, world: World) -> tuple[str, Parameters]:
    """Choose the next action for a world."""
    if len(world.versions) < 2:
        return "version", {"seed": dice.randrange(1 << 30), "dataset": "notes"}
    weights = {
        "version": 4 if len(world.versions) < _VERSIONS else 0,
        "backfill": 9,
        "redrive": 2,
        "forget": 3,
        "upkeep": 2,
        "gc": 3,
        "look": 3,
    }
    name = dice.choices(list(weights), list(weights.values()))[0]
    return name, _PARAMETERS[name](dice, world)


def act(name: str, parameters: Parameters, world: World) -> None:
    """Do an action."""
    _ACTIONS[name](world, **parameters)


def _trouble(dice: random.Random, world: World) -> Parameters:
    """Choose what befalls a command: most often nothing."""
    kind = dice.choices(
        ["none", "boundary", "kill", "disk", "clock", "outage"],
        [40, 20, 10, 10, 12, 8 if world.server else 0],
    )[0]
    disk: Parameters = (
        {"room": dice.choice([0, 8_192, 65_536, 262_144])}
        if world.disk is not None
        else {"file_bytes": dice.choice([1_024, 4_096, 16_384])}
    )
    given: dict[str, Parameters] = {
        "boundary": {"at": dice.randint(1, 80)},
        "kill": {"after": round(dice.uniform(0.3, 9.0), 1)},
        "disk": disk if world.server is None else {},
        "clock": {"clock": dice.choice([-90_000, -3_600, -120, 120, 3_600, 90_000, 40 * 86_400])},
        "outage": {"outage": round(dice.uniform(0.5, 12.0), 1)},
    }
    return given.get(kind, {})


def _version_parameters(dice: random.Random, _: World) -> Parameters:
    return {"seed": dice.randrange(1 << 30), "dataset": dice.choice(["notes", "papers"])}


def _backfill_parameters(dice: random.Random, world: World) -> Parameters:
    return {
        "version": dice.randrange(len(world.versions)),
        "wait": dice.random() < 0.5,
        "trouble": _trouble(dice, world),
    }


def _plain_parameters(dice: random.Random, world: World) -> Parameters:
    return {"trouble": _trouble(dice, world)}


def _forget_parameters(dice: random.Random, world: World) -> Parameters:
    texts = world.texts()
    return {"text": dice.choice(texts) if texts else "", "trouble": _trouble(dice, world)}


def _look_parameters(dice: random.Random, world: World) -> Parameters:
    return {
        "version": dice.randrange(len(world.versions)),
        "command": dice.choice(["search", "datasets", "status"]),
    }


_PARAMETERS: dict[str, Callable[[random.Random, World], Parameters]] = {
    "version": _version_parameters,
    "backfill": _backfill_parameters,
    "redrive": lambda dice, world: {
        "version": dice.randrange(len(world.versions)),
        "trouble": _trouble(dice, world),
    },
    "forget": _forget_parameters,
    "upkeep": _plain_parameters,
    "gc": _plain_parameters,
    "look": _look_parameters,
}


def _run(world: World, words: list[str], trouble: Parameters, wait: bool = True) -> int | None:
    """Run a command under its trouble; the trouble ends with it, so one with a full disk is waited for."""
    given = Trouble(**trouble)
    while len(world.running) >= _BESIDE:
        world.reap()
        time.sleep(0.1)
    if given.room >= 0:
        finish_all(world)
        world.fill_disk(given.room)
    command = world.start(words, given)
    if given.outage:
        assert world.server is not None
        # Everything that runs beside it may fail for want of the store, too.
        for other in world.running:
            other.trouble.outage = given.outage
        command.victim.process.join(1.5)
        world.server.kill()
        time.sleep(given.outage)
        world.server.start()
    try:
        return world.finish(command) if wait or given.room >= 0 else None
    finally:
        if given.room >= 0:
            world.empty_disk()


def finish_all(world: World) -> None:
    """Wait for all commands of a world."""
    for command in list(world.running):
        world.finish(command)


def _add_version(world: World, seed: int, dataset: str) -> None:
    version = world.new_version(seed, dataset)
    version.registered = world.finish(world.start(["register", str(world.spec_path(version))])) == 0


def _backfill(world: World, version: int, wait: bool, trouble: Parameters) -> None:
    _run(world, ["backfill", world.versions[version].dataset_version], trouble, wait)


def _redrive(world: World, version: int, trouble: Parameters) -> None:
    _run(world, ["redrive", world.versions[version].dataset_version], trouble)


def _forget(world: World, text: str, trouble: Parameters) -> None:
    """Forget a content beside the readers, with no other writer on the store, as its documentation asks."""
    finish_all(world)
    if world.unfinished and world.unfinished != text:
        complete_forgetting(world)
    if not text or not _is_listed(world, text):
        return
    code = _run(world, ["forget", digest_of(text), "--yes"], trouble)
    # A forgetting that was killed is completed later: until then, nothing is published.
    world.unfinished = text if code != 0 else ""
    if code == 0:
        world.forgotten.add(text)


def complete_forgetting(world: World) -> None:
    """Repeat a forgetting that did not end well; the contents of one that never began are not forgotten."""
    if not world.unfinished:
        return
    finish_all(world)
    text = world.unfinished
    if world.finish(world.start(["forget", digest_of(text), "--yes"])) == 0:
        world.forgotten.add(text)
    world.unfinished = ""


def _is_listed(world: World, text: str) -> bool:
    """Return whether a stage lists a content, so that it can be forgotten."""
    from mm_resources.catalog import Catalog
    from mm_resources.cell import Cell

    catalog = Catalog.open(world.store)
    for version in world.versions:
        cell = Cell(version.dataset, version.name, "text")
        if text in version.texts.values() and catalog.tables.meta("raw_assets", cell) is not None:
            rows = catalog.tables.read("raw_assets", cell, ["content_hash"]).read_all()
            if digest_of(text) in rows["content_hash"].to_pylist():
                return True
    return False


def _upkeep(world: World, trouble: Parameters) -> None:
    _run(world, ["upkeep", "--older-than-days", str(world.grace_seconds / 86_400)], trouble)


def _collect(world: World, trouble: Parameters) -> None:
    _run(world, ["gc", "--older-than-days", str(world.grace_seconds / 86_400)], trouble)


def _look(world: World, version: int, command: str) -> None:
    name = world.versions[version].dataset_version
    words = {
        "search": ["search", "The word7 word8", "--modality", "text"],
        "datasets": ["datasets"],
        "status": ["status", name],
    }
    _run(world, words[command], {})


_ACTIONS: dict[str, Callable[..., None]] = {
    "version": _add_version,
    "backfill": _backfill,
    "redrive": _redrive,
    "forget": _forget,
    "upkeep": _upkeep,
    "gc": _collect,
    "look": _look,
}

"""Soak the platform: random actions by real processes, and invariants at the end.

    python -m benchmarks.soak --minutes 60 [--seed 7] [--stores local s3] [--folder DIR] [--repeat ACTIONS]

Backfills, second versions, redrives, forgets, upkeep, garbage collection and look-ups run in processes of
their own on a store and home of their own, two at once, while two readers live from the beginning to the end:
one searches, one loads epochs with media. Commands are killed at a commit boundary or after some seconds, or
find a full disk, a clock that is wrong, or a server that is away.

At the end all is finished without trouble, and the invariants are checked: the accounting closes for each
cell and equals a count by hand, no row is doubled, every blob verifies, every pin is readable, search and
loader return each text, no byte of a forgotten one is left, memory and descriptors of the readers are flat.

The folder, its log of actions and the outputs of all commands stay where something does not hold. The log
repeats the actions: those killed at a boundary exactly, those killed by time as nearly as time allows.

A full disk is a small one in memory where the machine lets one be mounted, else a bound on the size of files.
A wrong clock is that of the packages and of Dagster, not the kernel's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.soak.actions import act, choose, complete_forgetting, finish_all
from benchmarks.soak.invariants import growth, violations
from benchmarks.soak.processes import reader
from benchmarks.soak.readers import poll_epochs, poll_searches
from benchmarks.soak.world import World
from mm_resources.storage.process import configure_process
from tests.s3 import BUCKET, S3

_DISK = "512m"
_READERS = {"searches": poll_searches, "epochs": poll_epochs}


def main() -> int:
    """Run the soak; return 1 where something does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--stores", nargs="+", choices=("local", "s3"), default=["local", "s3"])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--repeat", type=Path, default=None, help="log of actions to do again")
    parser.add_argument(
        "--grace", type=float, default=180, help="seconds, more than a command takes on this machine"
    )
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 30)
    configure_process()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="mm-soak-"))
    print(f"seed {seed}, folder {folder}", flush=True)
    with ExitStack() as stack:
        worlds = [stack.enter_context(_world(folder / name, name)) for name in arguments.stores]
        for world in worlds:
            world.grace_seconds = arguments.grace
        if arguments.repeat:
            steps: Iterator[tuple[World, str, dict[str, Any]]] = _repeat(arguments.repeat, worlds)
        else:
            steps = _choose(random.Random(seed), worlds, 60 * arguments.minutes)
        findings = _soak(folder, worlds, steps)
    for line in findings:
        print(f"DOES NOT HOLD: {line}")
    if findings:
        print(f"{len(findings)} findings; {folder} stays; repeat: --repeat {folder / 'actions.jsonl'}")
        return 1
    shutil.rmtree(folder)
    print("all invariants hold")
    return 0


def _choose(
    dice: random.Random, worlds: list[World], seconds: float
) -> Iterator[tuple[World, str, dict[str, Any]]]:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        world = dice.choice(worlds)
        yield world, *choose(dice, world)


def _repeat(log: Path, worlds: list[World]) -> Iterator[tuple[World, str, dict[str, Any]]]:
    by_name = {world.name: world for world in worlds}
    for line in log.read_text().splitlines():
        step = json.loads(line)
        yield by_name[step["store"]], step["action"], step["parameters"]


def _soak(folder: Path, worlds: list[World], steps: Iterator[tuple[World, str, dict[str, Any]]]) -> list[str]:
    """Do all steps beside the readers; return what does not hold."""
    findings: list[str] = []
    began, count, told = time.monotonic(), 0, dict.fromkeys((world.name for world in worlds), 0)
    with (folder / "actions.jsonl").open("w") as log, ExitStack() as stack:
        readers = {
            f"{world.name} {name}": stack.enter_context(reader(target, world.store, world.server is not None))
            for world in worlds
            for name, target in _READERS.items()
        }
        for world, action, parameters in steps:
            step = {"store": world.name, "action": action, "parameters": parameters}
            log.write(json.dumps({"at": round(time.monotonic() - began, 1), **step}) + "\n")
            log.flush()
            count += 1
            act(action, parameters, world)
            for line in world.findings[told[world.name] :]:
                print(f"action {count}, {world.name}: {line}", flush=True)
            told[world.name] = len(world.findings)
        print(f"{count} actions in {(time.monotonic() - began) / 60:.1f} minutes; settling", flush=True)
        for world in worlds:
            settle(world)
        for name, process in readers.items():
            if grown := growth(process.samples):
                findings.append(f"reader {name}: {grown}")
            seen, memory = process.end(), [rss >> 20 for rss, _ in process.samples]
            print(f"{name}: {seen}, {memory[:1]} to {memory[-1:]} MiB", flush=True)
            findings += [
                f"reader {name}: {times} x {line}" for line, times in seen.items() if "WRONG" in line
            ]
    for world in worlds:
        findings += [f"{world.name}: {line}" for line in [*world.findings, *violations(world)]]
    return findings


def settle(world: World) -> None:
    """Finish everything without trouble: forgettings, cells, upkeep, garbage collection."""
    finish_all(world)
    complete_forgetting(world)
    for version in world.versions:
        if not version.registered:
            world.finish(world.start(["register", str(world.spec_path(version))]))
        world.finish(world.start(["backfill", version.dataset_version]))
    for words in (["upkeep", "--older-than-days", "0"], ["gc", "--older-than-days", "0"]):
        for _ in range(2):
            world.finish(world.start(words))


@contextmanager
def _world(folder: Path, name: str) -> Iterator[World]:
    folder.mkdir()
    if name == "s3":
        server = S3(folder / "server")
        server.start()
        try:
            os.environ.update(server.environment())
            yield World(name, folder, f"s3://{BUCKET}/soak", server)
        finally:
            server.kill()
        return
    disk = folder / "disk"
    disk.mkdir()
    mounted = _mount(disk)
    try:
        yield World(name, folder, str(disk / "store"), disk=disk if mounted else None)
    finally:
        if mounted:
            shutil.copytree(disk, folder / "disk-at-the-end", ignore=shutil.ignore_patterns("ballast"))
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _mount(disk: Path) -> bool:
    """Mount a small disk in memory; return whether the machine lets one be mounted."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(disk)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

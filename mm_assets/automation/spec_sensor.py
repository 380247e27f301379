"""Sensors that register specs and request their cells: `specs`, of the folder MM_DATASETS, and components'.

A file costs itself alone, whatever is in it: the others are registered, the file is named on the page of the
sensor's ticks and of the asset `dataset_registry`, and it is read again when it changes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg

from mm_assets.automation.problem_reports import (
    join_problems,
    problem_line,
    problem_observation,
    problem_state,
)
from mm_assets.automation.refresh import cell_request
from mm_assets.cells.partitions import dataset_versions
from mm_assets.operations.dagster_home import is_in_progress
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_resources.cell import Cell
from mm_resources.objects.opener import file_tag
from mm_resources.registry.registry import Registry
from mm_resources.registry.spec_check import UnknownParent
from mm_resources.resources import CatalogResource
from mm_resources.settings import Settings

_SPEC_SUFFIXES = (".yaml", ".yml")
# Files that are watched, and seconds after which a tick leaves the other files to the next one: Dagster ends
# a tick after a minute, and what it had read would be read again for ever.
_FILES, _SECONDS = 10_000, 20.0
# In the cursor: the state of the problems that were reported last.
_REPORTED = ""
_NEXT = "Correct or remove the file; it is read again when it changes, and a version after its parent."


@dataclass
class _File:
    """A file as the last tick that read it has left it.

    Attributes:
        state: size and modification time at the last reading; "" to read it again.
        problem: why it is not registered; "" if it is.
    """

    state: str
    problem: str = ""

    def dump(self) -> str | list[str]:
        return [self.state, self.problem] if self.problem else self.state


def spec_sensor(name: str, watched: str, location: Callable[[], Path]) -> dg.SensorDefinition:
    """Return a sensor that registers specs and requests their cells.

    Args:
        watched: what is watched, for the description.
        location: at each tick, a folder of spec files, or one of them.
    """

    @dg.sensor(
        name=name,
        job_name="refresh",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Registers new and changed specs of {watched}, and requests their cells.",
    )
    def sensor(context: dg.SensorEvaluationContext, mm_catalog: CatalogResource) -> dg.SensorResult:
        return _evaluate(context, name, mm_catalog.open().registry, location())

    return sensor


specs = spec_sensor("specs", "the folder MM_DATASETS", lambda: Settings.from_environment().datasets)


def _evaluate(
    context: dg.SensorEvaluationContext, sensor: str, registry: Registry, location: Path
) -> dg.SensorResult:
    """Register the files that changed since the last tick, and those that waited for their parent.

    The cursor contains the state of each file at the last tick, so that a restart repeats nothing.
    """
    before, reported = _load_cursor(context.cursor)
    states, problems = _file_states(location)
    files = {path: before[path] for path in states if path in before}
    changed = [path for path, state in states.items() if path not in before or before[path].state != state]
    requests: list[dg.RunRequest] = []
    versions: list[str] = []
    tried: set[str] = set()
    until = time.monotonic() + _SECONDS
    # A parent may stand in a file that comes later: what waits is tried again as long as any is registered.
    while changed:
        waiting: list[str] = []
        count = len(versions)
        for place, path in enumerate(changed):
            if time.monotonic() > until and place:
                waiting = []
                break
            tried.add(path)
            try:
                found, key, cells = _register(registry, Path(path))
                versions.append(found)
                # A cell that `mm backfill` processes now needs no run beside it; the next tick looks again.
                busy = [cell for cell in cells if is_in_progress(context.instance, cell)]
                requests += [cell_request(cell, key) for cell in cells if cell not in busy]
                files[path] = _File("" if busy else states[path])
            except UnknownParent as error:
                # Read again by each tick: the parent may be registered by another way, too.
                files[path] = _File("", problem_line(path, error))
                waiting.append(path)
            except OSError as error:
                # Of the store: the file is sound, and read again by the next tick.
                files[path] = _File("", problem_line(path, error))
                context.log.error(files[path].problem)
            except Exception as error:  # noqa: BLE001 - whatever a file causes is that file's alone
                files[path] = _File(states[path], problem_line(path, error))
                context.log.error(files[path].problem)
        changed = waiting if len(versions) > count else []
    read = [files[path].problem for path in tried if files[path].problem]
    problems += [file.problem for file in files.values() if file.problem]
    state = problem_state(problems)
    return dg.SensorResult(
        run_requests=requests,
        cursor=json.dumps({**{path: file.dump() for path, file in files.items()}, _REPORTED: state}),
        dynamic_partitions_requests=[dataset_versions.build_add_request(versions)] if versions else [],
        asset_events=[problem_observation(sensor, problems, _NEXT)] if state != reported else [],
        skip_reason=None if requests else _skip_reason(read, problems),
    )


def _register(registry: Registry, path: Path) -> tuple[str, str, list[Cell]]:
    """Register a file, and return its version, the spec's digest, and the cells that are not published."""
    spec = load_spec(path)
    registry.register(spec)
    cells = registry.cells(spec.dataset_version)
    unpublished = [cell for cell in cells if registry.pins.get(cell) is None]
    return spec.dataset_version, spec.digest, unpublished


def _skip_reason(read: list[str], problems: list[str]) -> str:
    """Return what this tick could not register, or else what is still not registered."""
    still = f"; still not registered: {join_problems(problems)}" if problems else ""
    return join_problems(read) or f"no spec is new or changed{still}"


def _load_cursor(cursor: str | None) -> tuple[dict[str, _File], str]:
    """Return the files of a cursor, and the state of the problems that were reported last."""
    raw: dict[str, Any] = json.loads(cursor or "{}")
    reported = str(raw.pop(_REPORTED, ""))
    files = {path: _File(*([value] if isinstance(value, str) else value)) for path, value in raw.items()}
    return files, reported


def _file_states(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return the size and modification time of each spec file, as one string, and the files left out."""
    if folder.is_file():
        return {str(folder): _state(folder)}, []
    if not folder.is_dir():
        return {}, []
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix in _SPEC_SUFFIXES)
    except OSError as error:
        return {}, [problem_line(str(folder), error)]
    problems = [f"{folder} holds {len(found):,} specs; {_FILES:,} are watched"] if len(found) > _FILES else []
    return {str(path): _state(path) for path in islice(found, _FILES)}, problems


def _state(path: Path) -> str:
    """Return a file's size and modification time; of a link that leads nowhere, its own."""
    try:
        return file_tag(path.stat())
    except OSError as error:
        return f"unread: {error.strerror}"

"""Trouble of the machine: children that are stopped, killed, starved, or cannot start; no sample is blamed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest

from mm_embed_kernels.errors import ProcessFailure, SampleError
from mm_embed_kernels.sandbox import channel, child_process, deaths
from mm_embed_kernels.sandbox.canary import Canary
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox, call_guarded
from tests.processes import ROOT, stop_for

HEALTHY = [(bytes([65 + i]) * 50,) for i in range(8)]
RIGHT = [50] * 8


def burn(seconds: float) -> float:
    """Take a core for some seconds of CPU time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return seconds


def burn_in_threads(seconds: float) -> float:
    """Take several cores, as decoders do that release the interpreter's lock."""
    import hashlib

    def hash_zeros() -> None:
        data, until = bytes(1 << 22), time.monotonic() + seconds
        while time.monotonic() < until:
            hashlib.sha256(data)

    threads = [threading.Thread(target=hash_zeros) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def stop_at_item(notes: BinaryIO) -> int:
    """Ask to be stopped, once in all, and wait until another process has done so and says it."""
    notes.seek(0)
    if not notes.read(1):
        notes.write(b"%d\n" % os.getpid())
        while not notes.read(1):
            time.sleep(0.01)
    return 50


def kill_at_item(number: int, notes: BinaryIO, times: int) -> int:
    """End this process by a signal, some times in all, which it counts in a file that it is handed."""
    notes.seek(0)
    if len(notes.read()) < times:
        notes.write(b"x")
        os.kill(os.getpid(), number)
    return 50


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def exit_later(code: int) -> int:
    """Answer, then leave once the next message is read."""
    load = pickle.Unpickler.load
    channel._Unpickler.load = lambda self: (load(self), os._exit(code))  # type: ignore[method-assign]
    return 0


@contextmanager
def sandbox(**limits: Any) -> Iterator[Sandbox]:
    opened = Sandbox(Limits(**{"memory_bytes": 1 << 30, **limits}))
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def first_children(act: Callable[[psutil.Process], None]) -> Iterator[list[int]]:
    """Do something to each child that starts, from another thread, until the block ends."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for child in psutil.Process().children():
                if child.pid not in seen and "spawn_main" in " ".join(_command(child)):
                    seen.append(child.pid)
                    act(child)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def load(loops: int) -> Iterator[None]:
    """Keep all cores busy. Each loop has a session of its own: the scheduler shares out cores by sessions."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command, start_new_session=True) for _ in range(loops)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("seconds", [0.05, 0.2, 1.0])
def test_the_start_of_a_child_is_not_the_time_of_its_first_item(seconds: float) -> None:
    with sandbox(item_seconds=seconds) as opened:
        assert opened.map(len, HEALTHY) == RIGHT


@pytest.mark.parametrize("seconds", [2.0, pytest.param(45.0, marks=pytest.mark.slow)])
def test_a_child_that_is_stopped_while_it_starts_has_time(seconds: float) -> None:
    with (
        sandbox(item_seconds=1.0 if seconds < 10 else 30.0, workers=2) as opened,
        first_children(partial(stop_for, seconds=seconds)),
    ):
        assert opened.map(len, HEALTHY) == RIGHT


@pytest.mark.parametrize("seconds", [2.0, pytest.param(45.0, marks=pytest.mark.slow)])
def test_a_child_that_is_stopped_at_an_item_has_time(tmp_path: Path, seconds: float) -> None:
    def stop() -> None:
        while not (text := path.read_text()).endswith("\n"):
            time.sleep(0.01)
        os.kill(int(text), signal.SIGSTOP)
        time.sleep(seconds)
        with path.open("a") as notes:
            notes.write("continues")
        os.kill(int(text), signal.SIGCONT)

    path = tmp_path / "stopped"
    thread = threading.Thread(target=stop)
    with (
        path.open("w+b", buffering=0) as notes,
        sandbox(item_seconds=0.5 if seconds < 10 else 30.0, file_bytes=100) as opened,
    ):
        thread.start()
        assert opened.map(stop_at_item, [(notes,)] * 8) == RIGHT
    thread.join()


@pytest.mark.slow
def test_a_busy_machine_takes_no_sample() -> None:
    with load(30), sandbox(item_seconds=1.0, workers=2) as opened:
        assert opened.map(len, HEALTHY) == RIGHT
        assert opened.map(burn, [(0.5,)] * 4) == [0.5] * 4


def test_own_time_ends_an_item_that_computes_or_sleeps_without_end() -> None:
    with sandbox(item_seconds=0.2, workers=2) as opened:
        outcomes = opened.map(burn, [(0.0,), (600.0,)]) + opened.map(time.sleep, [(600.0,), (0.0,)])
    assert [outcomes[0], outcomes[3]] == [0.0, None]
    for outcome in outcomes[1:3]:
        assert isinstance(outcome, SampleError)
        assert (outcome.error_class, outcome.retryable) == ("timeout", True)
        assert "longer than 0.2 s and, alone, than 0.8 s" in outcome.message


def test_an_item_that_runs_out_of_time_gets_more_of_it_alone() -> None:
    with sandbox(item_seconds=0.5) as opened:
        assert opened.map(burn, [(0.0,), (1.2,), (0.0,)]) == [0.0, 1.2, 0.0]


def test_several_threads_are_charged_once() -> None:
    with sandbox(item_seconds=3.0) as opened:
        assert opened.map(burn_in_threads, [(1.5,)]) == [1.5]


def test_the_clock_ends_a_child_that_is_stopped_without_end() -> None:
    with sandbox(item_seconds=20.0, wall_seconds=0.8) as opened:
        assert opened.map(len, HEALTHY) == RIGHT
        child = psutil.Process(opened.map(os.getpid, [()])[0])
        timer = threading.Timer(0.2, child.suspend)
        timer.start()
        (outcome,) = opened.map(time.sleep, [(600.0,)])
        timer.join()
    assert isinstance(outcome, SampleError)
    assert (outcome.error_class, outcome.retryable) == ("timeout", True)
    assert "0.8 s on the clock" in outcome.message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_at_its_first_item_is_replaced(tmp_path: Path, number: int) -> None:
    with (tmp_path / "killed").open("w+b", buffering=0) as notes, sandbox(file_bytes=100) as opened:
        assert opened.map(kill_at_item, [(number, notes, 1)] * 8) == RIGHT


def test_an_item_at_which_children_are_killed_twice_is_retryable(tmp_path: Path) -> None:
    with (tmp_path / "killed").open("w+b", buffering=0) as notes, sandbox(file_bytes=200) as opened:
        outcomes = opened.map(kill_at_item, [(signal.SIGKILL, notes, 100)])
        assert opened.map(len, HEALTHY) == RIGHT
    assert [(item.error_class, item.retryable) for item in outcomes] == [("decoder_crash", True)]
    assert "SIGKILL" in outcomes[0].message


def test_children_that_are_killed_while_they_start_are_replaced() -> None:
    def kill(child: psutil.Process) -> None:
        if len(killed) <= 3:
            child.kill()

    with sandbox(workers=2) as opened, first_children(kill) as killed:
        assert opened.map(len, HEALTHY) == RIGHT
    assert len(killed) >= 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_children_that_die_whatever_they_compute_end_the_run(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A healthy sample dies as well: the kernel kills all that takes memory, or a library is broken."""
    monkeypatch.setattr(deaths, "_MOST_CRASHED", 4)
    with sandbox(workers=2) as opened:
        with pytest.raises(ProcessFailure, match=rf"^\d+ child .* healthy .*{signal.Signals(number).name}"):
            opened.map(die, [(number,)] * 40, Canary(die, (number,)))
        assert opened.map(len, HEALTHY) == RIGHT


@pytest.mark.parametrize(
    ("number", "count", "retryable"),
    [
        (signal.SIGKILL, 7, True),
        (signal.SIGSEGV, 7, False),
        pytest.param(signal.SIGKILL, 100, True, marks=pytest.mark.slow),
    ],
)
def test_files_that_end_their_children_in_a_row_cost_themselves(
    number: int, count: int, retryable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first child on, which has given no answer before; more of them than ask for a canary."""
    monkeypatch.setattr(deaths, "_MOST_KILLED", 3)
    monkeypatch.setattr(deaths, "_MOST_CRASHED", 3)
    with sandbox(workers=2) as opened:
        outcomes = opened.map(die, [(number,)] * count + [(0,)])
    assert {(item.error_class, item.retryable) for item in outcomes[:-1]} == {("decoder_crash", retryable)}
    assert outcomes[-1] is None


def test_a_child_that_claims_to_have_no_main_guard_ends_no_run() -> None:
    """A decoder that is taken over leaves, when the next batch comes, with an exit code of the machinery."""
    with sandbox() as opened:
        assert opened.map(exit_later, [(child_process.UNGUARDED_EXIT,)]) == [0]
        assert opened.map(len, HEALTHY) == RIGHT


def test_files_that_crash_a_child_that_works_are_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "_MOST_CRASHED", 4)
    with sandbox() as opened:
        assert opened.map(len, HEALTHY) == RIGHT
        outcomes = opened.map(die, [(signal.SIGSEGV,)] * 5)
    assert {(item.error_class, item.retryable) for item in outcomes} == {("decoder_crash", False)}


def test_children_that_cannot_start_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_START_PAUSE_SECONDS", 0.01)
    broken = child_process.Child(os._exit, 3)
    with pytest.raises(ProcessFailure, match=r"^3 child processes ended .* exit code 3; no sample is blamed"):
        list(broken.ask(len, [(b"x",)], 5.0))


def test_what_a_child_cannot_import_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that the parent alone finds, as one of a notebook."""
    (tmp_path / "only_here.py").write_text("def length(data):\n    return len(data)\n")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import length  # type: ignore[import-not-found]

    (tmp_path / "only_here.py").unlink()
    with sandbox() as opened, pytest.raises(ProcessFailure, match="cannot load what it is to call: Module"):
        opened.map(length, HEALTHY)


def test_a_failure_of_processes_is_no_failure_of_a_sample() -> None:
    """Sound is copied out of a video in a sandbox while the sample is fetched."""

    def fetch() -> None:
        raise ProcessFailure("no child starts")

    with pytest.raises(ProcessFailure):
        call_guarded(fetch, ())


_UNGUARDED = """
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
def length(data):
    return len(data)
print(Sandbox(Limits()).map(length, [(b"x",)] * 6))
"""


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_UNGUARDED)
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1].endswith('under `if __name__ == "__main__":`')

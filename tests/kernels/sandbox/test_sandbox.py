from __future__ import annotations

import ctypes
import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox, shared_sandbox

MEMORY = 1 << 30
_LEAKED: list[bytearray] = []


def act(kind: str, value: int = 0) -> Any:
    """What a decoder may do to its process."""
    match kind:
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            time.sleep(600)
        case "slow":
            time.sleep(0.2)
        case "balloon":
            bytearray(2 * MEMORY)
        case "raise":
            raise ValueError("not a picture")
        case "broken":
            raise OSError("broken data stream")
        case "disk":
            raise OSError(errno.EIO, "Input/output error")
        case "ffmpeg":
            import av

            raise av.error.FileNotFoundError(errno.ENOENT, "no such stream")
        case "refuse":
            raise SampleError("truncated", "ends too early", retryable=True)
        case "recurse":
            return act("recurse")
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "leak":
            while True:
                _LEAKED.append(bytearray(1 << 16))
        case "shout":
            os.write(1, b"what a file says")
            os.write(2, b"what a file says")
        case "work":
            assert len(bytearray(32 << 20)) == 32 << 20
    return value * 2


def observe() -> dict[str, Any]:
    """What a decoder sees of its process."""
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_AS", "RLIMIT_CORE")}
    return {
        "environ": dict(os.environ),
        "started_with": Path("/proc/self/environ").read_bytes(),
        "files": [
            entry.readlink().as_posix() for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()
        ],
        "limits": limits,
        "pid": os.getpid(),
    }


@contextmanager
def sandbox(**limits: Any) -> Iterator[Sandbox]:
    opened = Sandbox(Limits(**{"memory_bytes": MEMORY, "item_seconds": 20.0, **limits}))
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("kind", "error_class", "message"),
    [
        ("segfault", "decoder_crash", "SIGSEGV"),
        ("exit", "decoder_crash", "exit code 3"),
        ("hang", "timeout", "longer than 0.5 s and, alone, than 2 s"),
        ("balloon", "memory_limit", "more memory"),
        ("raise", "decode_error", "ValueError: not a picture"),
        ("broken", "decode_error", "broken data stream"),
        ("ffmpeg", "decode_error", "no such stream"),
        ("disk", "store_error", "Input/output error"),
        ("refuse", "truncated", "ends too early"),
        ("recurse", "decode_error", "RecursionError"),
    ],
)
def test_trouble_costs_only_its_own_item(kind: str, error_class: str, message: str) -> None:
    with sandbox(item_seconds=0.5 if kind == "hang" else 20.0) as opened:
        outcomes = opened.map(act, [("good", 1), ("good", 2), (kind,), ("good", 3), ("work", 4)])
        again = opened.map(act, [("good", 5)])
    error = outcomes.pop(2)
    assert outcomes == [2, 4, 6, 8]
    assert again == [10]
    assert isinstance(error, SampleError)
    assert error.error_class == error_class
    assert message in error.message
    assert error.retryable == (kind in ("refuse", "disk", "hang", "balloon"))


def test_decoders_are_not_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with sandbox() as opened:
        assert opened.map(act, [("shout", 1)]) == [2]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["sys.exit", "interrupt"])
def test_leaving_by_exception_costs_only_its_own_item(kind: str) -> None:
    with sandbox() as opened:
        try:
            outcomes = opened.map(act, [("good", 1), (kind,), ("good", 2)])
        except BaseException as error:  # noqa: BLE001 - it would end the test run, as it ends a Dagster run
            pytest.fail(f"{type(error).__name__} came out of the sandbox")
    assert isinstance(outcomes[1], SampleError)
    assert [outcomes[0], outcomes[2]] == [2, 4]


def test_memory_that_an_item_keeps_does_not_fail_its_neighbours() -> None:
    with sandbox() as opened:
        outcomes = opened.map(act, [("work", 1), ("leak",), ("work", 2), ("work", 3)])
    assert isinstance(outcomes[1], SampleError)
    assert [outcomes[0], *outcomes[2:]] == [2, 4, 6]


def test_all_kinds_of_trouble_in_one_batch() -> None:
    kinds = {10: "segfault", 25: "raise", 40: "balloon", 41: "segfault", 59: "exit"}
    with sandbox(workers=2, chunk_items=8) as opened:
        outcomes = opened.map(act, [(kinds.get(i, "good"), i) for i in range(60)])
    failed = {
        i: outcome.error_class for i, outcome in enumerate(outcomes) if isinstance(outcome, SampleError)
    }
    assert failed == {
        10: "decoder_crash",
        25: "decode_error",
        40: "memory_limit",
        41: "decoder_crash",
        59: "decoder_crash",
    }
    assert all(outcome == 2 * i for i, outcome in enumerate(outcomes) if i not in kinds)


def test_empty_batch() -> None:
    with sandbox() as opened:
        assert opened.map(act, []) == []


def test_children_are_reused_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MM_STORE", "HF_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "s3cr3t")
    with sandbox(chunk_items=1) as opened:
        seen = opened.map(observe, [()] * 3)
    assert len({item["pid"] for item in seen}) == 1
    assert seen[0]["pid"] != os.getpid()
    assert seen[0]["limits"] == {"RLIMIT_AS": (MEMORY, MEMORY), "RLIMIT_CORE": (0, 0)}
    assert seen[0]["environ"]["OMP_NUM_THREADS"] == "1"
    assert seen[0]["environ"]["PATH"] == os.environ["PATH"]
    assert "s3cr3t" not in "".join(seen[0]["environ"].values())
    assert b"s3cr3t" not in seen[0]["started_with"]


def test_nothing_of_the_parent_is_left_in_a_child(tmp_path: Path) -> None:
    """A process of its own, since what it is started with cannot be changed later: its environment, and a file that it left inheritable."""
    secret, script = tmp_path / "secret", tmp_path / "parent.py"
    secret.write_text("s3cr3t")
    script.write_text(_HOLDER)
    command = [sys.executable, str(script), str(Path(__file__).parents[3]), str(secret)]
    found = subprocess.run(
        command,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "s3cr3t"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == {"parent": True, "child": False, "files": []}


_HOLDER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.kernels.sandbox import test_sandbox
if __name__ == "__main__":
    held = os.open(sys.argv[2], os.O_RDONLY)
    os.set_inheritable(held, True)
    with test_sandbox.sandbox() as opened:
        seen = opened.map(test_sandbox.observe, [()])[0]
    print(json.dumps({
        "parent": b"s3cr3t" in Path("/proc/self/environ").read_bytes(),
        "child": b"s3cr3t" in seen["started_with"],
        "files": [name for name in seen["files"] if sys.argv[2] in name],
    }))
"""


def test_a_child_that_is_killed_while_it_waits_is_replaced() -> None:
    """As by the kernel, when memory runs out."""
    with sandbox() as opened:
        os.kill(opened.map(observe, [()])[0]["pid"], signal.SIGKILL)
        time.sleep(0.2)
        assert opened.map(act, [("good", 1)]) == [2]


def test_threads_share_a_sandbox_and_may_end_before_it() -> None:
    """Linux kills a child with the thread that started it."""
    with sandbox(workers=2, chunk_items=4) as opened:
        for _ in range(2):
            with ThreadPoolExecutor(4) as threads:
                found = list(
                    threads.map(
                        lambda i: opened.map(act, [("good", i), ("segfault",) if i == 2 else ("good", 0)])[0],
                        range(6),
                    )
                )
            assert found == [0, 2, 4, 6, 8, 10]
        pids = {opened.map(observe, [()])[0]["pid"] for _ in range(4)}
    assert len(pids) <= 2


def test_a_hang_costs_its_own_time_only() -> None:
    """Of a chunk of thirty, the others are neither late with it nor told so."""
    with sandbox(item_seconds=0.5) as opened:
        outcomes = opened.map(act, [("hang",) if i == 3 else ("good", i) for i in range(30)])
    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, SampleError)] == [3]


def test_what_is_left_of_an_interrupted_batch_is_not_taken_for_the_next() -> None:
    with sandbox() as opened:
        answers = opened._children[0].ask(act, [("good", i) for i in range(10)], 20.0)
        assert next(answers) == 0
        answers.close()
        assert opened.map(act, [("good", 50)]) == [100]


def test_large_items_and_results_travel() -> None:
    with sandbox(chunk_bytes=1 << 20) as opened:
        outcomes = opened.map(bytes.upper, [(b"a" * (1 << 20),) for _ in range(3)])
    assert outcomes == [b"A" * (1 << 20)] * 3


@pytest.mark.parametrize(
    ("limits", "sizes", "expected"),
    [
        ({"chunk_items": 3}, [1] * 7, [3, 3, 1]),
        ({"workers": 2, "chunk_items": 32}, [1] * 20, [3, 3, 3, 3, 3, 3, 2]),
        ({"workers": 2, "chunk_items": 2}, [1] * 20, [2] * 10),
        ({"workers": 4}, [1] * 3, [1, 1, 1]),
        ({"chunk_bytes": 10}, [4, 4, 4, 20, 1], [2, 1, 1, 1]),
        ({}, [], []),
    ],
)
def test_chunks(limits: dict[str, int], sizes: list[int], expected: list[int]) -> None:
    with sandbox(**limits) as opened:
        chunks = list(opened._chunks([(bytes(size),) for size in sizes]))
    assert [len(chunk) for chunk in chunks] == expected
    assert [i for chunk in chunks for i in chunk] == list(range(len(sizes)))


def test_few_items_start_few_children() -> None:
    with sandbox(workers=3) as opened:
        assert [opened.map(act, [("good", i)]) for i in range(3)] == [[0], [2], [4]]
        assert [child._process is not None for child in opened._children].count(True) == 1
        opened.map(act, [("slow", i) for i in range(12)])
        assert all(child._process is not None for child in opened._children)


def test_shared_sandbox_is_one_per_limits() -> None:
    one, other = (
        Limits(memory_bytes=MEMORY, item_seconds=21.0),
        Limits(memory_bytes=MEMORY, item_seconds=22.0),
    )
    assert shared_sandbox(one) is shared_sandbox(Limits(memory_bytes=MEMORY, item_seconds=21.0))
    assert shared_sandbox(one) is not shared_sandbox(other)


_PARENT = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from tests.kernels.sandbox import test_sandbox
if __name__ == "__main__":
    opened = test_sandbox.Sandbox(test_sandbox.Limits(item_seconds=600))
    print(opened.map(test_sandbox.observe, [()])[0]["pid"], flush=True)
    opened.map(test_sandbox.act, [("hang",)])
"""


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parents[3])], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.send_signal(signal.SIGKILL)
    assert gone(child)


def use_shared(answer: Any) -> None:
    answer.put(shared_sandbox(Limits()).map(observe, [()])[0]["pid"])


def test_a_child_of_multiprocessing_ends_with_its_work() -> None:
    """Dagster's run workers are such: a sandbox that is left open must not keep them."""
    spawn = multiprocessing.get_context("spawn")
    answer = spawn.Queue()
    worker = spawn.Process(target=use_shared, args=(answer,))
    worker.start()
    child = answer.get(timeout=60)
    worker.join(60)
    assert worker.exitcode == 0
    assert gone(child)


def gone(pid: int) -> bool:
    """Whether a process has ended (or is only waiting to be reaped), with patience for a slow machine."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False

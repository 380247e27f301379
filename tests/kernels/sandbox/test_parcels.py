"""What travels to a child: objects that cannot be pickled, files that cannot be opened, names of the script."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.sandbox import child_process, stopwatch
from mm_embed_kernels.sandbox.answers import pack_answer, pack_parts, unpack_answer
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
from tests.processes import ROOT


class Unwilling:
    def __reduce__(self) -> Any:
        raise OSError(errno.EBADF, "cannot be pickled")


def read(path: Path) -> bytes:
    with path.open("rb") as stream:
        data: bytes = stream.read()
    return data


def open_by_name(path: str) -> str:
    return Path(path).read_text()


def answer_more_than_memory(memory: int) -> list[bytes]:
    """Return a value that fits in memory, and whose bytes do not."""
    return [bytes(memory // 3)] * 8


@pytest.fixture
def sandbox() -> Any:
    opened = Sandbox(Limits(memory_bytes=1 << 30))
    yield opened
    opened.close()


def test_what_cannot_be_pickled_is_told_as_it_is(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: Any) -> None:
        raise AssertionError("no child is needed")

    monkeypatch.setattr(child_process.Child, "_start", start)
    with pytest.raises(OSError, match="cannot be pickled"):
        sandbox.map(len, [(Unwilling(),)])


def test_a_file_that_cannot_be_opened_costs_its_own_item(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    outcomes = sandbox.map(read, [(tmp_path / "a",), (tmp_path / "missing",), (tmp_path / "a",)])
    assert [outcomes[0], outcomes[2]] == [b"one", b"one"]
    assert isinstance(outcomes[1], SampleError)
    assert (outcomes[1].error_class, outcomes[1].retryable) == ("store_error", True)
    assert "missing cannot be opened: No such file or directory" in outcomes[1].message


def test_a_decoder_that_opens_files_by_name_is_not_tried_for_ever(sandbox: Sandbox, tmp_path: Path) -> None:
    (outcome,) = sandbox.map(open_by_name, [(str(tmp_path / "missing"),)])
    assert isinstance(outcome, SampleError)
    assert (outcome.error_class, outcome.retryable) == ("decode_error", False)


def test_an_answer_that_has_no_memory_is_a_limit(sandbox: Sandbox) -> None:
    (outcome,) = sandbox.map(answer_more_than_memory, [(1 << 30,)])
    assert isinstance(outcome, SampleError)
    assert outcome.error_class == "memory_limit"


def test_a_process_that_proc_does_not_show_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "hidepid=1")

    monkeypatch.setattr(stopwatch, "_stat", refuse)
    watch = stopwatch.Stopwatch(os.getpid(), 0.0001, 600.0)
    assert [watch.excess() for _ in range(3)] == [""] * 3


SCRIPT = """
import pyarrow as pa

from tests.kernels.kernels.test_isolated_stage import texts
from mm_embed_kernels.kernels.base import RESULT, Stage, results
from mm_embed_kernels.kernels.isolated_stage import IsolatedStage


class Own(Stage):
    schema = pa.schema(RESULT)

    def run(self, batch):
        return results(batch["key"].to_pylist(), [{}] * batch.num_rows, 0.0, self.schema)


if __name__ == "__main__":
    stage = IsolatedStage(Own())
    stage.setup()
    print(stage.run(texts("a", "b"))["status"].to_pylist())
"""


def test_a_stage_of_a_script_is_computed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "['ok', 'ok']\n", done.stderr


@pytest.mark.parametrize("count", [0, 5, 100_000])
def test_parts_are_one_message(count: int) -> None:
    import numpy as np

    numbers = np.arange(3 * count, dtype="<i2").reshape(count, 3)
    for answer in (numbers, numbers.T, numbers.tobytes(), {"a": numbers}, "x" * count, None):
        assert b"".join(pack_parts(answer)) == pack_answer(answer)
    row, (inner, data), arrays = unpack_answer(
        b"".join(pack_parts(({"a": [1]}, (numbers.T, numbers.tobytes()), [numbers])))
    )
    assert (row, data) == ({"a": [1]}, numbers.tobytes())
    assert (inner == numbers.T).all()
    assert (arrays[0] == numbers).all()
    assert inner.dtype == numbers.dtype
    refused = unpack_answer(b"".join(pack_parts((numbers, object()))))
    assert refused.error_class == "bad_answer"

"""A store that is away for some seconds is waited for; one that refuses is not."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from mm_resources.storage import lance_datasets, patience
from mm_resources.storage.patience import read_patiently
from mm_resources.storage.store import Store


class Away:
    """A read that fails some times, and then passes."""

    def __init__(self, error: OSError, times: int) -> None:
        self.error, self.left, self.calls = error, times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "read"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(patience, "_LONGEST_PAUSE", 0.05)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        TimeoutError("no answer"),
        OSError(errno.ESTALE, "stale file handle"),
        OSError(errno.EIO, "input/output error"),
        OSError("LanceError(IO): Generic S3 error: error sending request for url"),
    ],
)
def test_a_store_that_is_away_is_waited_for(error: OSError) -> None:
    read = Away(error, 3)
    assert read_patiently(read) == "read"
    assert read.calls == 4


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "access denied"),
        OSError(errno.ENOSPC, "no space left"),
        OSError("LanceError(IO): the file is corrupt"),
    ],
)
def test_an_answer_that_refuses_is_raised_at_once(error: OSError) -> None:
    read = Away(error, 1)
    with pytest.raises(type(error)):
        read_patiently(read)
    assert read.calls == 1


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AWAY_SECONDS", 0.1)
    with pytest.raises(ConnectionResetError):
        read_patiently(Away(ConnectionResetError(errno.ECONNRESET, "reset"), 10_000))


def test_the_errors_of_real_clients_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of fsspec's S3 client and of Lance, at a port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionError) as of_store:
        Store("s3://bucket/store").read("registry/layout.json")
    with pytest.raises(ValueError, match="LanceError") as of_lance:
        lance_datasets.open_dataset("s3://bucket/store/a.lance")
    assert patience._is_away(of_store.value)
    assert patience._is_away(of_lance.value)

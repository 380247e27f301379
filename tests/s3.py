"""An S3 server for tests: a process of its own, killed and started again at will."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, free_port

BUCKET = "mm-store"
KEY, SECRET = "AKIATESTKEY", "a-secret-that-nothing-may-show"


class S3:
    """A server, and the environment in which a process finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / BUCKET).mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-test-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3_server", str(self.folder), str(self.port)], cwd=ROOT
        )
        deadline = time.monotonic() + 30
        while not _answers(self.endpoint):
            assert time.monotonic() < deadline, "the S3 server did not come up"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def keys(self, prefix: str = "") -> list[str]:
        """All keys as the server's disk holds them."""
        bucket = self.folder / BUCKET
        found = (str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(prefix))


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    """The server, with the environment of this process pointed at it."""
    point_at(monkeypatch, s3_server.environment(), tmp_path)
    return s3_server


def point_at(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], empty: Path) -> None:
    """Set `environment`, and let no profile file of the machine speak."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(empty / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

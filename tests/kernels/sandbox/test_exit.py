"""The exit of a process whose threads still compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

_SCRIPT = """
import atexit, os, threading, time
from multiprocessing.util import Finalize

from mm_embed_kernels.kernels import isolated_stage

def compute():
    while True:  # as threads do that compute ahead: a stage begins, and takes the next child
        try:
            list(isolated_stage._processes().child_of("model", None).ask(len, [("a",)], 60))
            answered.set()
        except Exception:
            time.sleep(0.1)

if __name__ == "__main__":
    answered = threading.Event()
    threading.Thread(target=compute, daemon=True).start()
    assert answered.wait(60)
    # What else ends takes time, in which the thread starts the next child.
    Finalize(None, time.sleep, (2,), exitpriority=5)
    atexit._run_exitfuncs()
    os._exit(7)
"""


def test_an_exiting_process_waits_for_no_child_that_a_thread_starts(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.returncode == 7

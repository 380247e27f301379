"""Where Ray is started from."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT

# In a process of its own, which has no Ray yet.
_SCRIPT = """
import threading, time
import psutil
from mm_resources.compute.ray_session import RaySession, _starter
import pyarrow as pa
from tests.resources.ray_numbers import Numbers

session, starters = RaySession(num_cpus=1, object_store_bytes=100 << 20), []

def brief():
    session.start()
    starters.append(threading.get_native_id())

thread = threading.Thread(target=brief)
thread.start()
thread.join()
while starters[0] in (each.id for each in psutil.Process().threads()):
    time.sleep(0.01)
raylet = next(each for each in psutil.Process().children() if each.name() == "raylet")
numbers = Numbers()
found = pa.concat_tables(session.run(numbers, iter([pa.table({"key": ["1", "2", "3"]})])))
assert sorted(found["twice"].to_pylist()) == [2, 4, 6], found
assert raylet.is_running() and raylet.status() != psutil.STATUS_ZOMBIE
try:
    _starter.call(lambda: 1 / 0)
except ZeroDivisionError:
    print("raised where it was asked for")
session.close()
"""


@pytest.mark.slow
def test_ray_outlives_the_thread_that_asked_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "raised where it was asked for"

"""A Ray cluster of separate processes on this machine, whose nodes share no folder that a test does not let them share."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.processes import ROOT, free_port, until

# Several nodes on one machine must not claim the same ports.
_PORTS = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0")

_NAMES = """
import sys
from ray._raylet import GcsClient
found = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
print(*(node.node_name for node in found.values() if node.state == 0))
"""


class Cluster:
    """A head that takes no work, and workers."""

    def __init__(self, root: Path) -> None:
        import ray

        self.root, self.address = root, f"{ray.util.get_node_ip_address()}:{free_port()}"
        self._nodes = ExitStack()

    def start_head(self) -> None:
        port = self.address.rpartition(":")[2]
        self._nodes.enter_context(
            self._node("head", "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        )

    @contextmanager
    def worker(
        self, name: str, hidden: Sequence[Path] = (), environment: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """A node of one CPU that sees empty folders in the place of the hidden ones."""
        with self._node(
            name, f"--address={self.address}", "--num-cpus=1", hidden=hidden, environment=environment
        ):
            yield
        until(lambda: name not in self._names())

    def stop(self) -> None:
        self._nodes.close()

    def _is_up(self, name: str, started: subprocess.Popen[bytes], log: Path) -> bool:
        assert started.poll() is None, log.read_text()
        return name in self._names()

    def _names(self) -> set[str]:
        """The nodes that are alive; asked by another process, since Ray ends one that has asked a while after the cluster is gone."""
        asked = subprocess.run([sys.executable, "-c", _NAMES, self.address], capture_output=True, text=True)
        return set(asked.stdout.split())

    @contextmanager
    def _node(
        self,
        name: str,
        *words: str,
        hidden: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[None]:
        home = self.root / name
        home.mkdir(parents=True)
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("MM_", "DAGSTER_", "RAY_"))
        }
        own = {
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONPATH": str(ROOT),
            "RAY_DISABLE_MEMORY_MONITOR": "1",
            **(environment or {}),
        }
        start = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            *words,
            f"--node-name={name}",
            *_PORTS,
            "--disable-usage-stats",
            "--block",
        ]
        mounts = "".join(f"mount -t tmpfs none {shlex.quote(str(folder))} && " for folder in hidden)
        command = ["unshare", "-m", "sh", "-c", f"{mounts}exec {shlex.join(start)}"] if hidden else start
        with (home / "log").open("wb") as log:
            started = subprocess.Popen(
                command, cwd=home, env={**kept, **own}, stdout=log, stderr=log, start_new_session=True
            )
        try:
            until(lambda: self._is_up(name, started, home / "log"))
            yield
        finally:
            root = psutil.Process(started.pid)
            everyone = [*root.children(recursive=True), root]
            for each in everyone:
                each.kill()
            started.wait()
            psutil.wait_procs(everyone, timeout=30)


@contextmanager
def cluster() -> Iterator[Cluster]:
    # A short path, since Ray's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="mm-ray-", ignore_cleanup_errors=True) as root:
        made = Cluster(Path(root))
        try:
            made.start_head()
            yield made
        finally:
            made.stop()


def can_hide_folders() -> bool:
    """Whether this machine lets us make a mount namespace (root, or a container that permits it)."""
    return (
        subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
        ).returncode
        == 0
    )

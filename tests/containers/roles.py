"""Services of docker/compose.yaml, started from the files of the image as an engine would start them, by bubblewrap.

What an engine gives and this does: the service's command, environment, secrets, user and mounts; a root file system that
is read only; no capability, no new privilege; process and IPC namespaces of its own; the networks of compose as one, which
no other process of the machine has. Not: its limits (cgroups), its networks one by one, its seccomp profile.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.processes import ROOT

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))[
    "services"
]
USER = 10001


class Network:
    """A network namespace with a loopback interface, in which all services have one address."""

    def __init__(self) -> None:
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 30
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == own:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def prefix(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.prefix, *words], check=True, capture_output=True, text=True, **options)

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


class Containers:
    """The services of one compose project."""

    def __init__(self, root: Path, folder: Path, network: Network, datasets: Path) -> None:
        self.root, self.folder, self.network, self.datasets = root, folder, network, datasets
        self.secrets = folder / "secrets"
        subprocess.run(["sh", ROOT / "docker" / "secrets.sh", self.secrets], check=True)
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost " + " ".join(SERVICES) + "\n")
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a service as compose does."""
        log = (self.folder / f"{name}.log").open("wb")
        self._running[name] = subprocess.Popen(
            self._command(name), stdout=log, stderr=log, start_new_session=True
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def alive(self, name: str) -> bool:
        return self._running[name].poll() is None

    def finish(self, name: str, seconds: float = 300) -> str:
        """Wait for a service that ends by itself; return what it wrote."""
        status = self._running.pop(name).wait(seconds)
        assert status == 0, f"{name} ended with {status}: {self.log(name)[-3000:]}"
        return self.log(name)

    def execute(
        self,
        name: str,
        *words: str,
        environment: dict[str, str] | None = None,
        secrets: bool = True,
        seconds: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with what a service has, beside it."""
        command = self._command(name, [*words], environment, secrets, entrypoint=False)
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds)

    def until(self, reached: Callable[[], bool], names: tuple[str, ...], seconds: float = 240) -> None:
        """Wait for a condition, as long as these services run."""
        deadline = time.monotonic() + seconds
        while not reached():
            for name in names:
                assert self.alive(name), f"{name} has ended: {self.log(name)[-3000:]}"
            assert time.monotonic() < deadline, "\n".join(
                f"{name}: {self.log(name)[-2000:]}" for name in names
            )
            time.sleep(1)

    def close(self) -> None:
        for started in self._running.values():
            started.send_signal(signal.SIGTERM)
        for started in self._running.values():
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()

    def _command(
        self,
        name: str,
        words: list[str] | None = None,
        environment: dict[str, str] | None = None,
        secrets: bool = True,
        entrypoint: bool = True,
    ) -> list[str | Path]:
        service = SERVICES[name]
        inside: list[str] = words or [word.replace("$$", "$") for word in service["command"]]
        return [
            *self.network.prefix,
            *["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--clearenv"],
            *["--ro-bind", self.root, "/", "--proc", "/proc", "--dev", "/dev"],
            *["--perms", "1777", "--tmpfs", "/dev/shm", "--ro-bind", self.hosts, "/etc/hosts"],
            *self._mounts(name, service, secrets),
            *[word for item in self._environment(service, environment or {}) for word in ("--setenv", *item)],
            *["--chdir", "/home/mm", "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"],
            *["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"],
            *(["sh", "/usr/local/bin/entrypoint.sh"] if entrypoint else []),
            *inside,
        ]

    def _mounts(self, name: str, service: dict[str, Any], secrets: bool) -> list[str | Path]:
        """Return the options for what is mounted; a folder of the host for each volume and each tmpfs."""
        found: list[str | Path] = []
        for mount in service["tmpfs"]:
            place = mount.partition(":")[0]
            found += ["--bind", self._folder(f"{name}{place}"), place]
        for volume in service.get("volumes", []):
            source, _, place = volume.removesuffix(":ro").rpartition(":")
            if source.startswith("$"):
                found += ["--ro-bind", self.datasets, place]
            else:
                found += [
                    "--ro-bind" if volume.endswith(":ro") else "--bind",
                    self._folder(source or f"{name}{place}"),
                    place,
                ]
        found += ["--tmpfs", "/run/mm"]
        for secret in service.get("secrets", []) if secrets else []:
            found += ["--ro-bind", self.secrets / secret["source"], secret["target"]]
        return [*found, "--remount-ro", "/run/mm"]

    def _folder(self, name: str) -> Path:
        folder = self.folder / "mounts" / name.strip("/").replace("/", "-")
        if not folder.exists():
            folder.mkdir(parents=True)
            shutil.chown(folder, USER, USER)
        return folder

    def _environment(self, service: dict[str, Any], more: dict[str, str]) -> list[tuple[str, str]]:
        image = {
            "HOME": "/home/mm", "PATH": "/opt/mm/bin:/usr/local/bin:/usr/bin:/bin", "DAGSTER_HOME": "/home/mm/dagster",
            "MM_DATASETS": "/datasets", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        own = {
            key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value))
            for key, value in service["environment"].items()
        }
        return list({**image, **own, **more}.items())

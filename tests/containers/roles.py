"""Services of docker/compose.yaml, started from the files of the image as an engine would start them, by bubblewrap.

What an engine gives and this does: the service's command, environment, secrets, user and mounts; a root file system that
is read only; no capability, no new privilege; process, IPC and network namespaces of its own; compose's networks, without
a way out. Not: its limits (cgroups), its seccomp profile.
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


class Networks:
    """The networks of compose: a bridge each, between namespaces of the services, which reach nothing else."""

    def __init__(self) -> None:
        self._holders = {
            name: subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) for name in ("", *SERVICES)
        }
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 60
        for holder in self._holders.values():
            while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        for name in SERVICES:
            self._run(name, "ip", "link", "set", "lo", "up")
        names = sorted({network for service in SERVICES.values() for network in service.get("networks", [])})
        for number, network in enumerate(names):
            self._run("", "ip", "link", "add", network, "type", "bridge")
            self._run("", "ip", "link", "set", network, "up")
            for place, service in enumerate(SERVICES):
                if network in SERVICES[service].get("networks", []):
                    self._connect(service, network, f"10.89.{number}.{place + 2}", f"v{number}-{place}")
        self.addresses = {
            (service, network): f"10.89.{names.index(network)}.{place + 2}"
            for place, service in enumerate(SERVICES)
            for network in SERVICES[service].get("networks", [])
        }

    def prefix(self, service: str) -> list[str]:
        """Return the command in front of what is to run in a service's network."""
        return ["nsenter", f"--net=/proc/{self._holders[service].pid}/ns/net", "--"]

    def hosts(self, service: str) -> str:
        """Return the names that a service can resolve: its own, and those of services on its networks."""
        mine = SERVICES[service].get("networks", [])
        lines = ["127.0.0.1 localhost"]
        for network in mine:
            lines += [
                f"{address} {other}"
                for (other, shared), address in self.addresses.items()
                if shared == network
            ]
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def _connect(self, service: str, network: str, address: str, link: str) -> None:
        pid = str(self._holders[service].pid)
        self._run("", "ip", "link", "add", link, "type", "veth", "peer", "name", network, "netns", pid)
        self._run("", "ip", "link", "set", link, "master", network, "up")
        self._run(service, "ip", "address", "add", f"{address}/24", "dev", network)
        self._run(service, "ip", "link", "set", network, "up")

    def _run(self, service: str, *words: str) -> None:
        done = subprocess.run([*self.prefix(service), *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


class Containers:
    """The services of one compose project."""

    def __init__(self, root: Path, folder: Path, networks: Networks, datasets: Path) -> None:
        self.root, self.folder, self.networks, self.datasets = root, folder, networks, datasets
        self.secrets = folder / "secrets"
        subprocess.run(["sh", ROOT / "docker" / "secrets.sh", self.secrets], check=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a service as compose does."""
        log = (self.folder / f"{name}.log").open("ab")
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

    def until(self, reached: Callable[[], bool], names: tuple[str, ...], seconds: float = 900) -> None:
        """Wait for a condition; services that end meanwhile are started again, as compose is told to, a few times."""
        deadline, restarts = time.monotonic() + seconds, 0
        while not reached():
            for name in names:
                if not self.alive(name):
                    restarts += 1
                    assert restarts <= 3, f"{name} has ended: {self.log(name)[-3000:]}"
                    self.start(name)
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
            *self.networks.prefix(name),
            *[
                "bwrap",
                "--die-with-parent",
                "--unshare-pid",
                "--unshare-ipc",
                "--unshare-uts",
                "--hostname",
                name,
                "--clearenv",
            ],
            *["--ro-bind", self.root, "/", "--proc", "/proc", "--dev", "/dev"],
            *["--perms", "1777", "--tmpfs", "/dev/shm", "--ro-bind", self._hosts(name), "/etc/hosts"],
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

    def _hosts(self, name: str) -> Path:
        path = self.folder / f"{name}.hosts"
        path.write_text(self.networks.hosts(name))
        path.chmod(0o644)
        return path

    def _folder(self, name: str) -> Path:
        folder = self.folder / "mounts" / name.strip("/").replace("/", "-")
        if not folder.exists():
            folder.mkdir(parents=True)
            shutil.chown(folder, USER, USER)
        return folder

    def _environment(self, service: dict[str, Any], more: dict[str, str]) -> list[tuple[str, str]]:
        image = {
            "HOME": "/home/mm", "PATH": "/opt/mm/bin:/usr/local/bin:/usr/bin:/bin", "DAGSTER_HOME": "/home/mm/dagster",
            # A node of Ray that starts on a busy machine waits longer for its agents.
            "RAY_agent_register_timeout_ms": "300000", "RAY_raylet_start_wait_time_s": "300",
            "MM_DATASETS": "/datasets", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        own = {
            key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value))
            for key, value in service["environment"].items()
        }
        return list({**image, **own, **more}.items())

"""The image of docker/Dockerfile, built without an engine: buildah with chroot isolation, on a base by debootstrap.

Debian: ``apt-get install buildah bubblewrap debootstrap``; as root; some 28 GB of disk while it is built.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes import ROOT

PROGRAMS = ("buildah", "bwrap", "debootstrap", "ip", "nsenter", "setpriv", "unshare")
# The base that the Dockerfile asks for by its name.
BASE, IMAGE = "docker.io/library/debian:bookworm-slim", "mm-features"
_SUITE, _MIRROR = "bookworm", "http://deb.debian.org/debian"
_SOURCES = f"""deb {_MIRROR} {_SUITE} main
deb {_MIRROR} {_SUITE}-updates main
deb {_MIRROR}-security {_SUITE}-security main
"""
# Its files twice (where they are made, and in the storage), and twice packed on their way from one to the other.
_DISK = 28 << 30


def lacks(folder: Path) -> str:
    """Return why the image cannot be built on this machine; "" where it can."""
    if os.getuid() != 0:
        return "the image is built by root alone, here"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(absent)} not installed: apt-get install buildah bubblewrap debootstrap iproute2"
    if not sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return "Postgres is not installed: apt-get install postgresql"
    if (free := shutil.disk_usage(folder).free) < _DISK:
        return f"{folder} has {free >> 30} GiB free, and the image needs {_DISK >> 30} GiB while it is built"
    return ""


class Builder:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._options = [
            "--root",
            folder / "storage",
            "--runroot",
            folder / "run",
            "--storage-driver",
            driver(folder),
        ]

    def buildah(self, *words: str | Path, cwd: Path = ROOT) -> str:
        done = subprocess.run(
            ["buildah", *self._options, *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.folder)},
        )
        assert done.returncode == 0, f"buildah {words[0]}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def make_base(self) -> None:
        """Make a base as Debian's slim one is, with the certificates and the mirror that pip has on this machine."""
        root = self.folder / "base"
        command = ["debootstrap", "--variant=minbase", _SUITE, root, _MIRROR]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        (root / "etc" / "apt" / "sources.list").write_text(_SOURCES)
        (root / "etc" / "hosts").touch()
        lines = ["[global]"]
        for name, value in pip_settings().items():
            if name == "cert":
                shutil.copy(value, root / "etc" / "certificates.of.the.machine")
                value = "/etc/certificates.of.the.machine"
            lines.append(f"{name} = {value}")
        (root / "etc" / "pip.conf").write_text("\n".join(lines) + "\n")
        for waste in (
            "var/cache/apt/archives",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
        ):
            shutil.rmtree(root / waste, ignore_errors=True)
            (root / waste).mkdir()
        (root / "var/cache/apt/archives/partial").mkdir()
        archive = self.folder / "base.tar"
        subprocess.run(
            ["tar", "--numeric-owner", "--exclude=./dev/*", "-C", root, "-cf", archive, "."], check=True
        )
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, archive, "/")
        self.buildah("config", "--cmd", "bash", container)
        self.buildah("commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(root)
        archive.unlink()

    def build(self, dockerfile: Path, name: str, context: Path = ROOT) -> None:
        """Build an image from a Dockerfile as it is."""
        mirrors = [
            word.removeprefix("file://").removesuffix("/simple")
            for word in pip_settings().get("extra-index-url", "").split()
        ]
        volumes = [
            f"--volume={path}:{path}:ro" for path in mirrors if path.startswith("/") and Path(path).is_dir()
        ]
        self.buildah(
            "bud",
            "--pull=never",
            "--format",
            "docker",
            "--disable-compression=false",  # layers on their way need half the disk
            "--quiet",
            *volumes,
            "--file",
            dockerfile,
            "--tag",
            name,
            context,
        )

    def configuration(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", name))["OCIv1"][
            "config"
        ]
        return found

    def mount(self, name: str) -> Path:
        """Return the folder in which the files of a new container of the image lie."""
        container = self.buildah("from", "--pull=never", name).strip()
        return Path(self.buildah("mount", container).strip())

    def close(self) -> None:
        self.buildah("umount", "--all")
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        shutil.rmtree(self.folder, ignore_errors=True)


def driver(folder: Path) -> str:
    """Return ``overlay`` where this kernel mounts one on the folder, else ``vfs``, which copies all layers."""
    places = [folder / f"trial-{name}" for name in ("lower", "upper", "work", "merged")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    lower, upper, work, merged = places
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mounts = (
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, merged], capture_output=True
        ).returncode
        == 0
    )
    if mounts:
        subprocess.run(["umount", merged], check=True)
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    return "overlay" if mounts else "vfs"


def pip_settings() -> dict[str, str]:
    """Return how pip of this machine reaches its index, where it is told to."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {
        name.partition(".")[2].strip("."): value.strip("'")
        for name, _, value in (line.partition("=") for line in lines)
    }
    wanted = ("cert", "default-timeout", "extra-index-url", "index-url", "proxy", "trusted-host")
    return {name: value for name, value in found.items() if name in wanted}

"""A Postgres server for tests, with the roles of docker/postgres-roles.sh (Debian: apt-get install postgresql)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import ROOT, until


@contextmanager
def postgres_server(folder: Path, secrets: Path, port: int, prefix: tuple[str, ...] = ()) -> Iterator[None]:
    """Start a server on 127.0.0.1 and create the roles.

    Args:
        folder: of its data.
        secrets: as docker/secrets.sh fills it.
        port: to listen on.
        prefix: command in front of each program.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    # Postgres refuses to be run by root.
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    folder.mkdir(exist_ok=True)
    if drop:
        for place in (folder, *folder.parents[:3]):
            place.chmod(0o755)
        shutil.chown(folder, "postgres", "postgres")
    password = folder / "password"
    password.write_text((secrets / "postgres_admin").read_text().strip())
    if drop:
        shutil.chown(password, "postgres", "postgres")
    settings = [
        "--username=postgres",
        f"--pwfile={password}",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
    ]
    subprocess.run([*drop, programs / "initdb", *settings, folder / "data"], check=True, capture_output=True)
    options = ["-D", folder / "data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
    server = subprocess.Popen(
        [*prefix, *drop, programs / "postgres", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ready = [*prefix, programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    try:
        until(lambda: subprocess.run(ready, capture_output=True).returncode == 0)
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": str(folder), "PGPORT": str(port), "POSTGRES_USER": "postgres",
            "MM_POSTGRES_SECRETS": str(secrets),
        }  # fmt: skip
        subprocess.run(["bash", ROOT / "docker" / "postgres-roles.sh"], env=environment, check=True)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)

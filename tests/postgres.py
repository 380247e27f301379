"""A Postgres server for tests, with the roles of docker/postgres-roles.sh (Debian: apt-get install postgresql)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import ROOT, until


@contextmanager
def postgres_server(
    secrets: Path, port: int, prefix: tuple[str, ...] = (), address: str = "127.0.0.1"
) -> Iterator[None]:
    """Start a server and create the roles.

    Args:
        secrets: as docker/secrets.sh fills it.
        port: to listen on.
        prefix: command in front of each program.
        address: to listen on.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    # Postgres refuses to be run by root, and another user does not get into pytest's folders.
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password = folder / "password"
    password.write_text((secrets / "postgres_admin").read_text().strip())
    for place in (folder, password) if drop else ():
        shutil.chown(place, "postgres", "postgres")
    settings = [
        "--username=postgres",
        f"--pwfile={password}",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
    ]
    command = [*drop, programs / "initdb", *settings, folder / "data"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    with (folder / "data" / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")  # as the image does
    options = ["-D", folder / "data", "-p", str(port), "-k", folder, "-h", address]
    command = [*prefix, *drop, programs / "postgres", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ready = [programs / "pg_isready", "-h", str(folder), "-p", str(port)]
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
        shutil.rmtree(folder, ignore_errors=True)

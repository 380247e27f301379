"""The image is built from its Dockerfile, and the services of compose.yaml run from it (`make containers`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.contracts.pipeline import STAGES
from tests.containers.image import BASE, IMAGE, Builder, lacks
from tests.containers.roles import Containers, Networks
from tests.postgres import postgres_server
from tests.processes import ROOT

pytestmark = [pytest.mark.containers]

SPEC = """
name: tiny
version: v1
sources:
  - {name: sentences, modality: text, uri: sentences.jsonl, record: {id: id, text: text}}
"""
SENTENCES = [
    "The cat sleeps on the warm sofa all day long.",
    "Espresso is made by forcing hot water through ground coffee.",
]
HEALTHY = ("ray", "health-check", "--address", "localhost:6379")
# Files as they lie about in working trees, beside modules, too.
PLANTED = [
    ".env", ".git/config", ".aws/credentials", "docker/.env", "docker/secrets/store_root", "mm_assets/.env", "id_rsa", "key.pem",
    "mm_assets/assets/credentials.json", "mm_resources/service-account.yaml", "mm_embed_kernels/.netrc", ".venv/secret.py",
    "tests/secret.py", "mm_assets/__pycache__/a.pyc", "requirements.local.txt", ".mm/store/secrets/urls.lance", "mm_assets/assets/id_ed25519", "docker/compose.override.yaml",
]  # fmt: skip


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    folder = tmp_path_factory.mktemp("image")
    if reason := lacks(folder):
        pytest.skip(reason)
    builder = Builder(folder)
    try:
        builder.make_base()
        yield builder
    finally:
        builder.close()


@pytest.fixture(scope="module")
def root(builder: Builder) -> Path:
    """Return the folder of the image's files."""
    builder.build(ROOT / "docker" / "Dockerfile", IMAGE)
    return builder.mount(IMAGE)


@pytest.fixture(scope="module")
def containers(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Return the project, with Postgres and the store, of which another server stands for MinIO."""
    folder = tmp_path_factory.mktemp("containers")
    datasets = folder / "datasets"
    datasets.mkdir()
    (datasets / "tiny.yaml").write_text(SPEC)
    lines = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(SENTENCES)]
    (datasets / "sentences.jsonl").write_text("\n".join(lines) + "\n")
    # The containers' user is another one, and the umask of the tests may be strict.
    for path in (datasets, *datasets.iterdir()):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    networks = Networks()
    project = Containers(root, folder, networks, datasets)
    (folder / "objects" / "features").mkdir(parents=True)
    program = [sys.executable, "-m", "tests.s3_server", str(folder / "objects"), "9000", "0.0.0.0"]
    store = subprocess.Popen([*networks.prefix("store"), *program], cwd=ROOT)
    postgres = (project.secrets, 5432, tuple(networks.prefix("postgres")), "0.0.0.0")
    try:
        with postgres_server(*postgres):
            project.start("schema")
            project.start("ray-head")
            project.finish("schema")
            project.until(lambda: project.execute("ray-head", *HEALTHY).returncode == 0, ("ray-head",))
            yield project
            project.close()
    finally:
        project.close()
        store.kill()
        networks.close()


def test_the_build_context_has_no_secret(builder: Builder, tmp_path: Path) -> None:
    context = tmp_path / "context"
    left = shutil.ignore_patterns(".git", ".venv*", ".mm", ".*_cache", "__pycache__", "tests", "benchmarks")
    shutil.copytree(ROOT, context, ignore=left)
    for name in PLANTED:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("a planted secret")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /context/\n")
    builder.build(tmp_path / "Dockerfile", "context", context)
    files = [path for path in (builder.mount("context") / "context").rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".py"]) > 300
    assert [str(path) for path in files if b"a planted secret" in path.read_bytes()] == []
    assert {path.name for path in files if path.suffix != ".py"} == {
        "LICENSE", "NOTICE", "README.md", "dagster.yaml", "entrypoint.sh", "py.typed", "pyproject.toml", "requirements.txt", "workspace.yaml",
    }  # fmt: skip


def test_the_image_is_lean_and_belongs_to_root(builder: Builder, root: Path) -> None:
    configuration = builder.configuration(IMAGE)
    assert configuration["User"] == "10001:10001"
    assert not [name for name in configuration["Env"] if "SECRET" in name or "PASSWORD" in name]
    foreign, raised = [], []
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            foreign += [os.path.join(folder, name)] if status.st_uid >= 1000 else []
            raised += [os.path.join(folder, name)] if status.st_mode & 0o6000 else []
    assert (foreign, raised) == ([], [])
    assert not list((root / "opt" / "mm" / "bin").glob("pip*")), "nothing more is installed"
    assert list((root / "build").iterdir()) == []
    assert sum(1 for _ in (root / "opt" / "mm").rglob("mm_assets/**/*.py")) > 100


def test_postgres_roles_cannot_do_each_others_work(containers: Containers) -> None:
    """The schema's service creates the tables; the other roles read and write rows, and nothing else."""
    program = """
import os, sys, psycopg2
def attempt(statement, database="dagster"):
    try:
        connection = psycopg2.connect(host="postgres", user=os.environ["POSTGRES_USER"], dbname=database)
        connection.autocommit = True
        connection.cursor().execute(statement)
        return "done"
    except psycopg2.Error as error:
        return type(error).__name__
print([attempt(s) for s in ("INSERT INTO kvs (key, value) VALUES ('a', 'b')", "DELETE FROM kvs", "CREATE TABLE more (a int)", "DROP TABLE runs",
      "CREATE ROLE another", "COPY kvs TO PROGRAM 'id'", "SELECT pg_read_file('/etc/passwd')", "SELECT * FROM pg_authid")])
print(attempt("SELECT 1", "postgres"))
"""
    for name in ("webserver", "daemon", "code"):
        done = containers.execute(name, "sh", "/usr/local/bin/entrypoint.sh", "python", "-c", program)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            str(["done"] * 2 + ["InsufficientPrivilege"] * 6),
            "OperationalError",
        ], name


def test_ray_refuses_who_has_no_token(containers: Containers) -> None:
    join = """
from mm_embed_kernels.errors import UserError
from mm_resources.compute.ray_session import RaySession
try:
    RaySession("ray-head:6379").start()
    print("joined")
except UserError as error:
    print(error)
"""
    client = "import ray; ray.init('ray://ray-head:10001'); print('joined')"
    listen = "import psutil; print(sorted({c.laddr.port for c in psutil.net_connections('tcp') if c.status == 'LISTEN'}))"
    wrong = {"RAY_AUTH_TOKEN": "0" * 64, "RAY_AUTH_TOKEN_PATH": ""}
    for environment, secrets in (({"RAY_AUTH_MODE": "disabled"}, True), ({}, False), (wrong, False)):
        with_this: dict[str, Any] = {"environment": environment, "secrets": secrets}
        assert containers.execute("ray-head", *HEALTHY, **with_this).returncode != 0, environment
        driver = containers.execute("ray-worker", "timeout", "300", "python", "-c", join, **with_this)
        assert "wants a token that this process does not have" in driver.stdout, driver.stderr[-2000:]
    remote = containers.execute(
        "ray-worker", "timeout", "60", "python", "-c", client, environment={"RAY_AUTH_MODE": "disabled"}
    )
    assert remote.returncode != 0
    assert "joined" not in remote.stdout
    ports = json.loads(containers.execute("ray-head", "python", "-c", listen).stdout)
    assert 6379 in ports
    assert 8265 not in ports, "no dashboard"


def test_the_services_run_and_compute(containers: Containers) -> None:
    """Webserver, daemon, code location and a Ray worker; a backfill that the daemon launches is published."""
    containers.start("ray-worker")
    containers.start("code")
    alive = ("ray-head", "ray-worker", "code")
    healthy = ("dagster", "api", "grpc-health-check", "--port", "4000")
    containers.until(lambda: containers.execute("code", *healthy).returncode == 0, alive)
    containers.start("daemon")
    containers.start("webserver")

    def answer(address: str, body: str = "") -> str:
        ask = ["curl", "--silent", "--max-time", "30", f"http://127.0.0.1:3000{address}"]
        ask += ["--header", "Content-Type: application/json", "--data", body] if body else []
        ask = [*containers.networks.prefix("webserver"), *ask]
        return subprocess.run(ask, capture_output=True, text=True).stdout

    alive = (*alive, "daemon", "webserver")
    containers.until(lambda: "dagster_version" in answer("/server_info"), alive)
    listed = json.loads(answer("/graphql", json.dumps({"query": "{assetNodes {assetKey {path}}}"})))
    assert {node["assetKey"]["path"][0] for node in listed["data"]["assetNodes"]} == set(STAGES)
    containers.until(
        lambda: containers.execute("daemon", "dagster-daemon", "liveness-check").returncode == 0, alive
    )

    done = containers.execute("code", "mm", "register", "/datasets/tiny.yaml")
    assert done.returncode == 0, done.stderr
    done = containers.execute(
        "code", "mm", "backfill", "tiny@v1", "--mode", "ray", "--launch", "--wait", "--json", seconds=900
    )
    assert done.returncode == 0, done.stderr[-3000:] + containers.log("code")[-3000:]
    # The daemon's sensor may have done the work before.
    assert '"status": "published"' in done.stdout or '"status": "unchanged"' in done.stdout, done.stdout
    assert list((containers.folder / "objects" / "features" / "store").iterdir()), (
        "with the key of the bucket"
    )
    found = containers.execute("code", "mm", "search", "a sleeping pet", "--modality", "text", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)[0]["span"] == f"chars=0-{len(SENTENCES[0])}", "the cat, not the coffee"


def test_what_code_in_the_webserver_reaches(containers: Containers) -> None:
    """As SECURITY.md says: rows of Postgres, with its own password; no key, no token, no other password, no file to write."""
    program = """
import glob, os, urllib.request
import socket
def attempt(act):
    try:
        act()
        return True
    except Exception:
        return False
print([attempt(lambda: socket.create_connection((host, port), 5)) for host, port in (("postgres", 5432), ("code", 4000))])
print([attempt(lambda: socket.create_connection((host, port), 5)) for host, port in ADDRESSES])
print(sorted(os.listdir("/run/mm")))
print([attempt(lambda: open(place + "/x", "w")) for place in ("/opt/mm", "/etc/mm", "/", "/logs", "/usr/local/bin")])
print([attempt(lambda: open(place + "/x", "w")) for place in ("/tmp", "/home/mm")])
print(attempt(lambda: os.setuid(0)), attempt(lambda: os.chown("/tmp/x", 0, 0)))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))])
print([name for name, value in os.environ.items() if "KEY" in name or "TOKEN" in name or "SECRET" in name])
print(len([p for p in os.listdir("/proc") if p.isdigit()]) < 5)
"""
    # By their names and by their addresses.
    others = [("store", 9000), ("ray-head", 6379), ("ray-head", 10001)]
    others += [
        (containers.networks.addresses[name, network], port)
        for name, network, port in (
            ("store", "store", 9000),
            ("ray-head", "ray", 6379),
            ("code", "ray", 4000),
        )
    ]
    done = containers.execute("webserver", "python", "-c", program.replace("ADDRESSES", str(others)))
    assert done.stdout.splitlines() == [
        "[True, True]",
        str([False] * len(others)),
        "['postgres_webserver']",
        "[False, False, False, False, False]",
        "[True, True]",
        "False False",
        "['0000000000000000', '0000000000000000', '1']",
        "[]",
        "True",
    ], done.stderr
    secrets = {path.name: path.read_text().strip() for path in containers.secrets.iterdir()}
    for log in containers.folder.glob("*.log"):
        assert not [name for name, value in secrets.items() if value in log.read_text("utf-8", "replace")], (
            log.name
        )


def test_the_base_is_the_one_that_the_dockerfile_names() -> None:
    assert f"ARG BASE={BASE.rpartition('/')[2]}\n" in (ROOT / "docker" / "Dockerfile").read_text("utf-8")

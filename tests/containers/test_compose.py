"""Properties of the compose file: identities, networks, limits, and what the build context leaves out."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
PACKAGES = ("mm_assets", "mm_embed_kernels", "mm_resources")
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OBSERVE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.observe.yaml").read_text("utf-8"))
# Which secrets each service is given; no other.
SECRETS = {
    "postgres": {
        "postgres_admin",
        "postgres_schema",
        "postgres_code",
        "postgres_daemon",
        "postgres_webserver",
    },
    "schema": {"postgres_schema"},
    "store-volume": set(),
    "store": {"store_root"},
    "store-init": {"store_root", "store_key", "store_reader"},
    "ray-head": {"ray_token"},
    "ray-worker": {"ray_token", "store_key"},
    "code": {"postgres_code", "ray_token", "store_key"},
    "webserver": {"postgres_webserver"},
    "daemon": {"postgres_daemon"},
    "serve": {"store_reader", "serve_token"},
}
NETWORKS = {
    "postgres": {"database"},
    "schema": {"database"},
    "store-volume": set(),
    "store": {"store"},
    "store-init": {"store"},
    "ray-head": {"ray"},
    "ray-worker": {"ray", "store", "outside"},
    "code": {"database", "code", "ray", "store", "outside"},
    "webserver": {"front", "database", "code"},
    "daemon": {"database", "code"},
    "serve": {"front", "store"},
}
# Files of pages beside the modules.
_OF_PAGES = (".html", ".css", ".js", ".svg")
PAGES = {
    "mm_resources/serving/templates/*.html",
    *(f"mm_resources/serving/static/*{suffix}" for suffix in _OF_PAGES[1:]),
}
each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_services_are_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert not {
        "cap_add",
        "privileged",
        "devices",
        "pid",
        "ipc",
        "userns_mode",
        "cgroup",
        "extra_hosts",
    } & set(service)
    assert service.get("network_mode") in (None, "none")


@each_service
def test_services_have_limits(name: str) -> None:
    service = SERVICES[name]
    assert 0 < service["pids_limit"] <= 4096
    assert service["mem_limit"]
    assert service["memswap_limit"] == service["mem_limit"], "without swap beside"
    assert service["cpus"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    for mount in service.get("tmpfs", []):
        assert "size=" in mount, f"{mount} may fill the memory of the machine"


@each_service
def test_services_write_to_named_places_only(name: str) -> None:
    """A folder or file of the host is read only; what is written lies in volumes and in memory."""
    for mount in SERVICES[name].get("volumes", []):
        if mount.startswith((".", "$", "~")):
            assert mount.endswith(":ro"), mount
        else:
            assert re.fullmatch(r"/scratch|(postgres|store|logs):/[a-z/]+(:ro)?", mount), mount


def test_ports_are_published_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"webserver": ["127.0.0.1:3000:3000"], "serve": ["127.0.0.1:8808:8808"]}


def test_networks_are_internal_but_at_the_border() -> None:
    assert {name: set(service.get("networks", [])) for name, service in SERVICES.items()} == NETWORKS
    internal = {name for name, network in COMPOSE["networks"].items() if network.get("internal") is True}
    assert internal == {"database", "code", "ray", "store"}
    options = {
        name: network["driver_opts"] for name, network in COMPOSE["networks"].items() if name not in internal
    }
    assert options == {
        "front": {"com.docker.network.bridge.enable_ip_masquerade": "false"},
        "outside": {"com.docker.network.bridge.enable_icc": "false"},
    }


def test_each_service_has_its_own_secrets() -> None:
    given = {
        name: {secret["source"] for secret in service.get("secrets", [])}
        for name, service in SERVICES.items()
    }
    assert given == SECRETS
    assert set().union(*SECRETS.values()) == set(COMPOSE["secrets"])
    # Passwords of Postgres: with the server, and with one service.
    for name in COMPOSE["secrets"]:
        holders = {service for service, secrets in SECRETS.items() if name in secrets}
        if name.startswith("postgres_") and name != "postgres_admin":
            assert holders == {"postgres", name.removeprefix("postgres_")}
    assert {service for service, secrets in SECRETS.items() if "store_root" in secrets} == {
        "store",
        "store-init",
    }
    assert "store_key" not in SECRETS["webserver"] | SECRETS["daemon"] | SECRETS["ray-head"]


def test_secrets_are_files_that_specs_cannot_name() -> None:
    """`${file:NAME}` of a spec reads /run/secrets, and sends what it reads to a server that the spec names."""
    for service in SERVICES.values():
        for secret in service.get("secrets", []):
            assert secret["target"] == f"/run/mm/{secret['source']}"
    assert COMPOSE["secrets"] == {name: {"file": f"./secrets/{name}"} for name in COMPOSE["secrets"]}


@each_service
def test_the_environment_has_no_secret(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    assert "env_file" not in SERVICES[name]
    for variable, value in environment.items():
        if re.search("PASSWORD|SECRET|TOKEN|KEY|ROOT", variable):
            assert variable == "MINIO_ROOT_USER" or str(value).startswith("/run/mm/"), variable
    text = (FOLDER / "compose.yaml").read_text("utf-8") + (FOLDER / ".env.example").read_text("utf-8")
    for variable in re.findall(r"\$\{(\w+)", text):
        assert not re.search("PASSWORD|SECRET|TOKEN|_KEY", variable), "interpolated from docker/.env"


def test_each_service_has_its_own_role_in_postgres() -> None:
    users = {
        name: service["environment"].get("POSTGRES_USER")
        for name, service in SERVICES.items()
        if "environment" in service
    }
    assert {name: user for name, user in users.items() if user} == {
        "postgres": "postgres",
        "schema": "mm_schema",
        "code": "mm_code",
        "webserver": "mm_webserver",
        "daemon": "mm_daemon",
    }


def test_ray_has_a_token_and_no_dashboard() -> None:
    nodes = {
        name for name, service in SERVICES.items() if "ray start" in " ".join(service.get("command", []))
    }
    assert nodes == {"ray-head", "ray-worker", "code"}
    for name in nodes:
        environment = SERVICES[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == "/run/mm/ray_token"
    assert not {name for name, service in SERVICES.items() if "ray" in service.get("networks", [])} - nodes
    command = SERVICES["ray-head"]["command"]
    assert {
        "--include-dashboard=false",
        "--dashboard-host=127.0.0.1",
        "--num-cpus=0",
    } <= set(command)


def test_the_key_of_the_store_reaches_its_bucket_alone() -> None:
    statements = json.loads((FOLDER / "store-policy.json").read_text("utf-8"))["Statement"]
    allowed = {
        (action, resource)
        for item in statements
        for action in item["Action"]
        for resource in item["Resource"]
    }
    assert {item["Effect"] for item in statements} == {"Allow"}
    assert {resource for _, resource in allowed} == {"arn:aws:s3:::features", "arn:aws:s3:::features/*"}
    assert all(re.fullmatch(r"s3:(Get|Put|List|Delete|Abort)\w+", action) for action, _ in allowed)
    assert not {action for action, _ in allowed if "Bucket" in action and re.search("Put|Delete", action)}
    assert SERVICES["ray-worker"]["environment"]["MM_STORE"].endswith("s3://features/store}")


def test_images_are_pinned_by_digest() -> None:
    images = {service["image"] for service in SERVICES.values()} - {"mm-features"}
    bases = {service["build"]["args"]["BASE"] for service in SERVICES.values() if "build" in service}
    for image in images | bases:
        assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image
    # The name alone is the Dockerfile's default, so that a base made elsewhere can stand for it.
    (base,) = bases
    assert f"ARG BASE={base.partition('@')[0]}\n" in (FOLDER / "Dockerfile").read_text("utf-8")


def test_the_image_installs_what_the_lock_names() -> None:
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    assert (
        "pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: --requirement /build/lock.txt"
        in text
    )
    assert text.count("pip install") == 2
    assert (
        "pip install --no-cache-dir --no-deps --no-build-isolation . && /opt/mm/bin/pip uninstall --yes pip"
        in text
    )
    assert "USER 10001:10001" in text
    assert "# syntax=" not in text, "it would download a front end"
    assert not re.search(r"\b(curl|wget|ADD|git clone)\b", text)


def test_the_build_context_is_a_list_of_what_is_copied() -> None:
    lines = [
        line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"
    ]
    assert lines[0] == "*"
    listed = {line[1:] for line in lines if line.startswith("!")}
    data = {"mm_assets/dagster.yaml", "mm_*/py.typed"}
    assert data <= listed, "the packages' data, as pyproject.toml has them"
    listed -= {"mm_*/**/*.py", *data, *PAGES}
    copied = {
        word
        for line in re.findall(
            r"^COPY (?!--from)(.+) \S+$", (FOLDER / "Dockerfile").read_text("utf-8"), re.MULTILINE
        )
        for word in line.replace("${LOCK}", "requirements.txt").split()
    }
    assert listed == copied
    assert {"mm_*/**/*.*", "**/.*"} < set(lines)
    others = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    pages = {f"{path.parent.relative_to(ROOT)}/*{path.suffix}" for path in others if path.suffix in _OF_PAGES}
    assert pages == PAGES, "the image gets the pages of the service"
    assert {
        path.relative_to(ROOT).as_posix()
        for path in others
        if path.suffix not in (".py", *_OF_PAGES) and "__pycache__" not in path.parts
    } == {"mm_assets/dagster.yaml", *(f"{name}/py.typed" for name in PACKAGES)}, (
        "the image gets modules, pages and the packages' data alone"
    )


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    for _ in range(2):
        subprocess.run(["sh", FOLDER / "secrets.sh", folder], check=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(COMPOSE["secrets"]) | set(OBSERVE["secrets"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    words = [re.findall(r"[0-9a-f]{40,}", text) for text in made.values()]
    assert all(len(found) == 1 for found in words)
    assert len({found[0] for found in words}) == len(made)
    subprocess.run(["sh", FOLDER / "secrets.sh", folder], check=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_the_password_of_postgres_is_in_a_file_of_its_owner(tmp_path: Path) -> None:
    """entrypoint.sh, as far as it runs outside of a container."""
    (tmp_path / "password").write_text("0123abcd\n")
    script = (FOLDER / "entrypoint.sh").read_text().replace("/etc/mm/", f"{FOLDER}/")
    program = "import os, json; print(json.dumps(dict(os.environ)))"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path / "dagster"), "POSTGRES_HOST": "postgres",
        "POSTGRES_PORT": "5432", "POSTGRES_DB": "dagster", "POSTGRES_USER": "mm_code",
        "POSTGRES_PASSWORD_FILE": str(tmp_path / "password"),
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", script, "sh", "python3", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0123abcd" not in done.stdout, "children inherit the environment"
    passfile = Path(json.loads(done.stdout)["PGPASSFILE"])
    assert passfile.read_text() == "postgres:5432:dagster:mm_code:0123abcd\n"
    assert stat.S_IMODE(passfile.stat().st_mode) == 0o600
    assert (tmp_path / "dagster" / "dagster.yaml").read_text() == (FOLDER / "dagster.yaml").read_text()


@pytest.mark.parametrize("again", [False, True])
def test_the_store_is_given_a_key_of_its_own(again: bool, tmp_path: Path) -> None:
    """store-init.sh with another program in the place of MinIO's client, which writes down what it is told."""
    subprocess.run(["sh", FOLDER / "secrets.sh", tmp_path / "secrets"], check=True)
    told = tmp_path / "told"
    program = tmp_path / "bin" / "mc"
    program.parent.mkdir()
    attached = (
        'case "$*" in *attach*) echo "The specified policy change is already in effect."; exit 1;; esac'
        if again
        else ""
    )
    program.write_text(f'#!/bin/sh\necho "$MC_HOST_store $*" >> {told}\n{attached}\n')
    program.chmod(0o755)
    script = (FOLDER / "store-init.sh").read_text().replace("/run/mm/", f"{tmp_path}/secrets/")
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True)
    root = (tmp_path / "secrets" / "store_root").read_text().strip()
    secret, reader = (
        re.findall(r"= (\w{40})$", (tmp_path / "secrets" / name).read_text(), re.MULTILINE)[0]
        for name in ("store_key", "store_reader")
    )
    assert [line.split(" ", 1) for line in told.read_text().splitlines()] == [
        [f"http://root:{root}@store:9000", words]
        for words in (
            "mb --ignore-existing store/features",
            "admin policy create store features /etc/mm/store-policy.json",
            f"admin user add store mm-features {secret}",
            "admin policy attach store features --user mm-features",
            "admin policy create store features-reader /etc/mm/store-reader-policy.json",
            f"admin user add store mm-reader {reader}",
            "admin policy attach store features-reader --user mm-reader",
        )
    ]


def test_scripts_of_the_containers_are_run_as_they_are_meant() -> None:
    """Postgres' image executes a file that may be executed, and runs another one in its own shell."""
    assert os.access(FOLDER / "postgres-roles.sh", os.X_OK)
    for script in FOLDER.glob("*.sh"):
        assert "set -eu" in script.read_text("utf-8"), script.name

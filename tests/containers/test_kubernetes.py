"""The manifests of docker/kubernetes: valid resources, and the identities, networks and limits of the compose file.

Resources of Kubernetes itself are held against its schemas. RayCluster and Dagster's chart have schemas of their own, which no
package contains: their pods are validated as such, and the keys around them against a list (`RAY_KEYS`, `VALUE_KEYS`).
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.containers.test_compose import COMPOSE, NETWORKS, SECRETS

FOLDER = Path(__file__).parents[2] / "docker"
MANIFESTS = sorted((FOLDER / "kubernetes").glob("*.yaml"))
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "kubernetes" / "dagster-values.yaml").read_text("utf-8"))
Pod = dict[str, Any]
# Of ray.io/v1, as the type `RayClusterSpec` of KubeRay 1.3 declares them.
RAY_KEYS = {
    "spec": {"rayVersion", "headGroupSpec", "workerGroupSpecs"},
    "head": {"serviceType", "rayStartParams", "template"},
    "workers": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
# Of a deployment of the chart that become keys of the pod, or of its container.
POD_KEYS = {"podSecurityContext": "securityContext", "volumes": "volumes"}
CONTAINER_KEYS = {name: name for name in ("securityContext", "resources", "env", "volumeMounts")}
VALUE_KEYS = {
    *POD_KEYS,
    *CONTAINER_KEYS,
    *("enabled", "replicaCount", "image", "service", "labels", "initContainerResources", "name", "port"),
    *("dagsterApiGrpcArgs", "includeConfigInLaunchedRuns", "deploymentStrategy", "readinessProbe"),
}


@cache
def _documents() -> list[dict[str, Any]]:
    return [
        document
        for path in MANIFESTS
        if path.name != "dagster-values.yaml"
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    ]


def _chart_pod(name: str, values: dict[str, Any]) -> Pod:
    """Return the pod that the chart makes of a deployment's values, as far as these decide it."""
    container = {new: values[old] for old, new in CONTAINER_KEYS.items() if old in values}
    container |= {"name": name, "image": f"{values['image']['repository']}:{values['image']['tag']}"}
    spec = {new: values[old] for old, new in POD_KEYS.items() if old in values}
    return {"metadata": {"labels": values["labels"]}, "spec": {**spec, "containers": [container]}}


@cache
def _pods() -> dict[str, Pod]:
    """All pods by the name that their service has in the compose file."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for document in _documents():
        kinds.setdefault(document["kind"], []).append(document)
    pods = {
        document["metadata"]["name"]: document["spec"]["template"]
        for kind in ("StatefulSet", "Job", "Deployment")
        for document in kinds[kind]
    }
    (cluster,) = kinds["RayCluster"]
    (workers,) = cluster["spec"]["workerGroupSpecs"]
    (code,) = VALUES["dagster-user-deployments"]["deployments"]
    return {
        **pods,
        "ray-head": cluster["spec"]["headGroupSpec"]["template"],
        "ray-worker": workers["template"],
        "webserver": _chart_pod("webserver", VALUES["dagsterWebserver"]),
        "daemon": _chart_pod("daemon", VALUES["dagsterDaemon"]),
        "code": _chart_pod("code", code),
    }


# Compose makes a bucket of its own and its volume; on Kubernetes the bucket is outside.
SERVICES = [name for name in COMPOSE["services"] if not name.startswith("store")]
each_service = pytest.mark.parametrize("name", SERVICES)


def _container(name: str) -> dict[str, Any]:
    (container,) = _pods()[name]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _secrets(spec: dict[str, Any]) -> set[str]:
    """Names of the secrets that a pod mounts, as docker/secrets.sh writes them."""
    found: set[str] = set()
    for volume in spec.get("volumes", []):
        sources = volume.get("projected", {}).get("sources", [])
        found |= {source["secret"]["name"] for source in sources}
        found |= {volume["secret"]["secretName"]} if "secret" in volume else set()
    return {name.replace("-", "_") for name in found}


def test_the_services_are_those_of_compose() -> None:
    assert set(_pods()) == set(SERVICES)


@pytest.mark.parametrize(
    "document", _documents(), ids=lambda item: f"{item['kind']}-{item['metadata']['name']}"
)
def test_resources_are_valid(document: dict[str, Any]) -> None:
    if document["kind"] == "RayCluster":
        assert document["apiVersion"] == "ray.io/v1"
        spec = document["spec"]
        assert set(spec) == RAY_KEYS["spec"]
        assert set(spec["headGroupSpec"]) == RAY_KEYS["head"]
        assert [set(group) for group in spec["workerGroupSpecs"]] == [RAY_KEYS["workers"]]
    else:
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_a_wrong_key_is_found() -> None:
    wrong = copy.deepcopy(next(item for item in _documents() if item["kind"] == "StatefulSet"))
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@each_service
def test_pods_are_valid(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(_pods()[name])}
    kubernetes_validate.validate(pod, "1.37", strict=True)
    mounted = {mount["name"] for mount in _container(name)["volumeMounts"]}
    declared = {volume["name"] for volume in pod["spec"].get("volumes", [])}
    assert mounted - {"data"} == declared, "data is claimed by the stateful set"
    for volume in pod["spec"]["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"], f"{volume['name']} may fill the machine"


def test_values_have_keys_of_the_chart() -> None:
    (code,) = VALUES["dagster-user-deployments"]["deployments"]
    for values in (VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], code):
        assert set(values) <= VALUE_KEYS


@each_service
def test_pods_are_confined(name: str) -> None:
    """As the level `restricted` of pod security has it, with a root file system that is read only."""
    spec, container = _pods()[name]["spec"], _container(name)
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
    if name not in ("webserver", "daemon", "code"):  # the chart mounts the token of an account without a role
        assert spec["automountServiceAccountToken"] is False
    for kind in ("requests", "limits"):
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind])


@each_service
def test_pods_have_the_networks_and_secrets_of_compose(name: str) -> None:
    labels = _pods()[name]["metadata"]["labels"]
    networks = {label.partition("/")[2] for label in labels if label.startswith("mm.network/")}
    assert networks == NETWORKS[name]
    assert _secrets(_pods()[name]["spec"]) == SECRETS[name]
    files = [mount for mount in _container(name)["volumeMounts"] if mount["name"] == "secrets"]
    assert files == [{"name": "secrets", "mountPath": "/run/mm", "readOnly": True}]


@each_service
def test_the_environment_names_files_and_roles(name: str) -> None:
    """No secret is in it, and what it says is what compose says, but for the addresses."""
    given = {item["name"]: item["value"] for item in _container(name).get("env", [])}
    compose = COMPOSE["services"][name].get("environment", {})
    differ = {
        "AWS_ENDPOINT_URL",
        "AWS_ALLOW_HTTP",
        "RAY_ADDRESS",
        "MM_LOGS",
        "PGDATA",
        "BASH_ENV",
        "DAGSTER_HOME",
        "MM_JOIN_RAY",
        "MM_EXPLORER_URL",
        "MM_DAGSTER_URL",
    }
    expected = {key: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", str(value)) for key, value in compose.items()}
    assert {key: value for key, value in given.items() if key not in differ} == {
        key: value for key, value in expected.items() if key not in differ
    }
    for variable, value in given.items():
        if re.search("PASSWORD|SECRET|TOKEN|KEY", variable):
            assert value.startswith("/run/mm/"), variable


def test_each_network_has_a_policy() -> None:
    policies = {
        item["metadata"]["name"]: item["spec"] for item in _documents() if item["kind"] == "NetworkPolicy"
    }
    assert set(policies) == {"nothing-but-names", *set().union(*NETWORKS.values())}
    everything = policies.pop("nothing-but-names")
    assert everything["podSelector"] == {}
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    for name, spec in policies.items():
        assert spec["podSelector"] == {"matchLabels": {f"mm.network/{name}": "yes"}}
        if name in ("store", "outside"):
            assert "169.254.0.0/16" in spec["egress"][0]["to"][0]["ipBlock"]["except"], (
                "the machine's metadata"
            )
            assert "ingress" not in spec


def test_one_image_serves_all() -> None:
    images = {name: _container(name)["image"] for name in SERVICES}
    assert images.pop("postgres") == COMPOSE["services"]["postgres"]["image"]
    assert len(set(images.values())) == 1


def test_ray_has_a_token_and_no_dashboard() -> None:
    (cluster,) = [item for item in _documents() if item["kind"] == "RayCluster"]
    assert cluster["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    head = _container("ray-head")
    assert head["args"] == COMPOSE["services"]["ray-head"]["command"]
    for name in ("ray-head", "ray-worker"):
        # KubeRay's own ask a dashboard.
        assert _container(name)["readinessProbe"]
        assert _container(name)["livenessProbe"]
    (num_cpus,) = [item for item in _container("ray-worker")["args"] if item.startswith("--num-cpus=")]
    assert num_cpus.partition("=")[2] == _container("ray-worker")["resources"]["limits"]["cpu"]


def test_the_probe_of_a_worker_sees_its_node(tmp_path: Path) -> None:
    command = _container("ray-worker")["readinessProbe"]["exec"]["command"]
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "1" / "comm").write_text("sh\n")
    command = [*command[:2], command[2].replace("/proc", str(tmp_path))]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 1
    (tmp_path / "2" / "comm").write_text("raylet\n")
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_bash_reads_the_entrypoint_before_the_chart_s_command(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("0123abcd\n")
    script = tmp_path / "entrypoint.sh"
    script.write_text((FOLDER / "entrypoint.sh").read_text().replace("/etc/mm/", f"{FOLDER}/"))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path / "dagster"), "BASH_ENV": str(script),
        "POSTGRES_HOST": "postgres", "POSTGRES_PORT": "5432", "POSTGRES_DB": "dagster", "POSTGRES_USER": "mm_daemon",
        "POSTGRES_PASSWORD_FILE": str(tmp_path / "password"),
    }  # fmt: skip
    done = subprocess.run(
        ["/bin/bash", "-c", "cat $PGPASSFILE; bash -c 'cat $PGPASSFILE'"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "postgres:5432:dagster:mm_daemon:0123abcd\n" * 2, "also in a shell of its own"
    assert (tmp_path / "dagster" / "dagster.yaml").read_text() == (FOLDER / "dagster.yaml").read_text()


def test_secrets_reach_kubectl_as_files(tmp_path: Path) -> None:
    """secrets.sh with another program in the place of kubectl, which writes down what it is told."""
    told, program = tmp_path / "told", tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {told}\n')
    program.chmod(0o755)
    folder = tmp_path / "secrets"
    subprocess.run(
        ["sh", FOLDER / "kubernetes" / "secrets.sh", folder],
        env={"PATH": f"{program.parent}:{os.environ['PATH']}"},
        check=True,
    )
    text = told.read_text()
    created = re.findall(r"^create secret generic (\S+) --from-file=(\w+)=(\S+)", text, re.MULTILINE)
    assert {(name, key, path) for name, key, path in created} == {
        (path.name.replace("_", "-"), path.name, str(path))
        for path in folder.iterdir()
        if path.name not in ("store_root", "grafana_admin")
    }
    assert not [path for path in folder.iterdir() if path.read_text().strip() in text]
    given = set().union(*(_secrets(_pods()[name]["spec"]) for name in SERVICES))
    assert given == {key for _, key, _ in created}

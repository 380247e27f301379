"""Properties of the compose file of Prometheus and Grafana, as `test_compose` has them of the platform's services."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.containers.test_compose import COMPOSE, OBSERVE, SERVICES

OWN: dict[str, dict[str, Any]] = {
    name: item for name, item in OBSERVE["services"].items() if name not in SERVICES
}
each_service = pytest.mark.parametrize("name", OWN)


@each_service
def test_services_are_confined_as_the_others_are(name: str) -> None:
    service, other = OWN[name], SERVICES["store"]
    for option in ("restart", "init", "read_only", "cap_drop", "security_opt", "logging"):
        assert service[option] == other[option], option
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert 0 < service["pids_limit"] <= 4096
    assert service["memswap_limit"] == service["mem_limit"]
    assert service["cpus"]
    assert not {"cap_add", "privileged", "devices", "pid", "ipc", "network_mode", "env_file"} & set(service)
    assert all("size=" in mount for mount in service.get("tmpfs", []))
    for mount in service.get("volumes", []):
        assert mount.endswith(":ro") or mount == "prometheus:/prometheus"
    assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}", service["image"])
    for secret in service.get("secrets", []):
        assert secret["target"] == f"/run/mm/{secret['source']}"
        assert secret["source"] in {**COMPOSE["secrets"], **OBSERVE["secrets"]}
    for variable, value in service.get("environment", {}).items():
        assert "PASSWORD" not in variable or value.startswith("/run/mm/")


def test_the_others_get_a_network_and_an_address_alone() -> None:
    added = {name: set(item) for name, item in OBSERVE["services"].items() if name in SERVICES}
    assert added == {"code": {"environment", "networks"}, "serve": {"networks"}}
    assert OBSERVE["networks"] == {"metrics": {"internal": True}}
    assert {name: item["ports"] for name, item in OWN.items() if "ports" in item} == {
        "grafana": ["127.0.0.1:3001:3000"]
    }
    assert {name for name, item in OWN.items() if item["networks"] != ["metrics"]} == {"grafana"}

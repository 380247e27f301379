"""The component that adds the platform to a Dagster project."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import Field, ImportString, TypeAdapter, ValidationError

from mm_assets.alerts.settings import AlertSettings, parse_alerts
from mm_embed_kernels.errors import UserError, unknown_choice

_POOLS = ("network", "ray", "gpu")
# Taken as they stand: `${env:NAME}` is read when an alert is sent.
_Alerts = Annotated[Any, dg.Resolver(lambda _, given: given, model_field_type=AlertSettings | None)]


class FeaturePlatform(dg.Component, dg.Resolvable, dg.Model):
    """Twelve assets from raw files to searchable features, with their jobs, sensors, schedules and checks.

    Store, folder of specs, profile and prefix are set for the whole process, since all code of a location
    shares them; `mm` beside the project takes them from the variables of the same names.
    """

    store: str = Field(
        default="", description="root of the store, a path or an fsspec URL; default: MM_STORE"
    )
    datasets: str = Field(
        default="", description="folder of spec files that the sensor `specs` watches; default: MM_DATASETS"
    )
    profile: Literal["", "bundled", "hub"] = Field(default="", description="models; default: MM_PROFILE")
    key_prefix: str = Field(
        default="", description="words in front of the keys of the twelve assets, a/b; default: MM_KEY_PREFIX"
    )
    group_prefix: str = Field(default="", description="characters in front of the names of the groups")
    group_names: dict[str, str] = Field(
        default_factory=dict, description="group (1_ingest, 2_curate ...) -> its name here"
    )
    mode: Literal["auto", "inline", "ray"] = Field(default="auto", description="where kernels run")
    ray_address: str = Field(default="", description="address of a Ray cluster; default: RAY_ADDRESS")
    ray_cluster: str = Field(
        default="",
        description="MODULE:NAME of a resource of dagster-ray that makes the cluster, such as KubeRayCluster",
    )
    resources: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="resource (mm_sandbox, mm_image_embedder ...) -> fields other than the default",
    )
    pools: dict[str, str] = Field(
        default_factory=dict, description="pool (network, ray, gpu) -> its name here, empty for none"
    )
    sensors: bool | list[str] = Field(default=True, description="whether its sensors are added, or which")
    schedules: list[str] | dict[str, str] = Field(
        default_factory=lambda: ["nightly", "weekly_upkeep", "weekly_audit", "metrics_for_prometheus"],
        description="schedules that are added, or schedule -> its cron string",
    )
    alerts: _Alerts = Field(
        default=None, description="channels of alerts, and what is silenced; default: the file MM_ALERTS"
    )

    def model_post_init(self, _context: Any) -> None:
        """Set the variables of the process, before any component of the project defines an asset."""
        wanted = {
            "MM_STORE": self.store,
            "MM_DATASETS": self.datasets,
            "MM_PROFILE": self.profile,
            "MM_KEY_PREFIX": self.key_prefix,
        }
        os.environ.update({name: value for name, value in wanted.items() if value})

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002 - its interface
        """Return the platform with these attributes."""
        from mm_assets.definitions import platform  # reads the profile

        _check_names("pools", self.pools, _POOLS)
        alerts = parse_alerts(self.alerts, "alerts") if self.alerts else None
        crons = self.schedules if isinstance(self.schedules, dict) else {}
        ray = {"address": self.ray_address, "cluster": self._ray_cluster()}
        whole = platform(self.pools, alerts, crons, mode=self.mode, **ray)
        sensors, schedules = list(whole.sensors or []), list(whole.schedules or [])
        if not isinstance(self.sensors, bool):
            _check_names("sensors", self.sensors, [sensor.name for sensor in sensors])
        _check_names("schedules", self.schedules, [schedule.name for schedule in schedules])
        return dg.Definitions(
            assets=dg.map_asset_specs(self._name_group, list(whole.assets or [])),  # type: ignore[arg-type]
            jobs=whole.jobs,
            sensors=[each for each in sensors if self._is_wanted(each.name)],
            schedules=[each for each in schedules if each.name in self.schedules],
            resources=self._resources(dict(whole.resources or {})),
        )

    def _is_wanted(self, sensor: str) -> bool:
        return self.sensors if isinstance(self.sensors, bool) else sensor in self.sensors

    def _name_group(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        group = str(spec.group_name)
        return spec.replace_attributes(group_name=self.group_names.get(group, f"{self.group_prefix}{group}"))

    def _ray_cluster(self) -> dg.ConfigurableResource[Any] | None:
        """Return the resource that makes the Ray cluster."""
        if not self.ray_cluster:
            return None
        if self.ray_address:
            raise UserError("ray_cluster and ray_address: name one of them")
        try:
            found = TypeAdapter(ImportString).validate_python(self.ray_cluster)
        except ValidationError as error:
            told = error.errors()[0]["msg"]
            raise UserError(
                f"ray_cluster {self.ray_cluster!r} is not MODULE:NAME of a resource: {told}"
            ) from None
        if not isinstance(found, dg.ConfigurableResource):
            raise UserError(
                f"ray_cluster {self.ray_cluster!r} is {type(found).__name__}, no resource of dagster-ray"
            )
        return found

    def _resources(self, known: dict[str, Any]) -> dict[str, Any]:
        """Return the resources, with the fields that the attributes name."""
        _check_names("resources", self.resources, known)
        for name, fields in self.resources.items():
            resource = known[name]
            _check_names(f"resources.{name}", fields, type(resource).model_fields)
            try:
                known[name] = type(resource)(**{**_fields(resource), **fields})
            except (ValidationError, dg.DagsterError) as error:
                line = " ".join(str(error).split())
                raise UserError(f"resources.{name}: {line[:300]}") from None
        if "mm_ray" in self.resources:
            if self.ray_cluster:
                raise UserError("resources.mm_ray: ray_cluster makes the cluster; leave one of them out")
            cache = known["mm_cache"]
            known["mm_cache"] = type(cache)(**{**_fields(cache), "ray": known["mm_ray"]})
        return known


def _fields(resource: dg.ConfigurableResource) -> Mapping[str, Any]:
    return {name: getattr(resource, name) for name in type(resource).model_fields}


def _check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check that names exist."""
    there = sorted(known)
    for name in given:
        if name not in there:
            raise unknown_choice(what, name, there)

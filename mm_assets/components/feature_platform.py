"""The component that adds the platform to a Dagster project."""

from __future__ import annotations

import os
from typing import Literal

import dagster as dg

from mm_embed_kernels.errors import UserError


class FeaturePlatform(dg.Component, dg.Resolvable, dg.Model):
    """Twelve assets from raw files to searchable features, with their jobs, sensors, schedules and checks.

    A prefix of their keys is a setting of the process, ``MM_KEY_PREFIX=a/b``, since `mm` beside the project
    needs it, too; `dg` reads it from the project's file ``.env``.

    Attributes:
        store: root of the store, a path or an fsspec URL; by default that of ``MM_STORE``.
        datasets: folder of spec files that the sensor `specs` watches; by default that of ``MM_DATASETS``.
        profile: model profile, ``bundled`` or ``hub``.
        group_prefix: characters in front of the names of their groups.
        mode: where kernels run.
        ray_address: address of a Ray cluster.
        sensors: whether its sensors are added.
        schedules: names of the schedules that are added.
    """

    store: str = ""
    datasets: str = ""
    profile: Literal["", "bundled", "hub"] = ""
    group_prefix: str = ""
    mode: Literal["auto", "inline", "ray"] = "auto"
    ray_address: str = ""
    sensors: bool = True
    schedules: list[str] = ["nightly", "weekly_upkeep", "weekly_audit"]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002 - its interface
        """Return the platform with these attributes."""
        self._configure()
        from mm_assets.definitions import platform  # reads the profile

        whole = platform(mode=self.mode, address=self.ray_address)
        unknown = set(self.schedules) - {schedule.name for schedule in whole.schedules or []}
        if unknown:
            raise UserError(f"schedules: there is no {', '.join(sorted(unknown))}")
        return dg.Definitions(
            assets=dg.map_asset_specs(self._prefix_group, list(whole.assets or [])),  # type: ignore[arg-type]
            jobs=whole.jobs,
            sensors=whole.sensors if self.sensors else [],
            schedules=[each for each in whole.schedules or [] if each.name in self.schedules],
            resources=whole.resources,
        )

    def _prefix_group(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(group_name=f"{self.group_prefix}{spec.group_name}")

    def _configure(self) -> None:
        """Set the variables of the process, which is that of a code location."""
        wanted = {"MM_STORE": self.store, "MM_DATASETS": self.datasets, "MM_PROFILE": self.profile}
        os.environ.update({name: value for name, value in wanted.items() if value})

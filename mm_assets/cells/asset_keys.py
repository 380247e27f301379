"""Keys of the twelve assets, behind the prefix of the deployment (``MM_KEY_PREFIX``)."""

from __future__ import annotations

import dagster as dg

from mm_resources.settings import Settings


def asset_key(name: str) -> dg.AssetKey:
    """Return the Dagster key of one of the twelve assets."""
    prefix = Settings.from_environment().key_prefix
    return dg.AssetKey([*prefix.split("/"), name] if prefix else [name])

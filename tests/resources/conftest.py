"""Fixtures of the tests of mm_resources."""

from tests.resources.places import disk, place
from tests.resources.server import other, web
from tests.resources.specs import data, registry
from tests.resources.stores import blobs, brisk, catalog

__all__ = ["blobs", "brisk", "catalog", "data", "disk", "other", "place", "registry", "web"]

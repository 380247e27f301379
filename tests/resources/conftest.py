"""Property tests are the same in every run and keep no database of examples."""

from hypothesis import HealthCheck, settings

from tests.resources.places import disk, place
from tests.resources.server import other, web
from tests.resources.specs import data, registry

__all__ = ["data", "disk", "other", "place", "registry", "web"]

settings.register_profile(
    "mm", database=None, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mm")

"""Property tests are the same in every run and keep no database of examples."""

from hypothesis import HealthCheck, settings

settings.register_profile("mm", database=None, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mm")

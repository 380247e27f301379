"""Property tests are reproducible and leave nothing behind."""

from hypothesis import HealthCheck, settings

settings.register_profile("mm", database=None, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mm")

"""Settings of hypothesis for all tests: a busy machine is no failure."""

from hypothesis import HealthCheck, settings

settings.register_profile("falcon_job", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("falcon_job")

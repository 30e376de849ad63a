"""What all unit tests share: Hypothesis tries the same examples in every run; what is missing is said at the top."""

import shutil

from hypothesis import HealthCheck, settings

# A busy machine is no fault of a test: Hypothesis makes its table of characters in the first draw of a fresh clone.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


def pytest_report_header() -> str:
    """Say in the first lines whether the rules of otel/ are checked."""
    found = shutil.which("promtool")
    return f"promtool: {found or 'not found (Debian: prometheus), so the tests that ask it are skipped'}"

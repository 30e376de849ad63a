"""What all unit tests share: Hypothesis tries the same examples in every run; what is missing is said at the top."""

import shutil

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_report_header() -> str:
    """Say in the first lines whether the rules of otel/ are checked."""
    found = shutil.which("promtool")
    return f"promtool: {found or 'not found (Debian: prometheus), so the tests that ask it are skipped'}"

"""What all unit tests share: how much Hypothesis tries; what is missing is said at the top."""

import shutil

from hypothesis import settings

from tests import effort  # noqa: F401 - it registers the profiles

settings.load_profile("repeatable")


def pytest_report_header() -> str:
    """Say in the first lines whether the rules of otel/ are checked."""
    found = shutil.which("promtool")
    return f"promtool: {found or 'not found (Debian: prometheus), so the tests that ask it are skipped'}"

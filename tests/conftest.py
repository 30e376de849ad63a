"""What all unit tests share: how much Hypothesis tries; what is missing is said at the top."""

import shutil

from hypothesis import settings

from tests import effort  # noqa: F401 - it registers the profiles

settings.load_profile("repeatable")


PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "kubectl": "kubernetes-client"}
"""Programs that check otel/ and examples/kubernetes, and Debian's packages of them."""


def pytest_report_header() -> list[str]:
    """Say in the first lines which of these are there."""
    return [f"{name}: {shutil.which(name) or _missing(package)}" for name, package in PACKAGES.items()]


def _missing(package: str) -> str:
    return f"not found (Debian: {package}), so the tests that ask it are skipped"

"""The image and the stack: built and started once for all tests here, and what they are made of is said at the end."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.containers.stack import Stack, stand_in
from integration_test.environments.podman import OURS, podman, pulled
from integration_test.harness.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = "python:3.13.16-slim-trixie"
SAID = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SAID] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[SAID]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run."""
    return request.config.stash[SAID]


@pytest.fixture(scope="session")
def base(say: list[str]) -> str:
    """The image that the Dockerfile begins with, or what stands in for it."""
    if pulled(official := f"docker.io/library/{PYTHON}"):
        return official
    say.append(f"{PYTHON} is a stand-in, of Debian's Python: no registry is in reach")
    return stand_in("python", "trixie")


@pytest.fixture(scope="session")
def ours(base: str) -> Iterator[str]:
    """The image of the Dockerfile, built as it stands."""
    name = f"{OURS}/built:{uuid.uuid4().hex[:12]}"
    # In Podman's own format there is no HEALTHCHECK. Without layers nothing is left but the image.
    how = ("--network=host", "--format=docker", "--layers=false", f"--build-context={PYTHON}=container-image://{base}")
    podman("build", *how, f"--tag={name}", str(ROOT))
    yield name
    podman("rmi", "--force", name)


@pytest.fixture(scope="session")
def stack(ours: str, say: list[str]) -> Iterator[Stack]:
    """All services of docker-compose.yml, as docs/docker.md starts them."""
    with Stack(ours) as started:
        say.append(f"stand-ins: {', '.join(started.laid.stand_ins) or 'none'}")
        say.append(f"left out: {', '.join(started.laid.left_out) or 'none'}")
        yield started

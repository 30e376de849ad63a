"""The machines: each system, once with an ordinary user and once with root, with a clone at home and nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.podman import HERE, debian, image, network, running
from integration_test.harness.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration_test.environments.podman import Machine

SYSTEMS = ("bookworm", "trixie", "testing")
"""Debian 12 with Python 3.11, 13 with 3.13, and the next with the newest Python that it has."""
USERS = ("ada", "root")
MACHINES = [(system, user) for system in SYSTEMS for user in USERS]
WHOLE = [("bookworm", "ada"), ("trixie", "root"), ("testing", "ada")]
"""Where all is run: each system, each kind of user. The others run a selection, or all with `--full-matrix`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-matrix", action="store_true", help="run all on each system as each user (make test-fresh)")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is committed here, in a file that is cloned from."""
    path = tmp_path_factory.mktemp("clone") / "reactive_orch.bundle"
    subprocess.run(["git", "bundle", "create", "--quiet", path, "HEAD"], cwd=ROOT, check=True)  # noqa: S607
    return str(path)


@pytest.fixture(scope="session")
def own_network() -> Iterator[str]:
    with network() as name:
        yield name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "machine" in metafunc.fixturenames:
        all_of_them = "whole" in metafunc.fixturenames or metafunc.config.getoption("full_matrix", default=False)
        metafunc.parametrize(
            "machine", MACHINES if all_of_them else WHOLE, ids="-".join, indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest, bundle: str, own_network: str) -> Iterator[Machine]:
    """A bare machine, and who works there."""
    system, user = request.param
    bare = image(f"fresh-{system}", HERE / "fresh" / "machine", BASE=debian(system))
    with running(bare, user, f"--network={own_network}", f"--volume={bundle}:/reactive_orch.bundle:ro") as made:
        made.run("git -c advice.detachedHead=false clone --quiet /reactive_orch.bundle reactive_orch")
        yield made


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether all is to be run on this machine."""
    return request.config.getoption("full_matrix") or request.node.callspec.params["machine"] in WHOLE

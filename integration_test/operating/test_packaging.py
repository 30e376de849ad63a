"""The sdist and the wheel that is made from it: what is in them, and that a worker runs from the wheel alone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration_test.harness.command_line import environment
from integration_test.harness.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SDIST_BYTES_MAX = 1_000_000
APPEND = ("append", "--event-type", "OrderPlaced", "--aggregate-type", "Order", "--aggregate-id", "1")
WORKER = ("--replica-set", "demo", "--http", "127.0.0.1:0", "--until-idle", "--migrate")
EXTRAS_OF_PEOPLE = ("rich", "shtab", "uvloop")


class Built(NamedTuple):
    """The two files."""

    sdist: Path
    wheel: Path


def _run(*command: str | Path, cwd: Path, **variables: str) -> str:
    env = {name: value for name, value in environment(variables).items() if name != "PYTHONPATH"}
    done = subprocess.run(command, check=False, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Made as a packager makes them: the wheel from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    hatch = (sys.executable, "-m", "hatchling", "build", "-d", str(folder))
    _run(*hatch, "-t", "sdist", cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    _run(*hatch, "-t", "wheel", cwd=folder / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


def _sources() -> set[str]:
    found = (path for path in (ROOT / "reactive_orch").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_both_have_all_of_the_package_and_nothing_else(built: Built) -> None:
    sources = _sources()
    for needed in ("py.typed", "postgres/schema/001_initial.sql", "postgres/windows.sql", "http/static/index.html"):
        assert f"reactive_orch/{needed}" in sources
    wheel = {name for name in zipfile.ZipFile(built.wheel).namelist() if ".dist-info/" not in name}
    assert wheel == sources
    with tarfile.open(built.sdist) as packed:
        sdist = {name.partition("/")[2] for name in packed.getnames()}
    about = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", ".gitignore"}
    assert sdist == sources | about
    assert built.sdist.stat().st_size < SDIST_BYTES_MAX


def test_only_people_at_a_terminal_need_what_draws(built: Built) -> None:
    (metadata,) = (name for name in zipfile.ZipFile(built.wheel).namelist() if name.endswith(".dist-info/METADATA"))
    needs = re.findall(r"(?m)^Requires-Dist: (.*)$", zipfile.ZipFile(built.wheel).read(metadata).decode())
    always = {re.split(r"[^\w-]", each)[0] for each in needs if "extra ==" not in each}
    assert always == {"aiohttp", "anyio", "asyncpg", "opentelemetry-sdk", "prometheus-client"}
    for extra in ("cli", "embedded", "otlp", "sqlalchemy", "testing", "uvloop"):
        assert any(f"extra == '{extra}'" in each for each in needs), extra


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder outside the tree, which the embedded server's user gets through."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _installed(place: Path, python: str, *what: str) -> Path:
    """Install into a fresh environment and return the folder of its programs."""
    _run(python, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", place / "venv/bin/python")
    _run(*uv, *what, cwd=place, SSL_CERT_FILE=os.environ.get("PIP_CERT", ""))
    return place / "venv/bin"


@pytest.mark.thorough
def test_a_worker_runs_from_the_wheel_alone(built: Built, place: Path, empty_database: str) -> None:
    """What it needs is lent by the environment of the tests; so this needs no network."""
    programs = _installed(place, sys.executable, "--offline", "--no-deps", str(built.wheel))
    (packages,) = place.glob("venv/lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
    where = _run(programs / "python", "-c", "import reactive_orch; print(reactive_orch.__file__)", cwd=place)
    assert Path(where.strip()).is_relative_to(place)

    script, module = (programs / "reactive-orch",), (programs / "python", "-m", "reactive_orch")
    assert _run(*script, "--version", cwd=place) == f"reactive_orch {PROJECT['version']}\n"
    helped = _run(*script, "--help", cwd=place)
    plain = re.compile(r"\s+")
    by_module = _run(*module, "--help", cwd=place).replace("python -m reactive_orch", "reactive-orch")
    assert plain.sub("", helped) == plain.sub("", by_module)

    _run(*script, "migrate", cwd=place, DATABASE_URL=empty_database)
    _run(*module, *APPEND, cwd=place, DATABASE_URL=empty_database)
    assert "1 events: 1 OrderPlaced" in _run(*script, *WORKER, cwd=place, DATABASE_URL=empty_database)


def _pythons() -> Iterator[str]:
    """Yield those of this machine that the package is for; this one at least."""
    for version in PYTHONS:
        found = shutil.which(f"python{version}")
        if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
            yield sys.executable
        elif found and subprocess.run([found, "--version"], check=False, capture_output=True).returncode == 0:
            yield found


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("python", list(_pythons()), ids=lambda python: Path(python).name)
def test_it_is_installed_on_each_python_with_what_it_needs(built: Built, place: Path, python: str) -> None:
    """From the registry: needs a network, or what uv keeps of it."""
    programs = _installed(place, python, f"{built.wheel}[embedded]")
    absent = f"from importlib.util import find_spec; print([n for n in {EXTRAS_OF_PEOPLE} if find_spec(n)])"
    assert _run(programs / "python", "-c", absent, cwd=place) == "[]\n"
    data = {"XDG_DATA_HOME": str(place / "data")}
    try:
        _run(programs / "reactive-orch", "migrate", cwd=place, **data)
        _run(programs / "python", "-m", "reactive_orch", *APPEND, cwd=place, **data)
        worked = _run(programs / "python", "-m", "reactive_orch", *WORKER, cwd=place, **data)
    finally:
        with contextlib.suppress(AssertionError):
            _run(programs / "reactive-orch", "stop-embedded", "--yes", cwd=place, **data)
    assert "1 events: 1 OrderPlaced" in worked

    _installed(place, python, f"{built.wheel}[cli,otlp,uvloop,sqlalchemy,testing]")
    assert "complete" in _run(programs / "reactive-orch", "completion", "bash", cwd=place)

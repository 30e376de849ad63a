"""docker-compose.yml, started by Docker Compose on podman, and what its containers are asked.

The file is taken as it stands. Laid over it are names and ports of a run's own, the image that was built before, and
what stands in for official images where no registry is in reach. What there is no stand-in for is left out.
(podman-compose 1.6 would not do: on podman 4.3 it starts `migrate` before PostgreSQL is healthy.)
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import tempfile
import threading
import time
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import yaml

from integration_test.environments.binaries import COMPOSE, JAEGER, OTELCOL
from integration_test.environments.podman import ENV, HERE, Failed, debian, image, podman, pulled
from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration_test.environments.binaries import Binary
    from integration_test.harness.connections import Connection

OURS = ("migrate", "worker", "appender")
SOCKET = "podman.sock"
ENV_FILE = ROOT / ".env.example"
"""So the password is one of any characters, as it says."""
PATIENCE_S = 120.0
GRACE_S = 35
"""`stop_grace_period`."""
_STAND_INS = {"postgres": "bookworm", "prometheus": "testing"}
_BUILT = {"jaeger": JAEGER, "otel-collector": OTELCOL}


def stand_in(name: str, suite: str) -> str:
    """Return what stands in for an official image."""
    return image(name, HERE / "containers" / "stand_ins" / name, BASE=debian(suite))


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


class Laid:
    """What is laid over the compose file, as a compose file."""

    def __init__(self, ours: str) -> None:
        self.left_out: list[str] = []
        self.stand_ins: list[str] = []
        self._over = {name: self._official(name, service) for name, service in _services().items()}
        for name in OURS:
            self._over[name] = {"image": ours}
        self._over["migrate"] |= {"pull_policy": "never", "build": None}
        for name, service in _services().items():
            self._over[name] |= self._of_its_own(service) | _checked(service)

    def _official(self, name: str, service: dict[str, Any]) -> dict[str, Any]:
        if name in OURS or pulled(f"docker.io/{service['image']}"):
            return {}
        if name in _STAND_INS:
            self.stand_ins.append(name)
            return {"image": stand_in(name, _STAND_INS[name])}
        if name in _BUILT and all(binary.path.exists() for binary in _BUILT.values()):
            self.stand_ins.append(name)
            return _run_there(_BUILT[name])
        self.left_out.append(name)
        return {"profiles": ["left out"]}

    @staticmethod
    def _of_its_own(service: dict[str, Any]) -> dict[str, Any]:
        ports = [f"127.0.0.1::{port.rpartition(':')[2]}" for port in service.get("ports", ())]
        return {"ports": ports} if ports else {}

    def written(self) -> str:
        """Return it as YAML in which lists and nothing take the place of what was there."""
        text = yaml.safe_dump({"services": self._over}, sort_keys=False)
        return text.replace("build: null", "build: !reset null").replace("ports:\n", "ports: !override\n")


def _run_there(binary: Binary) -> dict[str, Any]:
    place = stand_in("prometheus", _STAND_INS["prometheus"])
    return {"image": place, "entrypoint": ["/program"], "volumes": [f"{binary.path}:/program:ro"]}


def _checked(service: dict[str, Any]) -> dict[str, Any]:
    """Give podman 4.3 the same check: as a Docker engine it parts words at each space, and misses one that is off."""
    match service.get("healthcheck"):
        case {"test": ["CMD", *words]}:
            return {"healthcheck": {"test": ["CMD-SHELL", shlex.join(words)]}}
        case {"disable": True}:
            return {"healthcheck": {"disable": False, "test": ["CMD-SHELL", "true"]}}
    return {}


class HealthChecks(threading.Thread):
    """Runs the containers' checks, each at its interval: podman leaves that to systemd, which may not be there."""

    def __init__(self, project: str) -> None:
        super().__init__(daemon=True)
        self._project = project
        self._ended = threading.Event()
        self._due: dict[str, float] = {}

    def run(self) -> None:
        while not self._ended.wait(0.5):
            for container in containers(self._project):
                if time.monotonic() >= self._due.get(container, 0):
                    with contextlib.suppress(Failed):  # it may have ended by now
                        self._due[container] = time.monotonic() + self._look(container)

    def _look(self, container: str) -> float:
        """Run a container's check and return when it is to be run again, in seconds."""
        check = json.loads(podman("inspect", "--format={{json .Config.Healthcheck}}", container))
        if not check:
            return float("inf")
        with contextlib.suppress(Failed):  # what it has found is asked for elsewhere
            podman("healthcheck", "run", container)
        return float(check["Interval"]) / 1e9

    def end(self) -> None:
        self._ended.set()
        self.join()


class Stack:
    """The services of docker-compose.yml under a name of its own. A context manager."""

    def __init__(self, ours: str) -> None:
        """Prepare; entering starts them. `ours`: the image of the services that are built here."""
        self.project = f"reactive_orch-{uuid.uuid4().hex[:12]}"
        self.network = f"{self.project}_default"
        self.laid = Laid(ours)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reactive_orch-compose-")))
            (self._folder / "over.yml").write_text(self.laid.written())
            stack.enter_context(_served(self._folder / SOCKET))
            checks = HealthChecks(self.project)
            checks.start()
            stack.callback(checks.end)
            stack.callback(self._down)
            self.compose("up", "--build", "--wait")
            self._stack = stack.pop_all()
        return self

    def _down(self) -> None:
        for container in containers(self.project, "--all"):
            podman("rm", "--force", "--time=0", container)  # paused ones, too
        self.compose("down", "--volumes")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def compose(self, *arguments: str) -> str:
        """Run a command of Docker Compose's and return what it says."""
        files = (ROOT / "docker-compose.yml", self._folder / "over.yml")
        of = [f"--project-name={self.project}", f"--env-file={ENV_FILE}", *(f"--file={file}" for file in files)]
        env = {**ENV, "DOCKER_HOST": f"unix://{self._folder / SOCKET}"}
        done = subprocess.run(
            [COMPOSE.path, *of, *arguments],
            check=False,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (
            f"docker compose {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout + done.stderr

    def name(self, service: str, number: int = 1) -> str:
        """Return a container's name."""
        return f"{self.project}-{service}-{number}"

    def workers(self) -> list[str]:
        """Return the names of the workers that run."""
        return sorted(containers(self.project, "--filter=label=com.docker.compose.service=worker"))

    async def database(self) -> Connection:
        """Connect to it as its users do, but from outside."""
        return await asyncpg.connect(
            host=address(self.name("postgres")), user="shop", database="shop", password=self._password
        )

    @cached_property
    def _password(self) -> str:
        return shlex.split(ENV_FILE.read_text().split("POSTGRES_PASSWORD=")[1])[0]


def containers(project: str, *options: str) -> list[str]:
    """Return the names of a project's containers that run, or with `--all` of all."""
    of_project = f"--filter=label=com.docker.compose.project={project}"
    return podman("ps", "--format={{.Names}}", of_project, *options).split()


@contextlib.contextmanager
def _served(socket: Path) -> Iterator[None]:
    """Have podman speak as a Docker engine does."""
    command = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
    # In a session of its own: Ctrl-C ends the tests, and they still need it then.
    with subprocess.Popen(command, env=ENV, stderr=subprocess.DEVNULL, start_new_session=True) as service:
        try:
            while not socket.exists():
                assert service.poll() is None
                time.sleep(0.05)
            yield
        finally:
            service.terminate()


def inspected(container: str) -> dict[str, Any]:
    """Return all that podman knows of a container, in Docker's format."""
    (found,) = json.loads(podman("inspect", container))
    return dict(found)


def address(container: str) -> str:
    """Return a container's address in its network."""
    (network,) = inspected(container)["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def health(container: str) -> str:
    """Return what a container's check has found: starting, healthy or unhealthy."""
    return str(inspected(container)["State"]["Health"]["Status"])


async def wait_healthy(*containers: str) -> None:
    """Wait until the checks of all of these are well."""

    async def all_of_them() -> bool:
        return all(health(each) == "healthy" for each in containers)

    await wait_until(all_of_them, PATIENCE_S, f"{', '.join(containers)} are healthy")


@contextlib.contextmanager
def run_beside(stack: Stack, *options: str) -> Iterator[str]:
    """Run one more worker from the image by hand, as docs/docker.md does, with all rights taken; yield its name."""
    beside = inspected(stack.name("worker"))
    login = [f"--env={each}" for each in beside["Config"]["Env"] if each.startswith("POSTGRES_")]
    without_rights = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    mounted = f"--volume={ROOT / 'examples'}:/app/examples:ro"
    run = ("run", "--detach", "--init", f"--network={stack.network}", f"--stop-timeout={GRACE_S}", mounted)
    work = ("--replica-set=shop", "--projection=examples.shop.projections", "--http=0.0.0.0:8080")
    started = podman(*run, *without_rights, *login, *options, beside["Config"]["Image"], *work)
    try:
        yield started
    finally:
        podman("rm", "--force", "--time=0", started)

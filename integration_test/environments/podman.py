"""Containers by podman, on machines without a Docker engine, systemd or a registry in reach.

Official images are pulled where a registry answers. Where none does, stand-ins are made, once: Debian by debootstrap,
from the mirror that apt uses here, and what is installed in it from there too. Their names are the project's own
(`localhost/reactive_orch/…`), so none is mistaken for the official one. They stay in podman's storage; `podman rmi`
one, and the next run makes it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent

CONF = str(HERE / "containers.conf")
ENV = {**os.environ, "CONTAINERS_CONF": CONF, "BUILDAH_ISOLATION": "chroot"}
"""What podman needs to know, and whatever it starts."""

OURS = "localhost/reactive_orch"
_PATIENCE_S = 900.0
_OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


class Failed(Exception):
    """A command of podman's has failed: what it said."""


def podman(*arguments: str, timeout_s: float = _PATIENCE_S) -> str:
    """Run a command of podman's and return its output. Raises Failed with what it said."""
    done = subprocess.run(
        ["podman", *arguments],  # noqa: S607
        check=False,
        env=ENV,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if done.returncode:
        msg = f"podman {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-8000:]}"
        raise Failed(msg)
    return done.stdout.strip()


def exists(image: str) -> bool:
    """Return whether an image is in podman's storage."""
    with contextlib.suppress(Failed):
        podman("image", "exists", image)
        return True
    return False


def debian(suite: str) -> str:
    """Return an image of Debian: the official one, or a stand-in."""
    official, stand_in = f"docker.io/library/debian:{suite}-slim", f"{OURS}/debian:{suite}"
    return official if pulled(official) else _once(stand_in, functools.partial(_bootstrap, suite, stand_in))


def image(name: str, folder: Path, **arguments: str) -> str:
    """Return an image that a folder's Containerfile makes, with this machine's way to Debian and to PyPI.

    Its name changes with the folder, the files that lie in it, and the arguments.
    """
    files = sorted(folder.iterdir())
    content = repr((arguments, [(file.name, file.read_bytes()) for file in files], sorted(_certificates()), _pip()))
    tag = f"{OURS}/{name}:{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    return _once(tag, functools.partial(_build, tag, folder, arguments))


@functools.cache
def pulled(official: str) -> bool:
    """Return whether there is an official image here, after trying to get it."""
    if not exists(official):
        with contextlib.suppress(Failed, subprocess.TimeoutExpired):
            podman("pull", "--quiet", official, timeout_s=60)
    return exists(official)


@contextlib.contextmanager
def build_context(folder: Path) -> Iterator[Path]:
    """Copy a folder, and beside its files lay the certificates that this machine trusts besides the usual ones."""
    with tempfile.TemporaryDirectory(prefix="reactive_orch-build-") as copy:
        context = Path(copy)
        shutil.copytree(folder, context, dirs_exist_ok=True)
        (context / "certificates").mkdir()
        for file in _certificates():
            shutil.copy(file, context / "certificates")
        yield context


def _pip() -> Mapping[str, str]:
    """Return how this machine's pip is told where packages are."""
    return {name: os.environ[name] for name in _PIP if name in os.environ}


def _certificates() -> list[Path]:
    return list(_OWN_CERTIFICATES.rglob("*.crt"))


def _once(tag: str, make: functools.partial[None]) -> str:
    """Make an image if it is not there. Whoever makes one already is waited for."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reactive_orch"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not exists(tag):
            make()
    return tag


def _build(tag: str, folder: Path, arguments: Mapping[str, str]) -> None:
    given = [*variables(_pip()), *(f"--build-arg={name}={value}" for name, value in arguments.items())]
    with build_context(folder) as context:
        podman("build", "--network=host", "--format=docker", "--layers=false", *given, f"--tag={tag}", str(context))


def _bootstrap(suite: str, tag: str) -> None:
    with tempfile.TemporaryDirectory(prefix="reactive_orch-debian-") as folder:
        # A suite that this debootstrap does not know yet is made as its successor is.
        known = Path("/usr/share/debootstrap/scripts", suite)
        script = [] if known.exists() else ["/usr/share/debootstrap/scripts/sid"]
        subprocess.run(
            ["debootstrap", "--variant=minbase", suite, f"{folder}/root", _mirror(), *script],  # noqa: S607
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for package in Path(folder, "root/var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        # A mirror may be the snapshot of a day.
        Path(folder, "root/etc/apt/apt.conf.d/90snapshot").write_text('Acquire::Check-Valid-Until "false";\n')
        subprocess.run(["tar", "-C", f"{folder}/root", "-cf", f"{folder}/root.tar", "."], check=True)  # noqa: S607
        podman(
            "import",
            "--quiet",
            f"--change=LABEL reactive_orch.stands_in_for=debian:{suite}-slim",
            f"{folder}/root.tar",
            tag,
        )


def _mirror() -> str:
    """Return the mirror of Debian that apt uses here."""
    said = subprocess.run(["apt-cache", "policy"], check=True, capture_output=True, text=True).stdout  # noqa: S607
    found = re.search(r"(https?://\S*/debian/?) \S+/main", said)
    return found[1] if found else "http://deb.debian.org/debian"


@contextlib.contextmanager
def network() -> Iterator[str]:
    """Make a network on addresses that nobody has; containers there reach the world, and each other by name."""
    name = f"reactive_orch-{uuid.uuid4().hex[:12]}"
    podman("network", "create", name)
    try:
        yield name
    finally:
        podman("network", "rm", "--force", "--time=0", name)


@dataclass(frozen=True, slots=True)
class Machine:
    """A container that stays up while commands are run in it, by one of its users."""

    container: str
    user: str

    @property
    def home(self) -> str:
        """Where its user is at home."""
        return "/root" if self.user == "root" else f"/home/{self.user}"

    def command(self, script: str, *options: str) -> list[str]:
        """Return the command that has bash do this at home, and nothing after a line that fails."""
        enter = ("exec", *options, f"--user={self.user}", f"--workdir={self.home}")
        return ["podman", *enter, self.container, "bash", "-euc", script]

    def run(self, script: str, timeout_s: float = _PATIENCE_S) -> str:
        """Do this at home and return what was said. Raises Failed with it."""
        return podman(*self.command(f"exec 2>&1\n{script}")[1:], timeout_s=timeout_s)


@contextlib.contextmanager
def running(image: str, user: str, *options: str) -> Iterator[Machine]:
    """Start a container that does nothing, for commands of this user's. It is removed with all that runs in it."""
    started = podman("run", "--detach", "--init", *options, image, "sleep", "infinity")
    try:
        yield Machine(started, user)
    finally:
        podman("rm", "--force", "--time=0", "--volumes", started)


def variables(given: Mapping[str, str]) -> Iterator[str]:
    """Yield podman's options that set these variables."""
    for name, value in given.items():
        yield f"--env={name}={value}"

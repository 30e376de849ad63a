"""Jaeger, the collector, Docker Compose: built once from their Go modules, unless variables say where ready ones are.

Each folder of `go/` pins what its program is made of. What was built lies in the user's cache, under a name that
changes with the folder, and stays there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SOURCES = Path(__file__).parent / "go"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reactive_orch" / "bin"


@dataclass(frozen=True, slots=True)
class Binary:
    """A program that is built from a folder of `go/` of its name."""

    name: str
    variable: str
    """Says where a ready one is."""
    commands: Sequence[Sequence[str]]
    """Are run in a copy of the folder."""
    makes: str
    """What they leave there."""

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        if given := os.environ.get(self.variable):
            return Path(given)
        files = sorted((_SOURCES / self.name).iterdir())
        content = hashlib.sha256(repr((self.commands, [file.read_bytes() for file in files])).encode())
        return _CACHE / f"{self.name}-{content.hexdigest()[:12]}"

    def make(self, say: Callable[[str], None]) -> None:
        """Build it if it is not there. Whoever builds the same already is waited for."""
        say(f"{self.name}: {self.path} ({self.variable}=… says where another one is)")
        if os.environ.get(self.variable) or self.path.exists():
            return
        _CACHE.mkdir(parents=True, exist_ok=True)
        with _alone():
            if not self.path.exists():
                say(f"{self.name}: building it from Go modules, once; minutes on two cores")
                self._build()

    def _build(self) -> None:
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            copy = Path(folder) / self.name
            shutil.copytree(_SOURCES / self.name, copy)
            variables = {**os.environ, "TMPDIR": folder}  # the builder leaves a folder behind
            for command in self.commands:
                done = subprocess.run(
                    command, cwd=copy, env=variables, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
                if done.returncode:
                    msg = f"{' '.join(command)} failed:\n{done.stderr.decode()[-4000:]}"
                    raise RuntimeError(msg)
            (copy / self.makes).rename(self.path)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    folder = os.open(_CACHE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _go_build(folder: str, target: str, package: str, linker: str = "") -> Sequence[str]:
    # Two compilers at once, and no debug information: else it takes all of a small machine, and twice the room.
    return "go", "build", "-C", folder, "-p", "2", f"-ldflags=-s -w {linker}".rstrip(), "-o", target, package


JAEGER = Binary(
    "jaeger", "JAEGER_BIN", [_go_build(".", "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger")], "jaeger"
)
OTELCOL = Binary(
    "otelcol",
    "OTELCOL_BIN",
    [
        ("go", "tool", "builder", "--config", "builder.yaml", "--skip-compilation"),
        _go_build("out", "../otelcol", "."),
    ],
    "otelcol",
)
COMPOSE = Binary(
    "docker-compose",
    "DOCKER_COMPOSE_BIN",
    [
        _go_build(
            *(".", "docker-compose", "github.com/docker/compose/v2/cmd"),
            "-X github.com/docker/compose/v2/internal.Version=v2.40.3",
        )
    ],
    "docker-compose",
)
OF_STAGE = {"jaeger": (JAEGER, OTELCOL), "containers": (COMPOSE,)}

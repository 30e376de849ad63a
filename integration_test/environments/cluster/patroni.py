"""A PostgreSQL cluster as people run it: etcd, two nodes of Patroni, and HAProxy, all on free ports of 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from integration_test.harness.cluster import find_programs, free_port, system_identity
from integration_test.harness.places import new_directory
from integration_test.harness.waiting import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PATIENCE_S = 90.0
"""How long a node may take to come back: it rewinds, or is copied anew, and others use the machine too."""
ANSWER_S = 2.0
"""How long a node has to say how it is."""

TTL_S, LOOP_WAIT_S, RETRY_TIMEOUT_S = 20, 2, 3
"""Patroni's: how long the primary's lease lasts, and how often it is renewed. 20 is the least that it takes."""


class Node:
    """One of the cluster: Patroni, and the PostgreSQL that it starts."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.port, self.rest_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.data = directory / name
        self.file = directory / f"{name}.yml"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def postmaster(self) -> int | None:
        """Its process id; None while there is none. A killed one leaves its file, and its number to another process."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
            if str(self.data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to Patroni and to each process of PostgreSQL. Patroni first: it would start the other again."""
        _send(number, *self._patroni(), *self._postgres())
        _send(number, *self._postgres())  # and what the postmaster has started meanwhile

    def stop_sending(self) -> None:
        """Let the standby get nothing more, and notice nothing."""
        for pid in self._postgres():
            if b"walsender" in Path(f"/proc/{pid}/cmdline").read_bytes():
                _send(signal.SIGSTOP, pid)

    def kill_postmaster(self) -> None:
        """Kill PostgreSQL: its other processes end by themselves when they see it."""
        _send(signal.SIGKILL, *self._postgres()[:1])

    def end(self) -> None:
        """End it, frozen or not. PostgreSQL is not killed: it would leave shared memory behind."""
        _send(signal.SIGKILL, *self._patroni())
        if self.process is not None:
            self.process.wait()
        _send(signal.SIGCONT, *self._postgres())
        _send(signal.SIGQUIT, *self._postgres()[:1])
        deadline = time.monotonic() + TIMEOUT_S
        while self.postmaster is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill_postmaster()
        self._free_memory()

    def _free_memory(self) -> None:
        """Free the shared memory of a postmaster that was killed, as the next one on its data would."""
        with contextlib.suppress(OSError, IndexError):
            key_and_id = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[6].split()
            subprocess.run([_found("ipcrm"), "-m", key_and_id[1]], check=False, capture_output=True)

    def _patroni(self) -> list[int]:
        return [self.process.pid] if self.process is not None and self.process.poll() is None else []

    def _postgres(self) -> list[int]:
        """Return the postmaster and its children; nothing when there is none."""
        if (postmaster := self.postmaster) is None:
            return []
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="utf-8")
            return [postmaster, *map(int, children.split())]
        return []


def _send(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class PatroniCluster:
    """A `with` statement makes and starts it, and removes it with all of its processes at the end."""

    def __init__(self, version: str, *, synchronous: bool) -> None:
        """Prepare. `version`: PostgreSQL's; `synchronous`: a commit waits for the standby."""
        self._version, self.synchronous = version, synchronous
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.directory = new_directory("reactive_orch-patroni-")
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            if identity := system_identity():
                os.chown(self.directory, identity["user"], identity["group"])
            self._programs = find_programs(self._version, self.directory / "programs")
            self._dcs = _dcs()
            self._etcd_port, self._proxy_port = free_port(), free_port()
            self.nodes = [Node(name, self.directory) for name in ("a", "b")]
            stack.enter_context(self._etcd())
            for node in self.nodes:
                stack.callback(node.end)
                self._configure(node)
            stack.enter_context(self._haproxy())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def start(self) -> None:
        """Start both nodes and wait until one is the primary and the other streams from it."""
        for node in self.nodes:
            self.start_node(node)
            await wait_until(self.primary, PATIENCE_S, "there is a primary")
        await self.healthy()

    @contextlib.contextmanager
    def _etcd(self) -> Iterator[None]:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, free_port()))
        arguments = {
            "data-dir": self.directory / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        flags = ("--unsafe-no-fsync", *(("--enable-v2",) if self._dcs == "etcd" else ()))
        with self._running("etcd", *(f"--{name}={value}" for name, value in arguments.items()), *flags):
            yield

    @contextlib.contextmanager
    def _haproxy(self) -> Iterator[None]:
        ports = {f"{node.name}_{what}": getattr(node, what) for node in self.nodes for what in ("port", "rest_port")}
        file = self.directory / "haproxy.cfg"
        template = Template((HERE / "haproxy.cfg").read_text(encoding="utf-8"))
        file.write_text(template.substitute(ports, port=self._proxy_port), encoding="utf-8")
        with self._running("haproxy", "-db", "-f", file):
            yield

    @contextlib.contextmanager
    def _running(self, program: str, *arguments: object) -> Iterator[None]:
        process = self._start(program, *arguments)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def _start(self, program: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a program as the servers' user, its output in a file; Ctrl-C ends the tests, and they end it."""
        with (self.directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [_found(program), *map(str, arguments)],
                cwd=self.directory,
                env={"PATH": f"{os.defpath}:/usr/sbin", "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **system_identity(),
            )

    def _configure(self, node: Node) -> None:
        template = Template((HERE / "patroni.yml").read_text(encoding="utf-8"))
        values = {
            "name": node.name,
            "port": node.port,
            "rest_port": node.rest_port,
            "dcs": self._dcs,
            "etcd_port": self._etcd_port,
            "data": node.data,
            "directory": self.directory,
            "programs": self._programs,
            "synchronous": str(self.synchronous).lower(),
            "ttl": TTL_S,
            "loop_wait": LOOP_WAIT_S,
            "retry_timeout": RETRY_TIMEOUT_S,
        }
        node.file.write_text(template.substitute(values), encoding="utf-8")

    def start_node(self, node: Node) -> None:
        """Start Patroni of a node, which starts PostgreSQL."""
        if node.process is not None:
            node.process.wait()
        node.process = self._start("patroni", node.file)

    @property
    def replication(self) -> str:
        """What a commit does about the standby."""
        return "synchronous" if self.synchronous else "asynchronous"

    @property
    def hosts(self) -> str:
        """Both nodes, as a URL names them."""
        return ",".join(node.address for node in self.nodes)

    @property
    def proxy(self) -> str:
        """HAProxy, which leads to the primary."""
        return f"127.0.0.1:{self._proxy_port}"

    async def ask(self, node: Node, path: str, **body: Any) -> tuple[int, str]:
        """Ask Patroni of a node, or tell it something; return the status, 0 without an answer, and what it says."""
        method, patience_s = ("POST", PATIENCE_S) if body else ("GET", ANSWER_S)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=patience_s)) as http,
                http.request(method, f"http://127.0.0.1:{node.rest_port}/{path}", json=body or None) as response,
            ):
                return response.status, await response.text()
        return 0, ""

    async def primary(self) -> Node | None:
        """Return the node that says that it is the primary; None while none does."""
        for node in self.nodes:
            if (await self.ask(node, "primary"))[0] == 200:
                return node
        return None

    async def healthy(self) -> tuple[Node, Node]:
        """Wait until there is a primary, and a standby that could take its place; return both."""
        return await wait_until(self._both, PATIENCE_S, "there are a primary and a standby")

    async def _both(self) -> tuple[Node, Node] | None:
        if (primary := await self.primary()) is None:
            return None
        (other,) = (node for node in self.nodes if node is not primary)
        _, said = await self.ask(primary, "patroni")
        links = json.loads(said or "{}").get("replication", ())
        follows = any(link["state"] == "streaming" and link["sync_state"] in self._wanted for link in links)
        stands_by = (await self.ask(other, "synchronous" if self.synchronous else "replica"))[0] == 200
        return (primary, other) if follows and stands_by else None

    @property
    def _wanted(self) -> set[str]:
        return {"sync"} if self.synchronous else {"async", "sync"}

    def log(self) -> str:
        """Return the last words of Patroni."""
        return (self.directory / "patroni.log").read_text(encoding="utf-8", errors="replace")[-4000:]


def _dcs() -> str:
    """Return how Patroni is to talk to etcd.

    Before 3.0.3 a primary that has been frozen takes the lead back, by version 3 of etcd's interface, whoever has it:
    https://github.com/patroni/patroni/pull/2689.
    """
    version = tuple(int(number) for number in version_of("patroni", "--version").split("."))
    return "etcd3" if version >= (3, 0, 3) else "etcd"


def versions() -> str:
    """Return what is run."""
    named = {"Patroni": ("patroni", "--version"), "etcd": ("etcd", "--version"), "HAProxy": ("haproxy", "-v")}
    return ", ".join(f"{name} {version_of(*command)}" for name, command in named.items())


def version_of(program: str, option: str) -> str:
    """Return the version that a program says that it is, without its distribution's part."""
    said = subprocess.run([_found(program), option], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    assert found is not None, said
    return found[0]


def _found(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert found is not None, f"{program} is missing: the stage is skipped then"
    return found

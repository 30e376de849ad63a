"""Hosts of their own, a router between them, and what it does to those behind it.

A host is a network namespace without a name, which lasts as long as a process in it. That one ends when it is told to,
or when whoever made it has ended, however that came: so nothing is left behind. The machine's network is not touched.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from integration_test.harness.cluster import Cluster, system_user
from integration_test.harness.processes import Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_HOLD = "ip link set lo up && echo ready && exec cat"


class Host:
    """A machine as far as its network goes. A context manager: gone at its end, without a word to anybody."""

    address = ""
    """Its own, once it is behind a router."""
    link = ""
    """How its router calls the way to it."""

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", _HOLD],  # noqa: S607 - wherever the system has it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends the tests, and they end it
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    @property
    def pid(self) -> int:
        """A process of its own."""
        return self._holder.pid

    @property
    def inside(self) -> list[str]:
        """What a command is run through to be run there."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def run(self, *command: str, given: str = "") -> None:
        """Run a command there, with this as its input."""
        subprocess.run([*self.inside, *command], check=True, input=given, text=True, stdout=subprocess.DEVNULL)

    def ip(self, *lines: str) -> None:
        """Have its links, addresses and routes changed."""
        self.run("ip", "-batch", "-", given="\n".join(lines))


class Network:
    """A router and the way to each host behind it. A context manager."""

    def __init__(self) -> None:
        self._router = Host()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._router.__enter__()
        self._set("ipv4/ip_forward", "1")
        return self

    def __exit__(self, *_: object) -> None:
        self._router.__exit__()

    @contextlib.contextmanager
    def host(self) -> Iterator[Host]:
        """Add a host for the block."""
        with Host() as host:
            number = next(self._numbers)
            self._name(host, number)
            self._router.ip(f"link add name {host.link} type veth peer name eth0 netns {host.pid}")
            self._route(host, number)
            yield host

    @contextlib.asynccontextmanager
    async def host_by_wire(self, *options: str) -> AsyncIterator[tuple[Host, Process]]:
        """Add a host for the block whose frames pass the program `wire.py`, with these options."""
        with Host() as host, Host() as wire:
            number = next(self._numbers)
            self._name(host, number)
            # Frames as they would be on a wire: one segment each, however many the kernel would pass on at once.
            ends = "type veth peer name {} gso_max_segs 1 netns {}"
            wire.ip(
                f"link add name near {ends.format('eth0', host.pid)}",
                f"link add name far {ends.format(host.link, self._router.pid)}",
                "link set near up",
                "link set far up",
            )
            self._route(host, number)
            command = [*wire.inside, sys.executable, "-m", f"{__package__}.wire", *options, "near", "far"]
            process = await Process("wire", command, {}).start()
            try:
                await process.said("passing")
                yield host, process
            finally:
                await process.end()

    @staticmethod
    def _name(host: Host, number: int) -> None:
        host.link, host.address = f"host{number}", f"10.0.{number}.2"

    def _route(self, host: Host, number: int) -> None:
        self._router.ip(f"address add 10.0.{number}.1/24 dev {host.link}", f"link set {host.link} up")
        host.ip(f"address add {host.address}/24 dev eth0", "link set eth0 up", f"route add default via 10.0.{number}.1")

    @contextlib.contextmanager
    def ruled(self, *rules: str) -> Iterator[None]:
        """Treat what passes by these rules of iptables for the block; a host is known by its `link`."""
        written = [rule.split() for rule in rules]
        for rule in written:
            self._router.run("iptables", "--wait", "--insert", "FORWARD", *rule)
        try:
            yield
        finally:
            for rule in written:
                self._router.run("iptables", "--wait", "--delete", "FORWARD", *rule)

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """Know each connection for the block, as a NAT does, and pass nothing of others, without a word."""
        with self.ruled("-m conntrack --ctstate INVALID -j DROP"):
            self._set("netfilter/nf_conntrack_tcp_loose", "0")  # a connection begins with its first packet
            yield

    def _set(self, what: str, value: str) -> None:
        self._router.run("tee", f"/proc/sys/net/{what}", given=value)

    def forget(self, *hosts: Host) -> None:
        """Forget every connection of these hosts."""
        for host in hosts:
            self._router.run("conntrack", "--delete", "--orig-src", host.address)

    def unplug(self, host: Host) -> None:
        """Take a host off, for good."""
        self._router.ip(f"link delete {host.link}")


class Server(Cluster):
    """A server on a host. Workers reach it by `address`; the tests by its socket, which no network can cut."""

    def __init__(self, version: str, host: Host) -> None:
        super().__init__(version)
        self.host = host

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database over the socket."""
        return f"postgresql://postgres@/{database}?host={self.directory}&port={self.port}"

    def address(self, url: str) -> str:
        """Return what leads to the same database over the network."""
        database = urlsplit(url).path.strip("/")
        return f"postgresql://postgres@{self.host.address}:{self.port}/{database}"

    def _make(self) -> None:
        super()._make()
        with (self._data / "postgresql.conf").open("a") as file:
            file.write("listen_addresses = '*'\n")
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.0.0.0/8 trust\n")

    def _serve(self, program: str, *arguments: object) -> None:
        user = system_user()
        through = [*self.host.inside, f"--setuid={user.pw_uid}", f"--setgid={user.pw_gid}"]
        self._run(program, *arguments, through=through)

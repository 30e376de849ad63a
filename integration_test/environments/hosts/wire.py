"""A wire that loses and delays, once SIGUSR1 has said so, until SIGUSR2 says that all is well again.

python -m integration_test.environments.hosts.wire --loss 0.05 --delay 0.1 --jitter 0.03 near far

It passes frames between two interfaces of its network namespace, in the order in which they came. Checksums that the
kernel leaves to hardware, which is not there, travel with a frame (PACKET_VNET_HDR) to the kernel of the other side.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
from functools import partial

_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_ALL_PROTOCOLS = 3
_FRAME_MAX = 2**17


class Wire:
    """What happens to the frames of both directions."""

    def __init__(self, loss: float, delay_s: float, jitter_s: float) -> None:
        self._bad = (loss, delay_s, jitter_s)
        self._now = (0.0, 0.0, 0.0)
        self._chance = random.Random(1)
        self._due: dict[socket.socket, float] = {}

    def worsen(self) -> None:
        """Lose and delay from now on."""
        self._now = self._bad

    def mend(self) -> None:
        """Pass all at once from now on."""
        self._now = (0.0, 0.0, 0.0)

    def pass_on(self, come: socket.socket, go: socket.socket) -> None:
        """Take a frame from one side and give it to the other, now, later or never."""
        frame = come.recv(_FRAME_MAX)
        loss, delay_s, jitter_s = self._now
        if self._chance.random() < loss:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s + self._chance.uniform(-jitter_s, jitter_s)
        self._due[go] = max(due, self._due.get(go, 0.0))
        if self._due[go] <= loop.time():
            go.send(frame)
        else:
            loop.call_at(self._due[go], go.send, frame)


def _end(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    end.bind((interface, 0))
    end.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    return end


async def _run(wire: Wire, near: str, far: str) -> None:
    loop, ends = asyncio.get_running_loop(), (_end(near), _end(far))
    for come, go in (ends, ends[::-1]):
        loop.add_reader(come, partial(wire.pass_on, come, go))
    loop.add_signal_handler(signal.SIGUSR1, wire.worsen)
    loop.add_signal_handler(signal.SIGUSR2, wire.mend)
    print("passing", flush=True)  # noqa: T201 - whoever started it waits for that
    await asyncio.Event().wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--loss", "--delay", "--jitter"):
        parser.add_argument(name, type=float, default=0.0)
    parser.add_argument("ends", nargs=2)
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    asyncio.run(_run(Wire(given.loss, given.delay, given.jitter), *given.ends))

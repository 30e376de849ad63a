"""Named points in a worker's own process, at which something may happen to it.

The product has no hooks: its functions are wrapped here, from outside, in this process only. What happens at a point is
said by the variable REACTIVE_ORCH_CHAOS, rules with commas between: `POINT=ACTION@N` at its N-th passage,
`POINT=ACTION%P` at each with probability P (seeded by REACTIVE_ORCH_CHAOS_SEED). A point is a name with `.before` or
`.after` (`start` and `decide` have only `.after`), `*` is all of them. Actions: `kill` and `stop` (SIGKILL and SIGSTOP
to itself), `raise` (the connection is lost: before the statement, or after it, when its outcome is unknown), `pause`
(up to 50 ms), `hang` (for ever). Each but the last two is announced on standard output. While the file that
REACTIVE_ORCH_CHAOS_CALM names exists, nothing happens.

REACTIVE_ORCH_CHAOS_POLL sets the fallback polls, REACTIVE_ORCH_CHAOS_SAVE how often lazily read positions are saved.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from reactive_orch import cli
from reactive_orch.core import generation as core
from reactive_orch.errors import Unavailable
from reactive_orch.postgres import checkpoints, log, membership, windows
from reactive_orch.runtime.handling import lane
from reactive_orch.runtime.handling.runner import Runner
from reactive_orch.runtime.reading import ringing

if TYPE_CHECKING:
    from collections.abc import Callable

RULES, SEED, CALM = "REACTIVE_ORCH_CHAOS", "REACTIVE_ORCH_CHAOS_SEED", "REACTIVE_ORCH_CHAOS_CALM"
POLL, SAVE = "REACTIVE_ORCH_CHAOS_POLL", "REACTIVE_ORCH_CHAOS_SAVE"

POINTS: dict[str, tuple[Any, str]] = {
    "start": (cli, "_parse"),
    "join": (membership, "join"),
    "observe": (membership, "observe"),
    "decide": (core, "plan_change"),
    "announce": (membership, "change"),
    "terminate": (membership, "terminate"),
    "drain": (Runner, "_release"),
    "take": (checkpoints, "load_free"),
    "wait": (checkpoints, "await_free"),
    "acknowledge": (membership, "acknowledge"),
    "read": (windows, "read_window"),
    "look": (log, "observe"),
    "swap": (checkpoints.Batches, "_swap"),
    "commit": (checkpoints.Batches, "_finish"),
    "heartbeat": (membership, "heartbeat"),
    "resume": (membership, "resume"),
    "leave": (membership, "leave"),
}
"""Name → where the function lives. `swap.after` and `commit.before` are between swap and commit, before and after the
handlers; `commit.after` with `raise` is a commit whose answer never came."""


@dataclass(slots=True)
class Rule:
    """What happens at a point, and when."""

    point: str
    action: str
    at: int
    probability: float
    passages: int = 0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `POINT=ACTION@N` or `POINT=ACTION%P`."""
        point, _, what = text.partition("=")
        action, at, number = what.partition("@")
        if at:
            return cls(point, action, int(number), 0.0)
        action, _, probability = what.partition("%")
        return cls(point, action, 0, float(probability or 1))

    def strikes(self, point: str) -> bool:
        """Count a passage; True when it is the one."""
        if self.point not in {"*", point}:
            return False
        self.passages += 1
        return self.passages == self.at if self.at else random.random() < self.probability


class Points:
    """The rules at work."""

    def __init__(self, rules: str, calm: str | None) -> None:
        self._rules = [Rule.parse(text) for text in rules.split(",") if text]
        self._calm = Path(calm) if calm else None

    def install(self) -> None:
        """Wrap every function a rule could be about."""
        for name, (owner, attribute) in POINTS.items():
            setattr(owner, attribute, self._wrapped(name, getattr(owner, attribute)))

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            def decided(*args: Any, **kwargs: Any) -> Any:
                result = function(*args, **kwargs)
                if result is not None:
                    self._act(self._action(f"{name}.after"), f"{name}.after", None)
                return result

            return decided

        @functools.wraps(function)
        async def passed(*args: Any, **kwargs: Any) -> Any:
            await self._pass(f"{name}.before", args)
            result = await function(*args, **kwargs)
            await self._pass(f"{name}.after", args)
            return result

        return passed

    async def _pass(self, point: str, args: tuple[Any, ...]) -> None:
        action = self._action(point)
        if action == "pause":
            await anyio.sleep(random.uniform(0, 0.05))
        elif action == "hang":
            await anyio.sleep_forever()
        else:
            self._act(action, point, next((arg for arg in args if hasattr(arg, "terminate")), None))

    def _action(self, point: str) -> str:
        struck = [rule.action for rule in self._rules if rule.strikes(point)]
        if not struck or (self._calm is not None and self._calm.exists()):
            return ""
        return next((action for action in struck if action != "pause"), "pause")

    @staticmethod
    def _act(action: str, point: str, connection: Any) -> None:
        if action in {"", "pause"}:
            return
        sys.stdout.write(f"chaos: {point} {action}\n")
        sys.stdout.flush()
        match action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                if connection is not None:
                    connection.terminate()
                msg = f"chaos at {point}"
                raise Unavailable(msg)
            case _:
                msg = f"no such action: {action}"
                raise ValueError(msg)


def install() -> None:
    """Wrap the product in this process as the environment says."""
    random.seed(os.environ.get(SEED))
    if poll := os.environ.get(POLL):
        ringing.POLL_S = ringing.POLL_DEAF_S = float(poll)
    if save := os.environ.get(SAVE):
        lane.SAVE_EVERY_S = float(save)
    Points(os.environ.get(RULES, ""), os.environ.get(CALM)).install()

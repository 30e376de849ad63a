"""The command line: the composition root and the only reader of the environment.

    python -m reactive_orch --replica-set NAME …     run a worker
    python -m reactive_orch migrate|append|status|rewind|trace …

Exit codes: 0 clean stop, 1 failed, 2 wrong usage or configuration, 3 database not reachable at start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from reactive_orch import commands, last_resort
from reactive_orch.abandonable import abandonable
from reactive_orch.address import database_url, database_url_of_parts
from reactive_orch.config import Config, shown
from reactive_orch.core.health import Verdict, assess
from reactive_orch.errors import ConfigError, ReactiveOrchError
from reactive_orch.explaining import EXIT_CONFIG, EXIT_FAILED, explain
from reactive_orch.model import Projection, check_name
from reactive_orch.runtime.cancellation import lasting_group
from reactive_orch.runtime.node import Node
from reactive_orch.runtime.worker import Worker
from reactive_orch.streams import open_streams, say
from reactive_orch.telemetry import prometheus
from reactive_orch.telemetry.exporting import exporting
from reactive_orch.telemetry.logs import FORMATS, log_to
from reactive_orch.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import TaskStatus

COLLECT_AFTER = (10_000, 20, 20)
"""Python's collector of cycles looks after so many new objects. An event is a handful of them, none in a cycle, and all
gone with their batch: with the default of 700 the looks take 8 % of the processor time of a batch of 500."""

_logger = logging.getLogger("reactive_orch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is said in one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    open_streams()
    try:
        options = _parse(arguments)
        if options.command is not None:
            options.command.prepare(options)
        gc.set_threshold(*COLLECT_AFTER)
        anyio.run(_run, options, backend_options={"use_uvloop": find_spec("uvloop") is not None})
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the user gets one line and an exit code
        return explain(error)
    finally:
        last_resort.stay()
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaint in one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{message} (--help shows the options)")
        sys.exit(EXIT_CONFIG)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    if arguments and arguments[0] in commands.COMMANDS:
        command = commands.COMMANDS[arguments[0]]
        parser = _Parser(prog=f"python -m reactive_orch {arguments[0]}", description=command.description)
        command.add_arguments(parser)
        _add_database(parser)
        options = parser.parse_args(arguments[1:])
        options.command = command
        return options
    worker_parser = _worker_parser()
    late = next((argument for argument in arguments if argument in commands.COMMANDS), None)
    if late is not None and not any(argument.startswith("--replica-set") for argument in arguments):
        worker_parser.error(f"the command comes first: python -m reactive_orch {late} …")
    if arguments and not arguments[0].startswith("-"):
        worker_parser.error(f"unknown command {arguments[0]!r}; there are {', '.join(commands.COMMANDS)}")
    options = worker_parser.parse_args(arguments)
    options.command = None
    return options


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database-url",
        metavar="ADDRESS",
        help="postgresql://… or key=value words; otherwise DATABASE_URL, otherwise POSTGRES_HOST, _PORT, _USER, "
        "_PASSWORD, _DB, otherwise the embedded server",
    )


def _worker_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m reactive_orch",
        description="Run one worker of a replica set: the same command, started again anywhere, shares the work.",
        epilog="Other commands: "
        + "; ".join(f"{name} ({command.description})" for name, command in commands.COMMANDS.items())
        + ". Each has its own --help.",
    )
    parser.add_argument("--replica-set", required=True, metavar="NAME", help="the workers of one name share the log")
    parser.add_argument(
        "--projection",
        action="append",
        default=[],
        metavar="MODULE[:ATTR]",
        help="what to run; a module means all its projections; repeatable (default: a demo that counts events)",
    )
    _add_database(parser)
    defaults = Config(database_url="")
    for option, kind, default, unit, meaning in (
        ("--batch", int, defaults.batch_events, "EVENTS", "events per transaction, at most"),
        ("--heartbeat", float, defaults.heartbeat_s, "SECONDS", "how often a worker says that it lives"),
        ("--stale-after", float, defaults.stale_after_s, "SECONDS", "without a heartbeat for so long it is removed"),
        ("--retries", int, defaults.retries, "N", "of a failing event, before the worker stops"),
    ):
        parser.add_argument(option, type=kind, default=default, metavar=unit, help=f"{meaning} (default: {default:g})")
    parser.add_argument("--until-idle", action="store_true", help="handle what is settled now, then leave and exit")
    parser.add_argument("--migrate", action="store_true", help="apply missing schema steps first")
    parser.add_argument("--http", metavar="HOST:PORT", help="for health; default 127.0.0.1:8080 or the next free port")
    parser.add_argument(
        "--metrics", action=argparse.BooleanOptionalAction, default=True, help="serve /metrics beside health"
    )
    parser.add_argument("--trace-events", action="store_true", help="a span for each event, besides those for batches")
    parser.add_argument(
        "--log-format", choices=FORMATS, default="auto", help="auto: text on a terminal, JSON elsewhere"
    )
    return parser


def _heed_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what the event loop has to say, but for the future that asyncpg leaves of an attempt to connect."""
    error = context.get("exception")
    if not (isinstance(error, ConnectionError) and str(error) == "unexpected connection_lost() call"):
        loop.default_exception_handler(context)


async def _run(options: argparse.Namespace) -> None:
    asyncio.get_running_loop().set_exception_handler(_heed_loop)
    if options.command is not None:
        url, _ = await _database(options, os.environ)
        await options.command.run(options, url)
        return
    try:
        async with lasting_group() as tasks:
            with anyio.CancelScope() as scope:
                stop = _Stop(scope.cancel)
                await tasks.start(_heed_signals, stop)
                with last_resort.awaited(explain):
                    await _serve(options, stop)
            tasks.cancel_scope.cancel()
    finally:
        last_resort.at_signals()


def _stop(worker: Worker, grace_s: float) -> None:
    last_resort.end_after(grace_s)
    worker.stop()


class _Stop:
    """What the first signal does: cancel what is being started, later ask the worker to leave."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act


async def _heed_signals(stop: _Stop, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        asked = False
        async for _ in signals:
            if asked:
                # At once: batches in flight are rolled back by the server, the free lock tells the others.
                os._exit(EXIT_FAILED)
            asked = True
            stop.act()


async def _serve(options: argparse.Namespace, stop: _Stop) -> None:
    check_name("replica-set", options.replica_set)
    host, port = _http_address(options.http)
    projections = _projections(options.projection)
    config = _config(options)
    url, embedded = await _database(options, os.environ)
    config = replace(config, database_url=url)
    log_to(sys.stderr, options.log_format)
    if options.migrate or embedded:
        await commands.migrate(url)
    node = Node(config)
    worker = Worker(node, options.replica_set, projections, until_idle=options.until_idle)
    from reactive_orch.http.server import Pages, serving

    metrics = partial(prometheus.page, REGISTRY) if options.metrics else None
    pages = Pages(health=lambda: _health(node, worker), metrics=metrics)
    with exporting(os.environ):
        async with serving(pages, host, port) as base, node:
            _say_hello(url, embedded=embedded, worker=worker, projections=projections, base=base)
            stop.act = partial(_stop, worker, config.grace_s)
            # Where it ends otherwise, handlers that do not heed their cancellation would hold up what comes after.
            node.departures.left = partial(last_resort.end_after, 0.0, explain)
            await worker.run()


def _config(options: argparse.Namespace) -> Config:
    """Return the options, checked before anything is started for them; the database's address is still to come."""
    return Config(
        database_url="",
        batch_events=options.batch,
        heartbeat_s=options.heartbeat,
        stale_after_s=options.stale_after,
        retries=options.retries,
        trace_events=options.trace_events,
    )


def _health(node: Node, worker: Worker) -> tuple[Verdict, Mapping[str, Any]]:
    facts = worker.facts()
    verdict = assess(facts)
    return verdict, {
        "status": worker.state.value,
        "health": verdict.word,
        "reasons": verdict.reasons,
        "age_s": round(facts.age_s, 3),
        "replica_set": worker.replica_set,
        "worker": worker.member,
        "generation": worker.generation,
        "partitions": {name: len(held) for name, held in worker.partitions.items()},
        "events_handled": dict(worker.events_handled),
        "settled_position": node.follower.settled,
        "frontier_held_s": round(node.follower.held_s, 3),
    }


def _say_hello(url: str, *, embedded: bool, worker: Worker, projections: Sequence[Projection], base: str) -> None:
    _logger.info("database %s%s", shown(url), " (embedded)" if embedded else "")
    _logger.info("replica set %s, projections %s", worker.replica_set, ", ".join(p.name for p in projections))
    _logger.info("health %s/healthz", base, extra={"event": "listening", "url": base})


async def _database(options: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return the database's URI, and whether it is the embedded server's."""
    given = options.database_url
    if given is None:
        given = environment.get("DATABASE_URL") or None
    if given is not None:
        return database_url(given, environment), False
    parts = database_url_of_parts(environment)
    if parts is not None:
        return parts, False
    from reactive_orch.postgres import embedded

    # Given up by a signal: its programs go on by themselves, and the next start finds what they have made.
    return await abandonable(partial(embedded.start, say=say)), True


def _http_address(text: str | None) -> tuple[str, int | None]:
    if text is None:
        return "127.0.0.1", None
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        msg = f"--http {text!r}: give HOST:PORT, for instance 0.0.0.0:8080"
        raise ConfigError(msg)
    return host.strip("[]"), int(port)


def _projections(names: Sequence[str]) -> list[Projection]:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found = [projection for name in names or ["reactive_orch.demo"] for projection in _projections_of(name)]
    unique = {id(projection): projection for projection in found}  # a module and one of its attributes may overlap
    return list(unique.values())


def _projections_of(name: str) -> list[Projection]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ReactiveOrchError:
        raise
    except (Exception, SystemExit) as error:
        msg = f"--projection {name}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    if attribute:
        one = getattr(module, attribute, None)
        if not isinstance(one, Projection):
            msg = f"--projection {name}: {module_name} has no projection {attribute!r}"
            raise ConfigError(msg)
        return [one]
    found = [value for value in vars(module).values() if isinstance(value, Projection)]
    if not found:
        msg = f"--projection {name}: the module holds no projection (a function under @projection(...))"
        raise ConfigError(msg)
    return found

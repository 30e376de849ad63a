"""Running a worker: from its options to its end, with its pages and its telemetry."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, get_args

import anyio

from reactive_orch.commands.command import connected
from reactive_orch.commands.database import database_of
from reactive_orch.commands.loading import DEMO, projections_of
from reactive_orch.commands.migrate import migrate
from reactive_orch.commands.parser import seconds, whole_number
from reactive_orch.commands.until_idle import progress_until_idle
from reactive_orch.config import DEFAULTS, Config, shown
from reactive_orch.errors import ConfigError
from reactive_orch.model import OnError, Projection, check_name
from reactive_orch.postgres import migrations
from reactive_orch.postgres import projections as recorded
from reactive_orch.process import last_resort
from reactive_orch.process.explaining import EXIT_FAILED, explain
from reactive_orch.process.streams import StandardError, say
from reactive_orch.runtime.cancellation import lasting_group
from reactive_orch.runtime.node import Node
from reactive_orch.runtime.worker import Worker
from reactive_orch.telemetry import prometheus
from reactive_orch.telemetry.exporting import exporting
from reactive_orch.telemetry.logs import FORMATS, is_text, log_to
from reactive_orch.telemetry.observers import default_observers
from reactive_orch.telemetry.registry import REGISTRY
from reactive_orch.telemetry.tracebacks import TRACEBACKS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from anyio.abc import TaskStatus

    from reactive_orch.http.page import StatusPage
    from reactive_orch.model.reports import Observer

_logger = logging.getLogger("reactive_orch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a worker's options."""
    parser.add_argument(
        "--replica-set", required=True, metavar="NAME", help="the workers of one name share the log; 1 to 63 bytes"
    )
    parser.add_argument(
        "--projection",
        action="append",
        default=[],
        metavar="MODULE[:ATTR]",
        help="what to run; a module means all its projections; repeatable (default, where nothing else is run: a demo)",
    )
    _add_limits(parser)
    parser.add_argument(
        "--on-error",
        choices=get_args(OnError),
        default=DEFAULTS.on_error,
        help="after the last retry: the event's key waits for somebody and all others go on, or the projection rests "
        f"on all workers; {_before('on_error')} (default: {DEFAULTS.on_error})",
    )
    parser.add_argument(
        "--until-idle",
        action="store_true",
        help="handle what is settled now, leave, exit: 0, also if keys are parked; 2 if a projection was refused",
    )
    parser.add_argument(
        "--migrate", action="store_true", help="apply missing schema steps first, as the embedded server always does"
    )
    _add_arguments_of_http(parser)
    parser.add_argument("--trace-events", action="store_true", help="a span for each event, besides those for batches")
    parser.add_argument(
        "--log-format", choices=FORMATS, default="auto", help="auto: text on a terminal, JSON elsewhere"
    )
    parser.add_argument(
        "--log-tracebacks",
        action=argparse.BooleanOptionalAction,
        help="of an event's first failure, with the values that they quote (default: on a terminal)",
    )


def _add_arguments_of_http(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--http", metavar="HOST:PORT", help="for health; default 127.0.0.1:8080 or the next free port")
    parser.add_argument(
        "--metrics", action=argparse.BooleanOptionalAction, default=True, help="serve /metrics beside health"
    )
    parser.add_argument("--page", action=argparse.BooleanOptionalAction, default=True, help="serve the page for people")
    parser.add_argument(
        "--page-host",
        action="append",
        default=[],
        metavar="NAME",
        help="by this name, too, the page may be asked for, as behind a proxy; repeatable",
    )
    parser.add_argument("--page-payloads", action="store_true", help="the page shows payloads of failing events")
    parser.add_argument(
        "--trace-url",
        type=trace_url,
        metavar="URL",
        help="where traces are shown, with {trace_id} in it, for links of the page",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    silence = "silent for so long it is removed by the others; three heartbeats or more"
    for option, kind, default, unit, meaning in (
        ("--batch", whole_number, DEFAULTS.batch_events, "EVENTS", "events per transaction, at most"),
        ("--heartbeat", seconds, DEFAULTS.heartbeat_s, "SECONDS", "how often a worker says that it lives"),
        ("--stale-after", seconds, DEFAULTS.stale_after_s, "SECONDS", silence),
        (
            "--handler-timeout",
            seconds,
            DEFAULTS.handler_timeout_s,
            "SECONDS",
            f"of one call of a handler; {_before('timeout')}",
        ),
        ("--retries", whole_number, DEFAULTS.retries, "N", f"of a failing event; {_before('retries')}"),
        (
            "--connections",
            whole_number,
            DEFAULTS.connections_max,
            "N",
            "all that the process may have open, 6 or more, but for the page's",
        ),
    ):
        parser.add_argument(option, type=kind, default=default, metavar=unit, help=f"{meaning} (default: {default:g})")


def _before(option: str) -> str:
    return f"a projection's {option}= comes before it"


async def run(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Run one worker until it is done, or a signal asks it to leave; a second one ends the process at once.

    Raises ConfigError for options that cannot be, and what `Node` and `Worker.run` raise.
    """
    try:
        async with lasting_group() as tasks:
            with anyio.CancelScope() as scope:
                stop = _Stop(scope.cancel)
                await tasks.start(_heed_signals, stop)
                with last_resort.awaited(explain):
                    await _serve(options, environment, stop)
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
                say("a second signal: ended at once, what was in hand is rolled back and handled by others")
                os._exit(EXIT_FAILED)
            asked = True
            stop.act()


async def _serve(options: argparse.Namespace, environment: Mapping[str, str], stop: _Stop) -> None:
    check_name("replica-set", options.replica_set)
    host, port = http_address(options.http)
    projections = projections_of(options.projection)
    config = _config(options)
    url, embedded = await database_of(options.database_url, environment)
    config = replace(config, database_url=url)
    log_to(StandardError(), options.log_format)
    if options.migrate or embedded:
        await migrate(url)
    node = Node(config, _observers(tracebacks=options.log_tracebacks))
    worker = Worker(node, options.replica_set, projections, until_idle=options.until_idle)
    from reactive_orch.http.health import health
    from reactive_orch.http.server import Pages, serving

    metrics = partial(prometheus.page, REGISTRY) if options.metrics else None
    pages = Pages(health=lambda: health(node, worker), metrics=metrics, status=_page(options, url, host, worker))
    with exporting(environment):
        async with serving(pages, host, port) as base, node:
            if not options.projection:
                await _demand_demo_alone(url, options.replica_set, {each.name for each in projections})
            _say_hello(url, embedded=embedded, worker=worker, projections=projections, base=base)
            if options.page:
                _logger.info("page %s/", base)
            stop.act = partial(_stop, worker, config.grace_s)
            # When it ends unasked: handlers that do not heed their cancellation must not hold up what comes after.
            node.departures.left = partial(last_resort.end_after, 0.0, explain)
            shows = options.until_idle and is_text(sys.stderr, options.log_format)
            async with progress_until_idle(node, worker, silent=not shows):
                await worker.run()


async def _demand_demo_alone(url: str, replica_set: str, demo: Collection[str]) -> None:
    """Raise ConfigError where the demo would join other projections: somebody has forgotten to name them."""
    async with connected(url) as connection:
        await migrations.check(connection)
        others = await recorded.names(connection, replica_set) - set(demo)
    if others:
        msg = (
            f"replica set {replica_set} has projections already ({', '.join(sorted(others))}): "
            f"say what to run by --projection ({DEMO} is the demo, which is run in a replica set without others)"
        )
        raise ConfigError(msg)
    _logger.warning("no --projection says what to run: this is the demo, which counts events")


def _observers(*, tracebacks: bool | None) -> list[Observer]:
    asked = sys.stderr.isatty() if tracebacks is None else tracebacks
    return [*default_observers(), *([TRACEBACKS] if asked else [])]


def _config(options: argparse.Namespace) -> Config:
    """Return the options, checked before anything is started for them; the database's address is still to come."""
    return Config(
        database_url=DEFAULTS.database_url,
        batch_events=options.batch,
        heartbeat_s=options.heartbeat,
        stale_after_s=options.stale_after,
        handler_timeout_s=options.handler_timeout,
        retries=options.retries,
        connections_max=options.connections,
        on_error=options.on_error,
        trace_events=options.trace_events,
    )


def http_address(text: str | None) -> tuple[str, int | None]:
    """Return host and port to serve at; None for the port: the first free one. Raises ConfigError."""
    if text is None:
        return "127.0.0.1", None
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[^/\s]+", host) or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        msg = f"--http {text!r}: give HOST:PORT, for instance 0.0.0.0:8080"
        raise ConfigError(msg)
    return host.strip("[]"), int(port)


def _page(options: argparse.Namespace, url: str, host: str, worker: Worker) -> StatusPage | None:
    if not options.page:
        return None
    from reactive_orch.http.page import PageOptions, StatusPage

    return StatusPage(
        url=url,
        replica_set=worker.replica_set,
        served_by=lambda: worker.member,
        options=PageOptions(
            hosts=(host, *options.page_host), trace_url=options.trace_url, payloads=options.page_payloads
        ),
    )


def trace_url(text: str) -> str:
    """Return where traces are shown. Raises ArgumentTypeError."""
    if not re.fullmatch(r"https?://\S+", text) or "{trace_id}" not in text:
        msg = f"{text!r}: give a URL with {{trace_id}} in it, for instance http://localhost:16686/trace/{{trace_id}}"
        raise argparse.ArgumentTypeError(msg)
    return text


def _say_hello(url: str, *, embedded: bool, worker: Worker, projections: Sequence[Projection], base: str) -> None:
    _logger.info("database %s%s", shown(url), " (embedded)" if embedded else "")
    _logger.info("replica set %s, projections %s", worker.replica_set, ", ".join(p.name for p in projections))
    _logger.info("health %s/healthz", base, extra={"event": "listening", "url": base})

"""Telemetry without a database: the tables, the registry, the pages, the lines, the routes."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import io
import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from reactive_orch.errors import ConfigError, HandlerFailed, Superseded, Unavailable, kind_of
from reactive_orch.model import OWN_LOG, Change, Event, MemberId, Reason, Snapshot, Subscription, Turn, traces
from reactive_orch.model.membership import RestingState
from reactive_orch.model.reports import BatchEnded, Subject, Untraced
from reactive_orch.postgres import membership
from reactive_orch.runtime.handling.in_hand import Watched
from reactive_orch.runtime.membership.change import write_generation
from reactive_orch.telemetry import lines, metric_names, metrics, table
from reactive_orch.telemetry.by_type import by_type
from reactive_orch.telemetry.exporting import exporting
from reactive_orch.telemetry.logs import Json, Text, log_to
from reactive_orch.telemetry.metric_names import METRICS, Kind
from reactive_orch.telemetry.observers import watchers
from reactive_orch.telemetry.outage import Outage
from reactive_orch.telemetry.prometheus import page
from reactive_orch.telemetry.registry import Registry
from reactive_orch.telemetry.routes import Route, route
from reactive_orch.telemetry.span_names import ATTRIBUTES, SPANS
from reactive_orch.telemetry.spans import tracer
from reactive_orch.telemetry.spans.adoption import ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNBOUNDED = ("generation", "member", "event", "partition", "position", "message", "id")


class WithState(Exception):
    sqlstate = "23505"


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_the_page_of_tables_is_up_to_date() -> None:
    page = (ROOT / "otel/METRICS.md").read_text()
    assert page.splitlines() == [*table.markdown()], "python -m reactive_orch.telemetry.table > otel/METRICS.md"


def test_each_attribute_of_a_span_says_what_it_means() -> None:
    used = {key for span in SPANS for key in span.attributes if key.startswith("reactive_orch.")}
    assert used == ATTRIBUTES.keys()


def test_names_are_unique() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert len({metric.prometheus for metric in METRICS}) == len(METRICS)
    assert len({span.name for span in SPANS}) == len(SPANS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_no_metric_has_an_unbounded_attribute(metric: metric_names.Metric) -> None:
    words = {word for key in metric.attributes for word in re.split(r"[._]", key)}
    assert not words.intersection(UNBOUNDED)
    assert not set(metric.attributes) & set(metric.constants)
    assert metric.meaning
    assert list(metric.buckets) == sorted(metric.buckets)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("reactive_orch.rebalance.duration", "reactive_orch_rebalance_duration_seconds"),
        ("reactive_orch.batches", "reactive_orch_batches_total"),
        ("reactive_orch.notification_queue.utilization", "reactive_orch_notification_queue_utilization_ratio"),
        ("reactive_orch.generation", "reactive_orch_generation"),
    ],
)
def test_prometheus_names(name: str, shown: str) -> None:
    assert next(metric for metric in METRICS if metric.name == name).prometheus == shown


def test_only_names_of_the_tables_are_used() -> None:
    """Whatever looks like one of our attributes in the code is in a table."""
    known = {key for span in SPANS for key in span.attributes} | {metric.name for metric in METRICS}
    known |= {"reactive_orch.link.type"}
    for path in (ROOT / "reactive_orch/telemetry").rglob("*.py"):
        if path.name not in {"metric_names.py", "span_names.py"}:
            used = set(re.findall(r'"(reactive_orch\.[a-z_.]+)"', path.read_text()))
            assert used <= known | {"reactive_orch.telemetry.table"}, path.name


def samples(registry: Registry) -> dict[str, str]:
    """Return the lines of the page, as a Prometheus server reads them."""
    body, _ = page(registry, "")
    return {
        f"{one.name}{_shown(one.labels)}": f"{one.value:g}"
        for family in text_string_to_metric_families(body.decode())
        for one in family.samples
    }


def _shown(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{labels[name]}"' for name in sorted(labels)) + "}" if labels else ""


ONE = Subject("set", "one", OWN_LOG)


def test_counters() -> None:
    registry = Registry()
    registry.count(metric_names.BATCHES, *ONE, "committed")
    registry.count(metric_names.BATCHES, *ONE, "committed", amount=2)
    registry.count(metric_names.BATCHES, *ONE, "error")
    assert samples(registry) == {
        'reactive_orch_batches_total{log="events",outcome="committed",projection="one",replica_set="set"}': "3",
        'reactive_orch_batches_total{log="events",outcome="error",projection="one",replica_set="set"}': "1",
    }


def test_a_scope_begins_with_its_counters_at_zero() -> None:
    registry = Registry()
    registry.count(metric_names.GENERATIONS, "set", "join")
    registry.begin("set")
    found = samples(registry)
    assert found['reactive_orch_generations_total{reason="join",replica_set="set"}'] == "1", "left as it is"
    assert found['reactive_orch_generations_total{reason="death",replica_set="set"}'] == "0"
    assert found['reactive_orch_registrations_total{replica_set="set"}'] == "0"
    assert all('replica_set="set"' in name for name in found)
    registry.begin()
    assert samples(registry)['reactive_orch_wakeups_total{loop="tail",source="timer"}'] == "0"
    registry.begin(*ONE)
    assert (
        samples(registry)[
            'reactive_orch_batches_total{log="events",outcome="error",projection="one",replica_set="set"}'
        ]
        == "0"
    )
    assert not any("interruptions" in name for name in samples(registry)), (
        "of no replica set, whose labels are not known"
    )


def test_histograms_are_cumulative() -> None:
    registry = Registry()
    for value in (0.5, 1.0, 1.5, 7.0, 99999.0):
        registry.record(metric_names.BATCH_SIZE, value, *ONE)
    found = samples(registry)
    labels = 'log="events",projection="one",replica_set="set"'
    assert found[f'reactive_orch_batch_size_bucket{{le="1.0",{labels}}}'] == "2", "a bound belongs to its bucket"
    assert found[f'reactive_orch_batch_size_bucket{{le="2.0",{labels}}}'] == "3"
    assert found[f'reactive_orch_batch_size_bucket{{le="5000.0",{labels}}}'] == "4"
    assert found[f'reactive_orch_batch_size_bucket{{le="+Inf",{labels}}}'] == "5"
    assert found[f"reactive_orch_batch_size_count{{{labels}}}"] == "5"
    assert found[f"reactive_orch_batch_size_sum{{{labels}}}"] == "100009"


def test_gauges_are_asked_for_while_they_are_observed() -> None:
    registry = Registry()
    with registry.observed(lambda: [(metric_names.GENERATION, 7.0, ("set",)), (metric_names.LISTENER_AGE, 0.5, ())]):
        assert samples(registry) == {
            'reactive_orch_generation{replica_set="set"}': "7",
            "reactive_orch_listener_age_seconds": "0.5",
        }
    assert samples(registry) == {}


def test_labels_are_escaped_and_empty_ones_left_out() -> None:
    registry = Registry()
    registry.count(metric_names.PROJECTION_ERRORS, 'a"b\\c', "new\nline", OWN_LOG, "")
    body, _ = page(registry, "")
    line = r'reactive_orch_projection_errors_total{log="events",projection="new\nline",replica_set="a\"b\\c"} 1.0'
    assert line in body.decode().splitlines()


def test_every_metric_has_help_and_type() -> None:
    body, content_type = page(Registry(), "")
    assert content_type.startswith("text/plain; version=0.0.4")
    for metric in METRICS:
        told = f"# HELP {metric.prometheus} {metric.meaning}\n# TYPE {metric.prometheus} {metric.kind.value}\n"
        assert told in body.decode()


def test_open_metrics_names_the_trace_of_a_measurement() -> None:
    registry = Registry()
    for traceparent in (TRACEPARENT, TRACEPARENT[:-1] + "0", None):  # of those that were not sampled nobody finds one
        registry.record(metric_names.REBALANCE_DURATION, 0.4, "set", "join", "settled", traceparent=traceparent)
    registry.record(metric_names.REBALANCE_DURATION, 60.5, "set", "join", "settled")
    body, content_type = page(registry, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = open_metrics(body.decode())  # type: ignore[no-untyped-call] # the client's parser has no types
    found = [one.exemplar for family in families for one in family.samples if one.exemplar]
    assert [(one.labels["trace_id"], one.labels["span_id"], one.value) for one in found] == [
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 0.4)
    ]


def test_counting_twice_is_no_new_series() -> None:
    registry = Registry()
    for _ in range(10):
        registry.record(metric_names.REBALANCE_DURATION, 0.1, "set", "join", "settled")
    assert len(registry.distributions[metric_names.REBALANCE_DURATION]) == 1
    assert all(metric.kind is Kind.COUNTER for metric in registry.sums)


@pytest.mark.parametrize(
    "text",
    [None, "", "nonsense", TRACEPARENT + "-more", TRACEPARENT.upper(), TRACEPARENT.replace("00-", "01-", 1), "0" * 55],
)
def test_a_malformed_traceparent_is_none(text: str | None) -> None:
    assert traces.trace_id(text) is None
    assert tracer.span_context(text) is None


def test_a_traceparent_survives() -> None:
    assert traces.trace_id(TRACEPARENT) == "0af7651916cd43dd8448eb211c80319c"
    context = tracer.span_context(TRACEPARENT)
    assert context is not None
    assert (f"{context.span_id:016x}", context.is_remote) == ("b7ad6b7169203331", True)
    assert tracer.span_context(f"00-{'0' * 32}-{'0' * 16}-01") is None


async def test_a_generation_whose_commit_is_unknown_has_a_root(
    finished: Callable[[], tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who see it will tell of it as children of the traceparent in its row."""
    given = []

    async def lost(_connection: object, _turn: Turn, _new: Change, traceparent: str) -> None:
        given.append(traceparent)
        raise Unavailable("hush") from ConnectionResetError("hush")  # noqa: EM101

    monkeypatch.setattr(membership, "change", lost)
    snapshot = Snapshot(generation=1, members=(), owners={})
    new = Change(
        after=1, reason=Reason.JOIN, subjects=(MemberId(2),), admit=(MemberId(2),), remove=(), owners={}, moved=0
    )
    turn = Turn("set", MemberId(2), "notify", time.time_ns())
    turn.observed_ns = time.time_ns()
    with pytest.raises(Unavailable):
        await write_generation(cast("Any", None), turn, snapshot, new, watchers())
    root, announcement = finished()
    assert ([tracer.traceparent_of(announcement)], announcement.parent.span_id) == (given, root.context.span_id)
    assert (root.name, root.parent, root.status.is_ok) == ("rebalance set", None, False)
    assert root.attributes["error.type"] == "ConnectionResetError"
    assert "hush" not in root.to_json()


async def test_without_a_tracer_a_generation_has_a_traceparent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ties together what others tell who do trace."""
    given = []

    async def overtaken(_connection: object, _turn: Turn, _new: Change, traceparent: str) -> None:
        given.append(traces.trace_id(traceparent))

    monkeypatch.setattr(membership, "change", overtaken)
    snapshot = Snapshot(generation=1, members=(), owners={})
    new = Change(after=1, reason=Reason.JOIN, subjects=(), admit=(), remove=(), owners={}, moved=0)
    for _ in range(2):
        turn = Turn("set", MemberId(2), "notify", time.time_ns())
        await write_generation(cast("Any", None), turn, snapshot, new, watchers([], Untraced()))
    assert len({trace for trace in given if trace}) == 2


@pytest.mark.parametrize(
    ("failure", "outcome", "error_type"),
    [
        (Superseded("hush"), "conflict", "checkpoint_conflict"),
        (caused(Superseded("hush"), WithState("hush")), "conflict", "23505"),
        (caused(Unavailable("hush"), OSError("hush")), "unknown", "OSError"),
        (caused(HandlerFailed("hush"), ValueError("hush")), "error", "ValueError"),
        (KeyboardInterrupt(), "cancelled", "KeyboardInterrupt"),
    ],
)
def test_what_becomes_of_a_batch_that_is_rolled_back(
    finished: Callable[[], tuple[Any, ...]], failure: BaseException, outcome: str, error_type: str
) -> None:
    event = Event._make(range(len(Event._fields)))._replace(metadata_json="{}")
    with contextlib.suppress(BaseException), Watched(watchers(), ONE, 7, [event]):
        raise failure
    (span,) = finished()
    found = {key: span.attributes[key] for key in ("reactive_orch.outcome", "error.type", "reactive_orch.generation")}
    assert [*found.values()] == [outcome, error_type, 7]
    assert not span.status.is_ok
    assert "hush" not in span.to_json()


def test_nothing_is_imported_without_need() -> None:
    code = (
        "import sys, reactive_orch.cli; from reactive_orch.telemetry import metrics, registry; "
        "from reactive_orch.telemetry.spans import batch, tracer; metrics.bridge(registry.REGISTRY); tracer.flush(); "
        "assert tracer.current_traceparent() is None; assert tracer.get() is None; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google', 'grpc'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)  # noqa: S603
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        ({}, ""),
        ({"sales": [0, 1, 2, 3, 7, 9, 10]}, "sales:0-3,7,9-10"),
        ({"sales": [5], "audit": [3, 1, 2]}, "audit:1-3 sales:5"),
        ({"sales": []}, "sales:"),
    ],
)
def test_ranges(held: dict[str, list[int]], shown: str) -> None:
    assert ranges({Subscription(name, OWN_LOG): partitions for name, partitions in held.items()}) == shown


NONE = Route()
HTTP = Route("otlp", "http/protobuf")
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "traces", "metrics"),
    [
        ({}, NONE, NONE),
        (
            {"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            Route("none", "grpc"),
            Route("none", "grpc"),
        ),
        (ENDPOINT, HTTP, HTTP),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, NONE, NONE),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, NONE, HTTP),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "prometheus"}, HTTP, NONE),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Route("otlp", "grpc"), Route("otlp", "grpc")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, HTTP, NONE),
        ({"OTEL_TRACES_EXPORTER": "console"}, Route("console"), NONE),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, Route("otlp", "grpc"), NONE),
    ],
)
def test_the_environment_decides(environment: dict[str, str], traces: Route, metrics: Route) -> None:
    assert (route(environment, "TRACES"), route(environment, "METRICS")) == (traces, metrics)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_METRICS_EXPORTER": "x"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
    ],
)
def test_what_is_not_known_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="OTEL_"), exporting(environment):
        pass


def test_what_the_sdk_does_not_accept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "-1")
    with pytest.raises(ConfigError, match=r"OTEL_.*-1"), exporting({"OTEL_METRICS_EXPORTER": "console"}):
        pass


def record(message: str, *args: object, exc_info: Any = None, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("reactive_orch", logging.INFO, __file__, 1, message, args, exc_info)
    vars(made).update(extra)
    return made


def test_a_json_line() -> None:
    line = Json().format(record("adopted\nin %d ms ü", 7, event="adopted", generation=3, trace_id="ab", secret="x"))  # noqa: S106
    found = json.loads(line)
    assert "\n" not in line
    assert "ü" in line
    assert found.pop("time").endswith("Z")
    assert len(found.pop("service.instance.id")) == 36
    assert found == {
        "level": "info",
        "message": "adopted in 7 ms ü",
        "event": "adopted",
        "generation": 3,
        "trace_id": "ab",
    }


def test_a_text_line() -> None:
    line = Text().format(record("adopted\nin %d ms", 7, trace_id="ab"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    adopted in 7 ms trace_id=ab", line)


def test_an_exception_is_named_and_not_quoted() -> None:
    try:
        raise ValueError("hush")  # noqa: EM101, TRY301
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    for formatter in (Text(), Json()):
        line = formatter.format(made)
        assert "failed: ValueError" in line
        assert "hush" not in line


def test_a_task_that_nobody_awaited_is_one_line_without_its_words(said: list[str]) -> None:
    async def fail() -> None:
        raise ValueError("hush")  # noqa: EM101

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task
        gc.collect()

    asyncio.run(forget())
    (line,) = said
    assert re.search(r"Task exception was never retrieved: ValueError at \S+test_telemetry.py:\d+\n", line)
    assert "hush" not in line


def test_a_traceback_stands_below_its_line_in_text_and_is_a_field_in_json() -> None:
    record = logging.makeLogRecord({"msg": "how it failed", "traceback": "Traceback:\n  line\nKeyError: 'x'\n"})
    assert Text().format(record).endswith("how it failed\n    Traceback:\n      line\n    KeyError: 'x'")
    assert json.loads(Json().format(record))["traceback"] == "Traceback:\n  line\nKeyError: 'x'\n"


def test_the_page_names_the_event_of_every_line() -> None:
    said = r'"event": "(\w+)"|(?:fields|_told)\("(\w+)"(?:, "(\w+)")?'
    code = "".join(path.read_text() for path in (ROOT / "reactive_orch").rglob("*.py"))
    words = (ROOT / "docs/seeing.md").read_text().partition("Events are ")[2].partition(". When")[0]
    events = {event or second or first for event, first, second in re.findall(said, code)}
    of_problems = {"problem", "solved"}.union(*lines._TOLD.values()) - {""}  # noqa: SLF001 - it is the table of them
    assert set(re.findall(r"`(\w+)`", words)) == events | of_problems | set(get_args(RestingState))


@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_a_stream_that_is_no_terminal_gets_json(form: str, *, is_json: bool) -> None:
    loggers = [logging.getLogger(name) for name in ("reactive_orch", "opentelemetry", "asyncio")]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    stream = io.StringIO()
    try:
        log_to(stream, form)
        logging.getLogger("reactive_orch").info("hello")
    finally:
        for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
            each.handlers[:], each.level, each.propagate = handlers, level, propagate
    assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("hush"), "ValueError"),
        (WithState("hush"), "23505"),
        (HandlerFailed("hush"), "HandlerFailed"),
        (caused(HandlerFailed("hush"), WithState("hush")), "23505"),
        (caused(Unavailable("hush"), caused(Superseded("x"), OSError("hush"))), "OSError"),
        (type("Liar", (Exception,), {"sqlstate": "a whole sentence"})(), "Liar"),
        (type("Liar", (Exception,), {"sqlstate": "hush1"})(), "Liar"),
    ],
)
def test_what_may_be_told_of_an_error(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


def test_types_of_errors_without_end_are_not_counted_apart() -> None:
    registry = Registry()
    observe = by_type(metrics.Metrics(registry, lambda _: None).handles)
    for n in range(1000):
        failure = caused(HandlerFailed("hush"), type(f"OrderNotFound{n}", (Exception,), {})())
        observe(BatchEnded(ONE, [], 0.1, failure, None))
    counted = registry.sums[metric_names.PROJECTION_ERRORS]
    assert len(counted) == metrics.ERROR_TYPES_MAX + 1
    assert counted[*ONE, "_OTHER"] == 1000 - metrics.ERROR_TYPES_MAX


def test_the_allowance_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from reactive_orch.telemetry import sdk

    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    allowance = sdk.Allowance(50)
    assert sum(allowance.take() for _ in range(200)) == 50, "a burst"
    clock[0] += 0.5
    assert sum(allowance.take() for _ in range(200)) == 25
    clock[0] += 3600
    assert sum(allowance.take() for _ in range(200)) == 50, "what was not used long ago is gone"


class Result(enum.Enum):
    SUCCESS = 0
    FAILURE = 1


def refused() -> Result:
    logger = logging.getLogger("opentelemetry.exporter")
    for attempt in range(3):
        logger.warning("Transient error %s, retrying in %.2fs: %s", ConnectionError("hush"), attempt / 2, "spans")
    return Result.FAILURE


def broken() -> Result:
    raise OSError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written, by this package and by OpenTelemetry's."""
    lines: list[str] = []
    stream = io.StringIO()
    monkeypatch.setattr(stream, "write", lines.append)
    for name in ("reactive_orch", "opentelemetry", "asyncio"):
        logger = logging.getLogger(name)
        for attribute in ("handlers", "level", "propagate"):
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))
        monkeypatch.setattr(logger, "handlers", [])
    log_to(stream, "text")
    return lines


def test_an_outage_is_told_of_when_it_begins_and_when_it_ends(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    outage = Outage("traces")

    def sent(export: Callable[[], Result], after_s: float) -> list[str]:
        clock[0] += after_s
        said.clear()
        with contextlib.suppress(OSError):
            outage.attempt(export)
        return [line.split(maxsplit=2)[2].strip() for line in said]

    failing = "traces cannot be exported and are dropped until it works again: ConnectionError"
    assert sent(lambda: Result.SUCCESS, 0) == []
    assert sent(refused, 1) == [failing]
    assert sent(refused, 3600) == []
    assert sent(lambda: Result.SUCCESS, 1) == ["traces are exported again"]
    assert sent(lambda: Result.SUCCESS, 1) == []
    assert sent(broken, 3600) == [failing]
    assert sent(lambda: Result.SUCCESS, 1) == ["traces are exported again"]
    assert sent(refused, 1) == [], "too soon after the last time"
    assert sent(refused, 60) == [failing]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("Service Unavailable", "spans", 1.5), "Service Unavailable"),
        (("metrics", 401, "Unauthorized"), "401 Unauthorized"),
        ((Result.FAILURE, "traces", "collector:4317", 1.5, "all of it: no"), "FAILURE"),
        (("spans",), "no reason given"),
    ],
)
def test_the_reason_of_an_outage(said: list[str], arguments: tuple[object, ...], reason: str) -> None:
    def fail() -> Result:
        logging.getLogger("opentelemetry.exporter").error(" ".join(["%s"] * len(arguments)), *arguments)
        return Result.FAILURE

    Outage("metrics").attempt(fail)
    (line,) = said
    assert line.endswith(f": {reason}\n")


def test_what_opentelemetry_complains_of_is_said_once(said: list[str]) -> None:
    for _ in range(3):
        logging.getLogger("opentelemetry.sdk").warning("Invalid value %s", "abc")
        logging.getLogger("opentelemetry.util.re").warning("Header invalid: %s", "Bearer hush")
        logging.getLogger("reactive_orch").info("hello")
    assert [line.split(maxsplit=2)[2].strip() for line in said] == [
        "Invalid value abc",
        "OTEL_EXPORTER_OTLP_HEADERS is not NAME=VALUE, with commas between; left out",
        *["hello"] * 3,
    ]

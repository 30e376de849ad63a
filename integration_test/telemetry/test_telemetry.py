"""What can be seen from outside: traces, metrics, logs, health; sent to a real receiver by real workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.checkers import generations, wait_all_handle, wait_handled, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.load import Load, append_events, gate_closed
from integration_test.harness.otlp import Mood, Protocol, Receiver, Span
from integration_test.harness.processes import ROOT, WorkerProcess
from integration_test.harness.projections import POISON, handled
from integration_test.harness.telemetry_projections import SECRET
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, NewEvent, Node, Worker, append
from reactive_orch.telemetry.metric_names import METRICS, Kind, Metric
from reactive_orch.telemetry.span_names import SPANS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from integration_test.harness.connections import Connection

QUICK = ("--heartbeat", "0.3", "--stale-after", "2")
OURS = "integration_test.harness.telemetry_projections"


def assert_one_trace_each(
    received: Receiver, rows: Collection[Any], adopted: Mapping[int, set[int]], may_lose: Collection[int] = ()
) -> None:
    """Check every generation's trace. `may_lose`: generations whose root and end the death of a worker may cost."""
    by_generation: dict[int, list[Span]] = defaultdict(list)
    for span in received.spans:
        if span.get("generation") is not None and span.get("coordination"):
            by_generation[span.get("generation")].append(span)
    tree = received.tree()
    for row in rows:
        number = row["number"]
        _, trace, announced, _ = row["traceparent"].split("-")
        # An attempt to write it that was rolled back is a failed root that nobody joins.
        spans = [span for span in by_generation[number] if span.trace == trace or span.parent or not span.error]
        assert {span.trace for span in spans} == {trace}, f"generation {number} is one trace\n{tree}"
        roots = [span.id for span in spans if not span.parent]
        told = [(span.id, span.parent) for span in spans if span.name == "announce generation"]
        assert told == [(announced, root) for root in roots], tree
        assert len(roots) == 1 or (not roots and number in may_lose), tree
        known = {span.id for span in spans} | {announced}
        assert all(span.parent in known for span in spans if span.parent), f"orphans\n{tree}"
        adopts = {s.id: s for s in spans if s.name == "adopt test" and s.get("outcome") == "acknowledged"}
        assert sorted(span.get("member.id") for span in adopts.values()) == sorted(adopted[number]), tree
        said = [adopts[span.parent].get("member.id") for span in spans if span.name == "acknowledge"]
        assert sorted(said) == sorted(adopted[number]), tree
        ends = [span.get("outcome") for span in spans if span.name == "complete test"]
        outcome = "settled" if row["completed_at"] else "superseded"
        assert ends == [outcome] or (not ends and number in may_lose), tree


async def acknowledged(connection: Connection) -> dict[int, set[int]]:
    """Return who has acknowledged which generation."""
    rows = await connection.fetch("SELECT a.generation, a.member FROM reactive_orch.adoptions a")
    members: dict[int, set[int]] = defaultdict(set)
    for row in rows:
        members[row["generation"]].add(row["member"])
    return members


async def all_told(received: Receiver, connection: Connection, may_lose: Collection[int] = ()) -> bool:
    """Tell whether the end of each generation has arrived, and what belongs to it."""
    due = {row["number"] for row in await generations(connection)} - set(may_lose)
    members = [found for number, found in (await acknowledged(connection)).items() if number not in may_lose]
    ended = {span.get("generation") for span in received.named("complete ")}
    roots = {span.get("generation") for span in received.named("rebalance ")}
    told = [s for s in received.named("adopt ") if s.get("generation") not in may_lose]
    adopts = {s.id for s in told if s.get("outcome") == "acknowledged"}
    steps = {s.parent for s in received.named("acknowledge")}
    return due <= ended & roots and len(adopts) == sum(map(len, members)) and adopts <= steps


async def test_every_generation_is_one_trace(database: str) -> None:
    async with (
        Receiver() as received,
        prepared(database) as connection,
        contextlib.AsyncExitStack() as stack,
        Load(database) as load,
    ):

        async def started(name: str, protocol: Protocol = "http/protobuf") -> WorkerProcess:
            worker = WorkerProcess(database, name, options=QUICK, env=received.env(protocol))
            return await (await stack.enter_async_context(worker)).ready()

        a, b = await started("a"), await started("b", "grpc")
        await wait_settled(connection, members=2)
        c = await started("c", "grpc")
        await wait_settled(connection, members=3)
        await wait_all_handle(connection, "abc")
        await c.stop()
        await wait_settled(connection, members=2)
        # What the one that is to die has still to send would be missed for ever.
        await wait_until(lambda: all_told(received, connection), what="all has arrived so far")
        killed = await b.member()
        b.send(signal.SIGKILL)
        await wait_settled(connection, members=1)
        await load.stop()
        await a.stop()
        await wait_until(lambda: all_told(received, connection), what="all has arrived")

        rows = await generations(connection)
        assert [row["reason"] for row in rows] == ["join", "join", "join", "leave", "death", "leave"]
        assert_one_trace_each(received, rows, await acknowledged(connection))
        (detected,) = received.named("detect ")
        assert (detected.name, detected.get("rebalance.subject")) == ("detect death", str(killed))
        assert detected.get("wake.source") in {"watch", "heartbeat", "notify"}
        assert received.encodings == {"gzip"}
        assert len({span.instance for span in received.spans}) == 3
        roots = {span.get("generation"): span for span in received.named("rebalance ")}
        announced = {span.get("generation"): span.id for span in received.named("announce ")}
        links = {number: [link for _, link in span.links] for number, span in roots.items()}
        assert links == {1: [], **{number: [announced[number - 1]] for number in range(2, 7)}}

        shown = await output("trace", "3", "--replica-set", "test", "--database-url", database)
        for part in ("generation 3 of test: join of 3", "settled in", "worker 1", "worker 3", "load", "acknowledge"):
            assert part in shown, shown
        assert rows[2]["traceparent"].split("-")[1] in shown
        assert "generation 6 of test: leave" in await output("trace", "--replica-set=test", "--database-url", database)


async def test_the_death_of_who_decided_leaves_no_orphans(database: str) -> None:
    async with (
        Receiver() as received,
        prepared(database) as connection,
        connected(database) as listener,
        contextlib.AsyncExitStack() as stack,
    ):
        workers: dict[int, WorkerProcess] = {}
        for name in "abcd":
            worker = WorkerProcess(database, name, options=QUICK, env=received.env())
            await (await stack.enter_async_context(worker)).ready()
            workers[await worker.member()] = worker
        before = await wait_settled(connection, members=4)
        # What the two that are to die have still to send would be missed for ever.
        await wait_until(lambda: all_told(received, connection, set()), what="all has arrived so far")
        written = asyncio.Event()
        await listener.add_listener("reactive_orch_generations", lambda *_: written.set())
        first = min(workers)
        workers.pop(first).send(signal.SIGKILL)
        await written.wait()
        decision = (await generations(connection))[-1]
        assert (decision["number"], decision["reason"]) == (before["number"] + 1, "death")
        workers.pop(decision["initiator"]).send(signal.SIGKILL)
        await wait_settled(connection, members=2)
        may_lose = {decision["number"]}
        for worker in workers.values():
            await worker.stop()
        await wait_until(lambda: all_told(received, connection, may_lose), what="all has arrived")
        of_it = [span for span in received.named("adopt test") if span.get("generation") == decision["number"]]
        told = {span.get("member.id") for span in of_it}
        adopted = await acknowledged(connection)
        # Who was killed in this very moment, and no other, may have acknowledged without telling.
        adopted[decision["number"]] &= told | workers.keys()
        assert_one_trace_each(received, await generations(connection), adopted, may_lose)


async def test_an_overtaken_generation_is_closed_and_linked(database: str) -> None:
    at_gate = ["handled_at_gate"]
    async with (
        Receiver() as received,
        prepared(database) as connection,
        contextlib.AsyncExitStack() as stack,
    ):

        async def started(name: str) -> WorkerProcess:
            options = (*QUICK, "--batch", "1000")
            worker = WorkerProcess(database, name, projections=at_gate, options=options, env=received.env())
            return await stack.enter_async_context(worker)

        await append_events(connection, 500, keys=500)
        async with gate_closed(database) as waiting:
            a = await started("a")
            await wait_until(waiting, what="a batch is in flight")
            b = await started("b")
            await wait_until(lambda: counted(connection, 2), what="b is a member")
            c = await started("c")
            await wait_until(lambda: counted(connection, 3), what="c is a member")
        for worker in (a, b, c):
            await worker.ready()
        await wait_settled(connection, members=3)
        for worker in (a, b, c):
            await worker.stop()
        await wait_until(lambda: all_told(received, connection), what="all has arrived")
        assert_one_trace_each(received, await generations(connection), await acknowledged(connection))
        (overtaken,) = [s for s in received.named("complete ") if s.get("generation") == 2]
        (after,) = [s for s in received.named("announce ") if s.get("generation") == 3]
        assert (overtaken.get("outcome"), overtaken.links) == ("superseded", ((after.trace, after.id),))


async def output(*arguments: str) -> str:
    """Return what a command prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reactive_orch", *arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def counted(connection: Connection, members: int) -> bool:
    return len((await generations(connection))[-1]["members"]) == members


async def test_spans_and_metrics_are_those_of_the_tables(database: str) -> None:
    async with (
        Receiver() as received,
        prepared(database) as connection,
        contextlib.AsyncExitStack() as stack,
    ):
        traced = ("--trace-events", "--retries", "100", *QUICK)
        modules = ["handled", f"{OURS}:echoing", "failing"]
        a = await stack.enter_async_context(
            WorkerProcess(database, "a", projections=modules, options=traced, env=received.env())
        )
        await a.ready()
        await append_events(connection, 20)
        async with WorkerProcess(database, "b", projections=modules, options=traced, env=received.env()) as b:
            await b.ready()
            await wait_settled(connection, members=2)
            b.send(signal.SIGSTOP)
            await wait_settled(connection, members=1)
            b.send(signal.SIGCONT)
            await wait_until(lambda: arrived(received, "expelled "), what="the expelled one tells")
        async with connected(database) as writer, writer.transaction():
            await append_events(writer, 5)
            await a.said("the log cannot be read beyond")
        # A tail that loses its connection forgets for what it waited.
        await wait_until(lambda: arrived(received, "wait for frontier"), what="the wait is told of")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name ~ '^reactive_orch:(membership|tail):'"
        )
        await a.said("membership connection is back")
        await append_events(connection, 1, event_type=POISON)
        names = {span.name.split(" {")[0] for span in SPANS}

        async def every_span() -> bool:
            failed = any(span.error for span in received.named("process failing"))
            return failed and all(received.named(name) for name in names)

        def attributes(name: str) -> set[str]:
            return {key for keys in received.metrics[name].keys for key in keys}

        async def every_metric() -> bool:
            # A projection's problem is told with the next heartbeat, perhaps after one that has no projection.
            return {metric.name for metric in METRICS} <= received.metrics.keys() and all(
                metric.keys <= attributes(metric.name) for metric in METRICS
            )

        await wait_until(every_span, what=f"spans of every kind: {names}")
        await wait_until(every_metric, what="every metric, with every attribute")
        page = (await pages(a))["metrics"][1]
        exemplars = re.findall(r'# {span_id="(\w{16})",trace_id="(\w{32})"}', await open_metrics(a))
        assert exemplars
        named = {(trace, span) for span, trace in exemplars}

        async def every_exemplar() -> bool:
            return named <= {(span.trace, span.id) for span in received.spans}

        # An exemplar is seen at once. Its span is exported up to a second later.
        await wait_until(every_exemplar, what=f"the spans that the exemplars name: {named}")

    table = {span.name.split(" {")[0]: span for span in SPANS}
    for span in received.spans:
        kind = next(kind for name, kind in table.items() if span.name.startswith(name))
        assert span.attributes.keys() <= set(kind.attributes), span
        assert (span.kind, span.events) == (kind.kind, 0), span
    for metric in METRICS:
        series = received.metrics[metric.name]
        assert (series.unit, series.kind) == (metric.unit, metric.kind.value), metric.name
        assert attributes(metric.name) == metric.keys, metric.name
        assert_known(metric, received.points[metric.name])
    assert received.metrics.keys() == {metric.name for metric in METRICS}
    shown = {line.split()[2]: line.split()[3] for line in page.splitlines() if line.startswith("# TYPE")}
    assert shown == {metric.prometheus: metric.kind.value for metric in METRICS}
    failed = [span for span in received.named("process failing") if span.error]
    assert {span.attributes["error.type"] for span in failed} == {"RuntimeError"}
    # What was appended inside a handler leads back to it; what the test appended had no trace.
    producers = {(span.trace, span.id) for span in received.named("handle echoing")}
    links = {link for span in received.spans if span.name.startswith("process") for link in span.links}
    assert links
    assert links <= producers


def assert_known(metric: Metric, points: Collection[frozenset[tuple[str, Any]]]) -> None:
    """Check that attributes with few values have no others, and that all their counters are there, counted or not."""
    last = metric.attributes[len(metric.attributes) - len(metric.known[0]) :]
    found = {tuple(dict(point)[key] for key in last) for point in points}
    assert found <= set(metric.known), metric.name
    assert found == set(metric.known) or metric.kind is not Kind.COUNTER, metric.name


async def arrived(received: Receiver, prefix: str) -> bool:
    return bool(received.named(prefix))


async def pages(worker: WorkerProcess) -> dict[str, tuple[int, str]]:
    """Return what each page says."""
    assert worker.health_url is not None
    base = worker.health_url.removesuffix("/healthz")
    found = {}
    async with aiohttp.ClientSession() as session:
        for page in ("livez", "readyz", "healthz", "metrics"):
            async with session.get(f"{base}/{page}") as response:
                found[page] = (response.status, await response.text())
    return found


async def open_metrics(worker: WorkerProcess) -> str:
    assert worker.health_url is not None
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5"}
    async with (
        aiohttp.ClientSession(headers=wanted) as session,
        session.get(f"{worker.health_url.removesuffix('/healthz')}/metrics") as response,
    ):
        assert response.content_type == "application/openmetrics-text"
        return await response.text()


async def test_batches_are_linked_to_their_producers(database: str) -> None:
    async with Receiver() as received, prepared(database) as connection:
        parents = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 121)]
        async with connection.transaction():
            for parent in parents:
                event = NewEvent(aggregate_type="T", aggregate_id="1", event_type="T", metadata={"traceparent": parent})
                await append(connection, [event, event])
        env, whole = received.env(OTEL_TRACES_SAMPLER="always_on"), ("--batch", "1000", "--until-idle")
        async with WorkerProcess(database, "a", projections=["handled_in_batches"], options=whole, env=env) as a:
            assert await a.wait() == 0
        (batch,) = received.named(
            "process handled_in_batches"
        )  # no slow machine cuts the batch of a batch handler short
        assert batch.links == tuple((f"{n:032x}", f"{n:016x}") for n in range(1, 101))
        assert (batch.get("links.dropped"), batch.attributes["messaging.batch.message_count"]) == (20, 240)
        assert not batch.parent
        assert 0.0 < batch.get("event.age") < 60.0, "how long its first event has waited, and been handled"
        process = received.processes[batch.instance]
        assert (process["host.name"], process["process.pid"]) == (socket.gethostname(), a.pid), "as `status` names it"


async def test_the_ratio_is_for_batches_only(database: str) -> None:
    async with Receiver() as received, prepared(database) as connection:
        await append_events(connection, 50)
        env = received.env(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.0")
        async with WorkerProcess(database, "a", options=("--until-idle",), env=env) as a:
            assert await a.wait() == 0
        assert not received.named("process")
        assert_one_trace_each(received, await generations(connection), await acknowledged(connection))


async def test_a_failed_batch_is_always_sent(database: str) -> None:
    async with Receiver() as received, prepared(database) as connection:
        await append_events(connection, 50)
        await append_events(connection, 1, event_type=POISON)
        env = received.env(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0.0")
        options = ("--retries", "1", "--on-error", "halt", "--until-idle", *QUICK)
        async with WorkerProcess(database, "a", projections=["failing"], options=options, env=env) as a:
            assert await a.wait() == 1
        failed = received.named("process failing")
        assert failed
        assert all(span.error and not span.parent for span in failed), "nothing else was asked for"
        assert {(span.get("outcome"), span.attributes["error.type"]) for span in failed} == {("error", "RuntimeError")}
        assert all(span.end_ns > span.start_ns for span in failed)


SLOW_TO_COME = ("reactive_orch_event_loop_delay", "reactive_orch_heartbeat_duration")


async def test_rebalances_add_no_series(database: str) -> None:
    async with prepared(database) as connection, WorkerProcess(database, "a", options=QUICK) as a:
        await a.ready()

        async def join_and_leave() -> None:
            async with Node(Config(database_url=database)) as node, anyio.create_task_group() as tasks:
                worker = Worker(node, "test", [handled])
                tasks.start_soon(worker.run)
                await wait_settled(connection, members=2)
                worker.stop()
            await wait_settled(connection, members=1)

        async def series() -> set[str]:
            lines = (line.rpartition(" ")[0] for line in (await pages(a))["metrics"][1].splitlines())
            # Each of the few sources and outcomes has a series from when it first occurs, which may be late.
            return {re.sub(r'(source|outcome)="[a-z]+"', "", line) for line in lines}

        async def has_warmed_up() -> bool:
            page = (await pages(a))["metrics"][1]
            return all(f"\n{name}_seconds_count" in page for name in SLOW_TO_COME)

        await join_and_leave()
        await wait_until(has_warmed_up, what="what is counted now and then has been counted")
        before = await series()
        for _ in range(5):
            await join_and_leave()
        assert await series() == before
        assert len(await generations(connection)) == 13


async def test_each_change_is_a_line_and_nothing_else(database: str) -> None:
    async with prepared(database) as connection:
        options = (*QUICK, "--log-format", "json")
        async with WorkerProcess(database, "a", options=options) as a:
            await a.ready()
            await append_events(connection, 500)
            await wait_handled(connection)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name ~ '^reactive_orch:membership:'"
            )
            await a.said("membership connection is back")
            async with WorkerProcess(database, "b") as b:
                await b.ready()
                await a.said("generation 2 of test .* adopted in")
                a.send(signal.SIGSTOP)
                await wait_settled(connection, members=1)
                a.send(signal.SIGCONT)
                await a.said("removed by the others")
                await a.said("generation 4 of test .* adopted in")
            await a.said("generation 5 of test .* adopted in")
            await a.stop()
        records = [json.loads(line) for line in a.log]
        hello = [record["message"].split()[0] for record in records if "event" not in record]
        assert hello == ["database", "replica", "page"]
        changes = [record for record in records if record.get("event") in {"adopted", "expelled", "left"}]
        assert [record["generation"] for record in changes] == [1, 2, 3, 4, 5, 6]
        expected = ["adopted", "adopted", "expelled", "adopted", "adopted", "left"]
        assert [record["event"] for record in changes] == expected
        assert all(record["trace_id"] for record in changes)
        assert "settled in" in changes[0]["message"]
        others = {record.get("event") for record in records} - {None, *expected}
        assert {"listening", "disconnected", "reconnected"} <= others
        assert others <= {"listening", "disconnected", "reconnected", "unavailable", "loop_blocked", "suspected"}
        assert len(records) < 20


async def test_no_secret_leaves(database: str) -> None:
    url = database.replace("postgres@", f"postgres:{SECRET}@")
    async with Receiver() as received, prepared(database) as connection:
        for key, error_type in (("python", "ValueError"), ("database", "22P02")):
            payload = f"{SECRET}-payload".encode()
            name = f"w-{key}"
            async with WorkerProcess(
                url,
                name,
                replica_set=name,
                projections=[f"{OURS}:betraying", "handled"],
                options=("--retries", "1", "--on-error", "halt", "--trace-events", "--log-format", "json", *QUICK),
                env=received.env(),
            ) as worker:
                await worker.ready()
                poison = NewEvent(aggregate_type="Poison", aggregate_id=key, event_type="P", payload=payload)
                await append(connection, [poison])
                await worker.said("trying again")
                assert SECRET not in "".join(body for _, body in (await pages(worker)).values())
                await worker.said("is halted")
                # It is killed at the end of the block, with what it has not exported yet.
                await wait_until(partial(_has_told, received, error_type), what=f"a span tells of {error_type}")
            status = await run("status", "--replica-set", name, "--database-url", url)
            assert SECRET in status.done(), "the operator is told what it was"
            assert SECRET not in "\n".join(worker.log)
            records = [json.loads(line) for line in worker.log]
            adopted = next(record for record in records if record.get("event") == "adopted")
            assert adopted["trace_id"] in {span.trace for span in received.named("adopt ")}
            await connection.execute("DELETE FROM reactive_orch.events WHERE aggregate_type = 'Poison'")
        assert _error_types(received) == {"ValueError", "22P02"}
        assert SECRET.encode() not in b"".join(received.raw)
        assert b"postgresql://" not in b"".join(received.raw)


async def _has_told(received: Receiver, error_type: str) -> bool:
    return error_type in _error_types(received)


def _error_types(received: Receiver) -> set[object]:
    return {span.attributes.get("error.type") for span in received.named("process betraying") if span.error}


async def test_without_an_endpoint_nothing_is_imported(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        command = [sys.executable, "-X", "importtime", "-m", "reactive_orch", "--database-url", database]
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--replica-set", "test", "--projection", "integration_test.harness.projections:handled", "--until-idle"),
            *("--http", "127.0.0.1:0"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said[-2000:]
        assert b"reactive_orch.telemetry" in said
        assert b"opentelemetry" not in said


@pytest.mark.parametrize(
    ("protocol", "mood"),
    [
        ("grpc", "hangs"),
        thorough("http/protobuf", "refuses"),
        thorough("http/protobuf", "hangs"),
        thorough("grpc", "refuses"),
    ],
)
async def test_a_bad_endpoint_costs_nothing(database: str, mood: Mood, protocol: Protocol) -> None:
    async with Receiver(mood) as received, prepared(database) as connection:
        await append_events(connection, 3000)
        plain = await drained(connection, database, "plain", {})
        bad = await drained(connection, database, "bad", received.env(protocol))
        assert received.requests, "it was tried"
        assert_unhindered(bad, plain)


async def test_a_refused_endpoint_costs_nothing(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 1000)
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        assert_unhindered(await drained(connection, database, "refused", env), (0.0, 0.0))


@pytest.mark.parametrize("protocol", ["http/protobuf", thorough("grpc")])
async def test_an_outage_is_two_lines_in_the_log(database: str, protocol: Protocol) -> None:
    async with Receiver("refuses") as received, prepared(database):
        env = received.env(protocol, OTEL_EXPORTER_OTLP_TIMEOUT="1")
        async with WorkerProcess(database, "a", options=QUICK, env=env) as a:
            await a.ready()
            for signals in ("traces", "metrics"):
                await a.said(f"{signals} cannot be exported and are dropped until it works again")
            tried = received.requests

            async def tried_again() -> bool:
                return received.requests > tried + 5

            await wait_until(tried_again)
            received.mood = "well"
            await a.said("metrics are exported again")
            about = [line for line in a.log if "export" in line]
            assert len(about) == 3, about
            await a.stop()


EXPORT_TIMEOUT_S = 10.0


def assert_unhindered(took: tuple[float, float], plain: tuple[float, float]) -> None:
    """Check that neither handling nor stopping waited for an export: such a wait would last for its time-out."""
    for what, bad_s, plain_s in zip(("handling", "stopping"), took, plain, strict=True):
        assert bad_s < 3 * plain_s + 0.8 * EXPORT_TIMEOUT_S, f"{what} took {bad_s:.2f} s instead of {plain_s:.2f} s"


async def drained(connection: Connection, url: str, name: str, env: Mapping[str, str]) -> tuple[float, float]:
    """Return how long a worker takes to handle all there is, and how long to stop."""
    async with WorkerProcess(url, name, replica_set=name, env=env) as worker:
        await worker.ready()
        began = time.monotonic()
        await wait_handled(connection, replica_set=name)
        handled_at = time.monotonic()
        await worker.stop()
        return handled_at - began, time.monotonic() - handled_at


async def test_an_application_with_providers_of_its_own(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _APPLICATION, database), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        seen = json.loads(out)
        assert process.returncode == 0
        assert {"rebalance app", "adopt app", "complete app", "process handled"} <= set(seen["spans"])
        assert seen["inside"] == "process handled", "what a handler starts is a child of its batch"
        assert seen["quiet"] == {"observe": True, "handler": None}, "an instrumented driver tells of handlers only"
        assert {"reactive_orch.rebalance.duration", "messaging.client.consumed.messages"} <= set(seen["metrics"])


_APPLICATION = """
import asyncio, json, sys
from opentelemetry import context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))

from reactive_orch import Config, Node, Worker, projection
from reactive_orch.postgres import membership

quiet, observe = {}, membership.observe

async def observed(*arguments):
    quiet["observe"] = context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY)
    return await observe(*arguments)

membership.observe = observed

@projection("handled")
async def handled(event, tx):
    quiet["handler"] = context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY)
    with trace.get_tracer("app").start_as_current_span("inside"):
        pass

async def main():
    async with Node(Config(database_url=sys.argv[1])) as node:
        await Worker(node, "app", [handled], until_idle=True).run()
        seen = [m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics]
    done = spans.get_finished_spans()
    inside = next(s for s in done if s.name == "inside")
    parent = next(s for s in done if s.context.span_id == inside.parent.span_id)
    print(json.dumps({"spans": [s.name for s in done], "inside": parent.name, "metrics": seen, "quiet": quiet}))

asyncio.run(main())
"""

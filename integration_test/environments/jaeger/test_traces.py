"""What somebody finds in Jaeger who comes from a service, a generation, a log line, a metric or an event."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.jaeger.story import SHOP, trace_of
from integration_test.harness.command_line import run
from integration_test.harness.waiting import wait_until
from reactive_orch.telemetry.span_names import SPANS

if TYPE_CHECKING:
    from integration_test.environments.jaeger.asking import Span, Trace
    from integration_test.environments.jaeger.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="package")

SERVICE = "reactive_orch"


async def test_each_generation_is_one_trace_that_names_its_reason(story: Story) -> None:
    rootless = (await story.rootless())["number"]
    rows = [row for row in await story.rows() if row["number"] != rootless]
    assert {"join", "leave", "death", "stale"} == {row["reason"] for row in rows}
    for row in rows:
        trace = await story.jaeger.trace(trace_of(row))
        (root,) = trace.roots
        (announced,) = trace.named("announce generation")
        assert (root.name, announced.id) == (f"rebalance {SHOP}", row["traceparent"].split("-")[2]), trace
        assert root.get("rebalance.reason") == row["reason"], trace
        assert root.get("rebalance.subject") == ",".join(map(str, row["subjects"])), trace
        assert not trace.orphans, trace
        assert not warnings(trace), f"{warnings(trace)}\n{trace}"
        assert {span.get("generation") for span in trace.spans} == {row["number"]}, trace
        assert {span.service for span in trace.spans} == {SERVICE}, trace


def warnings(trace: Trace) -> list[str]:
    """Return what Jaeger finds wrong with a trace, clocks that disagree among it."""
    return [*trace.warnings, *(each for span in trace.spans for each in span.warnings)]


async def test_every_members_phases_are_below_it(story: Story) -> None:
    acknowledged = await story.acknowledged()
    for row in await story.rows():
        trace = await story.jaeger.trace(trace_of(row))
        adopts = [span for span in trace.named("adopt") if span.get("outcome") == "acknowledged"]
        assert sorted(span.get("member.id") for span in adopts) == acknowledged.get(row["number"], []), trace
        for adopt in adopts:
            assert_phases(trace, adopt)
        (complete,) = trace.named("complete")
        assert complete.get("outcome") == ("settled" if row["completed_at"] else "superseded"), trace


def assert_phases(trace: Trace, adopt: Span) -> None:
    """Check that what one member did lies within its adoption, and nothing else does."""
    steps = trace.below(adopt)
    due = Counter(["observe", "acknowledge"])
    due += Counter({"finish batches": adopt.get("partitions.revoked") > 0})
    due += Counter({"load checkpoints": adopt.get("partitions.gained") > 0})
    assert Counter(step.name for step in steps) == due, trace
    for step in steps:
        assert adopt.start_us <= step.start_us, trace
        assert step.start_us + step.duration_us <= adopt.start_us + adopt.duration_us + 1, trace


async def test_a_death_and_a_freeze_say_who_was_lost_and_how_it_was_noticed(story: Story) -> None:
    found = {}
    for reason in ("death", "stale"):
        row = next(row for row in await story.rows() if row["reason"] == reason)
        trace = await story.jaeger.trace(trace_of(row))
        (found[reason],) = trace.named(f"detect {reason}")
    assert found["death"].get("rebalance.subject") == str(story.killed)
    assert found["stale"].get("rebalance.subject") == str(story.frozen)
    assert found["stale"].get("heartbeat.age") > found["stale"].get("detection.timeout")
    (trace,) = await story.jaeger.search(SERVICE, f"expelled {SHOP}")
    (woke,) = trace.named("expelled")
    assert woke.get("member.id") == story.frozen, trace
    assert found["stale"] in trace.spans, "it is told in the trace of its removal"


async def test_of_who_is_killed_while_he_decides_only_his_own_spans_are_missing(story: Story) -> None:
    row = await story.rootless()
    trace = await story.jaeger.trace(trace_of(row))
    assert not trace.roots, trace
    assert {span.name for span in trace.orphans} == {f"adopt {SHOP}", f"complete {SHOP}"}, trace
    (complete,) = trace.named("complete")
    assert complete.get("rebalance.reason") == row["reason"], trace
    assert trace.id in {each.id for each in await story.jaeger.search(SERVICE, tags=generation(row["number"]))}


def generation(number: int) -> dict[str, object]:
    return {"reactive_orch.generation": number, "reactive_orch.replica_set": SHOP}


async def test_a_search_finds_it_by_service_operation_and_tags(story: Story) -> None:
    rows = await story.rows()
    rootless = (await story.rootless())["number"]
    roots = {trace_of(row) for row in rows if row["number"] != rootless}
    assert SERVICE in await story.jaeger.services()
    operations = await story.jaeger.operations(SERVICE)
    assert {f"rebalance {SHOP}", f"adopt {SHOP}", f"complete {SHOP}"} <= set(operations)
    found = await story.jaeger.search(SERVICE, f"rebalance {SHOP}")
    assert sorted(each.id for each in found) == sorted(roots), "the dashboard's list"
    for reason in ("join", "leave", "death", "stale"):
        tags = {"reactive_orch.rebalance.reason": reason}
        wanted = {trace_of(row) for row in rows if row["reason"] == reason}
        assert {each.id for each in await story.jaeger.search(SERVICE, tags=tags)} == wanted
    for row in rows:
        found = await story.jaeger.search(SERVICE, f"adopt {SHOP}", tags=generation(row["number"]))
        assert {each.id for each in found} == {trace_of(row)}
    assert not await story.jaeger.search(SERVICE, tags={"reactive_orch.replica_set": "another"})


async def test_a_failed_batch_leads_to_who_appended_its_event_and_back(story: Story) -> None:
    async def kept() -> list[Trace]:
        return await story.jaeger.search(SERVICE, "process poisoned", tags={"error.type": "RuntimeError"})

    failed = await wait_until(kept, what="a batch that failed is kept")
    (append,) = await story.jaeger.search("till", "append Poison")
    assert append.id == story.append_trace, "kept, as it was slow"
    for trace in failed:
        (batch,) = trace.roots
        assert (batch.get("outcome"), batch.tags["error"]) == ("error", True), trace
        assert ("FOLLOWS_FROM", append.id, append.roots[0].id) in batch.references, trace
        assert not warnings(trace), trace


async def test_durations_and_the_critical_path_are_those_of_the_trace_command(story: Story) -> None:
    rows = [row for row in await story.rows() if row["completed_at"]]
    for row in rows:
        words = ("trace", str(row["number"]), "--replica-set", SHOP, "--database-url", story.url)
        shown = (await run(*words)).done()
        trace = await story.jaeger.trace(trace_of(row))
        assert f"trace {trace.id}" in shown.splitlines()
        (settled_ms,) = re.findall(r"settled in ([\d.]+) ms", shown)
        (complete,) = trace.named("complete")
        assert abs(complete.duration_us / 1000 - float(settled_ms)) < 0.1, f"{shown}\n{trace}"
        adopts = {span.get("member.id"): span for span in trace.named("adopt")}
        for member, took_ms in took(shown).items():
            off_ms = abs(adopts[member].duration_us / 1000 - took_ms)
            assert off_ms < statements_ms(trace, adopts[member]), f"worker {member}: {off_ms} ms\n{shown}\n{trace}"
        if adopts:
            slowest = adopts[complete.get("rebalance.slowest_member")]
            end_us = slowest.start_us + slowest.duration_us + statements_ms(trace, slowest) * 1000
            assert end_us >= max(each.start_us + each.duration_us for each in adopts.values()), f"{shown}\n{trace}"


def statements_ms(trace: Trace, adopt: Span) -> float:
    """Return what may lie between a worker's clock and the database's, which looks at its own during a statement."""
    return sum(step.duration_us / 1000 for step in trace.below(adopt) if step.name in {"observe", "acknowledge"})


def took(shown: str) -> dict[int, float]:
    """Return member → how long its adoption took in a drawing, from its notice on."""
    phases: dict[int, dict[str, float]] = {}
    member = 0
    for line in shown.splitlines():
        if found := re.match(r"(?:worker (\d+)\s+|\s+)(finish|load|acknowledge|notice|decide) .* ([\d.]+) ms", line):
            member = int(found[1] or member)
            phases.setdefault(member, {})[found[2]] = float(found[3])
    return {
        each: max(of.get("finish", 0), of.get("load", 0)) + of["acknowledge"]
        for each, of in phases.items()
        if "acknowledge" in of
    }


async def test_a_log_line_names_the_trace_that_tells_of_it(story: Story) -> None:
    lines = [line for worker in (*story.ended, *story.workers.values()) for line in worker.log]
    named = [(found[1], line) for line in lines if (found := re.search(r"trace_id=(\w{32})", line))]
    rows = await story.rows()
    of_generations = {trace_of(row): row["number"] for row in rows}
    adopted = {trace_id: line for trace_id, line in named if " adopted in " in line}
    assert {trace_of(row) for row in rows if row["completed_at"]} <= adopted.keys() <= of_generations.keys()
    for trace_id, line in adopted.items():
        assert f"generation {of_generations[trace_id]} " in line
        assert (await story.jaeger.trace(trace_id)).named("adopt")


async def test_all_that_is_shown_is_in_the_table(story: Story) -> None:
    """Besides what OpenTelemetry and Jaeger add to every span."""
    theirs = {"span.kind", "internal.span.format", "otel.scope.name", "otel.status_code", "error", "otel.scope.version"}
    table = {span.name.partition(" {")[0]: span for span in SPANS}
    for trace in await story.jaeger.search(SERVICE):
        for span in trace.spans:
            kind = next(kind for name, kind in table.items() if span.name.startswith(name))
            assert span.tags.keys() - theirs <= set(kind.attributes), trace
            assert (span.tags["span.kind"], span.events) == (kind.kind.lower(), ()), trace


async def test_the_monitor_tab_has_calls_and_durations_of_every_operation(story: Story) -> None:
    kinds = {"internal": {f"rebalance {SHOP}", f"adopt {SHOP}"}, "consumer": {"process handled", "process poisoned"}}

    async def all_are_there() -> bool:
        for kind, operations in kinds.items():
            calls = await story.jaeger.monitored("calls", SERVICE, spanKind=kind)
            latencies = await story.jaeger.monitored("latencies", SERVICE, spanKind=kind, quantile=0.95)
            if not all(any(calls.get(each, ())) and any(latencies.get(each, ())) for each in operations):
                return False
        errors = await story.jaeger.monitored("errors", SERVICE, spanKind="consumer")
        return any(errors.get("process poisoned", ()))

    await wait_until(all_are_there, timeout_s=60, what="the collector has flushed its metrics twice")

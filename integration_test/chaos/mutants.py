"""Every planted bug must be caught: `python -m integration_test.chaos.mutants [NAME …]`, or `make mutants`.

Each runs in the shortest scenario that catches it; those that no scenario catches are left to tests. Unless bugs are
named, first the product itself runs through every scenario: a checker that also fires then proves nothing. Exit code 1:
a bug survived, or the product did not pass.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from integration_test.chaos import planted, scenarios
from integration_test.harness.arena import database
from integration_test.harness.cluster import Cluster
from integration_test.harness.processes import until_terminated
from integration_test.harness.servers import chosen

SCENARIO_OF = {
    "swap_without_expected_position": "zombie",
    "short_count_ignored": "zombie",
    "swap_after_the_handlers_in_another_transaction": "commits_out_of_order",
    "checkpoint_committed_before_the_handlers": "commits_out_of_order",
    "no_reload_after_a_short_count": "started_over",
    "frontier_reads_the_holders_before_the_head": "commits_out_of_order",
    "frontier_trusts_the_head": "commits_out_of_order",
    "frontier_blind_to_prepared_transactions": "commits_out_of_order",
    "run_with_a_gap_taken_for_whole": "commits_out_of_order",
    "memory_kept_across_a_lost_connection": "older_state",
    "backlog_dealt_among_fresh_events": "backlog",
    "distance_measured_from_a_neighbour": "backlog",
    "limit_taken_for_the_end_of_the_window": "churn",
    "saved_lazily_beyond_unread_events": "churn",
    "take_over_without_the_row_lock_from_a_cache": "churn",
    "sticky_assignment_gives_one_partition_to_two": "churn",
    "assignment_ignores_who_has_what": "churn",
    "acknowledged_before_drained_and_loaded": "churn",
    "listens_after_the_first_read": "gap_before_listening",
    "member_row_before_its_lock": "churn",
    "free_lock_trusted_after_a_restart": "server_restart",
    "old_heartbeat_trusted_after_an_outage": "common_outage",
    "old_heartbeat_trusted_by_a_newcomer": "newcomer_after_an_outage",
    "pause_forgotten_by_a_new_owner": "paused",
    "failing_keys_read_before_the_lock": "poisoned_keys",
    "later_events_of_a_failing_key_handled": "poisoned_keys",
    "retry_leaves_a_gap": "poisoned_keys",
    "failing_keys_not_counted": "poisoned_keys",
    "deadlocked_statements_passed_over": "shared_rows",
    "no_marker_put": "lethal_event",
}

CAUGHT_BY_TESTS = {
    "deadline_moved_after_its_scope_was_cancelled": "runtime/handling/test_handlers.py",
    "batch_cut_short_keeps_its_whole_swap": "runtime/handling/test_handlers.py",
    "batch_cut_short_sets_partitions_back": "runtime/handling/test_batch_ends.py",
    "marker_blames_the_whole_batch": "runtime/handling/test_deadly_events.py",
    "marker_not_taken_back": "runtime/handling/test_deadly_events.py",
    "rewind_overwritten_by_its_own_batch": "runtime/handling/test_left_behind.py",
    "put_off_appends_survive_their_savepoint": "runtime/handling/test_handlers.py",
    "fresh_events_taken_for_all_there_is": "runtime/reading/test_fresh_events.py",
    "fresh_events_read_with_the_looks_snapshot": "runtime/reading/test_fresh_events.py",
    "fresh_events_read_while_others_may_commit": "runtime/reading/test_fresh_events.py",
    "group_goes_on_without_who_has_failed": "runtime/handling/test_together.py",
    "group_ignores_a_short_count": "runtime/handling/test_together.py",
    "group_moves_one_projection_alone": "runtime/handling/test_together.py",
    "group_handles_beside_a_lane_that_is_awake": "runtime/handling/test_together.py",
    "flaw_ignored_in_the_look": "postgres/test_unsafe_logs.py",
    "row_security_ignored_in_the_swap": "postgres/test_unsafe_logs.py",
    "changes_behind_the_settled_end_ignored": "postgres/test_changed_logs.py",
    "connections_are_not_asked_where_they_lead": "postgres/test_incarnations.py",
    "cut_off_known_by_payloads_only": "postgres/test_odd_rows.py",
    "gap_passed_beyond_the_settled_end": "runtime/test_progress_watch.py",
    "sealed_by_whoever_says_so": "postgres/test_functions.py",
    "what_waits_counted_for_each_batch_alone": "runtime/handling/test_limits.py",
    "partition_keys_forgotten": "runtime/handling/test_partition_keys.py",
    "handled_to_not_kept": "runtime/handling/test_replays.py",
    "unhandled_events_forgotten": "runtime/handling/test_replays.py",
    "suspension_ignored": "runtime/handling/test_outages.py",
    "turn_taken_after_the_swap": "runtime/handling/test_shared_rows.py",
    "turns_among_the_lanes_of_one_worker_alone": "runtime/handling/test_shared_rows.py",
    "exclusive_projection_divided": "runtime/membership/test_exclusive.py",
}
"""What no scenario can catch: the test that plants it and catches it."""

_BROKEN = {"exits", "log"}
"""A worker that ends or shows a traceback says nothing about its bug: the planting is out of date."""


async def _all(cluster: Cluster, wanted: list[str], *, product: bool, verbose: bool) -> bool:
    well = True
    with database(cluster, "chaos_template"):
        if product:
            for name in scenarios.SCENARIOS:
                well &= await _product(cluster, name)
        _row("mutant", "scenario", "caught by", "after")
        _row("---", "---", "---", "---")
        for mutant in wanted:
            started = time.monotonic()
            found = await scenarios.play(cluster, "chaos_template", SCENARIO_OF[mutant], mutant)
            checkers = dict.fromkeys(finding.checker for finding in found)
            caught = bool(found) and not checkers.keys() & _BROKEN
            by = ", ".join(checkers) if caught else f"not caught: {', '.join(checkers) or 'survived'}"
            well &= caught
            _row(mutant, SCENARIO_OF[mutant], by, f"{time.monotonic() - started:.1f} s")
            if verbose:
                _say("\n".join(map(str, found)))
    return well


async def _product(cluster: Cluster, name: str) -> bool:
    started = time.monotonic()
    found = await scenarios.play(cluster, "chaos_template", name)
    _say(f"product, {name}: {'; '.join(map(str, found)) or 'well'} ({time.monotonic() - started:.1f} s)")
    return not found


def _row(*cells: str) -> None:
    _say(f"| {' | '.join(cells)} |")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run what is asked for."""
    assert SCENARIO_OF.keys() | CAUGHT_BY_TESTS.keys() == planted.PLANTED.keys()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mutants", nargs="*", metavar="NAME", help=f"default: all of {', '.join(SCENARIO_OF)}")
    parser.add_argument("--pg", default=chosen()[0], help="version")
    parser.add_argument("--scenario", action="append", default=[], help="only play these, without a bug")
    parser.add_argument("--verbose", action="store_true", help="what the checkers found, too")
    options = parser.parse_args()
    if unknown := sorted({*options.mutants} - SCENARIO_OF.keys()):
        parser.error(f"no scenario catches {', '.join(unknown)}; what tests catch: {CAUGHT_BY_TESTS}")
    with Cluster(options.pg) as cluster:
        if options.scenario:
            return 0 if asyncio.run(until_terminated(_only(cluster, options.scenario))) else 1
        wanted = options.mutants or [*SCENARIO_OF]
        playing = _all(cluster, wanted, product=not options.mutants, verbose=options.verbose)
        well = asyncio.run(until_terminated(playing))
    return 0 if well else 1


async def _only(cluster: Cluster, names: list[str]) -> bool:
    with database(cluster, "chaos_template"):
        return all([await _product(cluster, name) for name in names])


if __name__ == "__main__":
    sys.exit(main())

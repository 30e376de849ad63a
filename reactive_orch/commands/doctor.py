"""`doctor`: what will not work on this database, worst first, each with what helps."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, get_args

from reactive_orch.commands.command import Command, connected, monitors
from reactive_orch.commands.problems import lines_of
from reactive_orch.core.findings import findings, is_well, looked_at
from reactive_orch.core.overview_json import problem_as_json, since
from reactive_orch.postgres import doctor
from reactive_orch.postgres.grants import Purpose
from reactive_orch.postgres.projections import demand_known
from reactive_orch.process.explaining import EXIT_FAILED

if TYPE_CHECKING:
    import argparse


async def _doctor(options: argparse.Namespace, url: str) -> None:
    facts = await doctor.examine(url, options.replica_set, options.purpose)
    if facts.seen is not None and options.replica_set not in {None, *facts.seen.generations}:
        async with connected(url) as connection:  # it was looked for alone: who says which there are?
            await demand_known(connection, options.replica_set)
    at, found = facts.seen.at if facts.seen else datetime.now(UTC), findings(facts)
    well = is_well(found)
    if options.json:
        print(json.dumps({"findings": [problem_as_json(each, partial(since, at)) for each in found]}))
    else:
        for line in lines_of(found, at, options.database_url):
            print(line)
        print(("all is well: " if well else "") + looked_at(facts))
    if not well:
        sys.exit(EXIT_FAILED)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", metavar="NAME", help="of replica sets, only this one")
    parser.add_argument(
        "--for",
        default="worker",
        dest="purpose",
        choices=get_args(Purpose),
        help="what this user is for, as in `grants` (default: worker): the rights for that are looked at",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


DOCTOR = Command("what will not work on this database, and what helps", _arguments, _doctor, purpose=monitors)

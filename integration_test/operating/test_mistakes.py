"""A hundred mistakes at the command line: each is answered with one line and its exit code, and changes nothing.

In this process, as that takes a fifth of the time of one of its own. Each kind once as a process, and mistakes that
have no place in a table, are in `test_command_line.py`; what is wrong with mere words, in `tests/`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest

from integration_test.harness.cluster import copied
from integration_test.harness.command_line import run_worker
from integration_test.harness.connections import connected
from reactive_orch import cli

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from integration_test.harness.cluster import Cluster

FAILED, CONFIG, UNREACHABLE = 1, 2, 3
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'reactive_orch'"

EVENT = "append --aggregate-type Order --aggregate-id 1 --event-type Placed"
LINE = b'{"aggregate_type": "Order", "aggregate_id": "1", "event_type": "Placed"}'
OF_SHOP = "--replica-set shop --projection event_counts"


class Mistake(NamedTuple):
    """What somebody does, and what that is answered with."""

    arguments: str
    """With {url}, that of a database; it is given as DATABASE_URL too, unless the environment says another."""
    says: str
    """A part of the line; with {port} and {cwd}."""
    code: int = CONFIG
    stdin: bytes = b""
    environment: Mapping[str, str | None] = {}


MODULES: dict[str, str | bytes] = {
    "shop": "from reactive_orch import projection\n@projection('mails')\nasync def mails(event, tx): ...\nother = 5\n",
    "again": "from reactive_orch import projection\n@projection('mails')\nasync def mails(event, tx): ...\n",
    "bare": "from reactive_orch import projection\n\n@projection\nasync def mails(event, tx): ...\n",
    "narrow": "from reactive_orch import projection\n@projection('mails')\nasync def mails(event): ...\n",
    "wide": "from reactive_orch import projection\n@projection('m', batch=True)\nasync def mails(e, tx, more): ...\n",
    "plain": "from reactive_orch import projection\n@projection('mails')\ndef mails(event, tx): ...\n",
    "option": "from reactive_orch import projection\n@projection('m', retry=3)\nasync def f(event, tx): ...\n",
    "filter": "from reactive_orch import projection\n@projection('m', event_types='Paid')\nasync def f(e, tx): ...\n",
    "late": "from reactive_orch import projection\n@projection('m', start='yesterday')\nasync def f(e, tx): ...\n",
    "none": "import reactive_orch\n",
    "lacks": "import os\nimport no_such_module\n",
    "raises": "def connect():\n    raise RuntimeError('no\\nsettings')\n\nconnect()\n",
    "exits": "import sys\nsys.exit(0)\n",
    "broken": "x = 1\ndef f(:\n",
    "latin": b"x = '\xe9'\n",
}

MISTAKES = [
    Mistake("status", "DATABASE_URL is set, but empty: give it an address, or unset", environment={"DATABASE_URL": ""}),
    Mistake("status --database-url=", "neither a URI"),
    Mistake("status --database-url shop", "neither a URI"),
    Mistake("status", "neither a URI", environment={"DATABASE_URL": "localhost:5432/shop"}),
    Mistake("status", "not a valid URI", environment={"DATABASE_URL": "postgresql://ann:s3/cret@localhost/shop"}),
    Mistake("status", "has no word passwort: is it password?", environment={"DATABASE_URL": "host=h passwort=hush"}),
    Mistake(
        "status",
        "the database's port must be a number from 1 to 65535, not 'abc'",
        environment={"DATABASE_URL": None, "POSTGRES_PORT": "abc"},
    ),
    Mistake("status", "a number from 1 to 65535, not '0'", environment={"DATABASE_URL": None, "POSTGRES_PORT": "0"}),
    Mistake(
        "status",
        "a number from 1 to 65535, not '-1'",
        environment={"DATABASE_URL": None, "PGHOST": "h", "PGPORT": "-1"},
    ),
    Mistake(
        "status",
        "the database's service 'none' is in none of",
        environment={"DATABASE_URL": None, "PGSERVICE": "none"},
    ),
    Mistake(
        "status",
        'database "nowhere" does not exist (postgresql:///nowhere?host=127.0.0.1&port={port}&user=postgres)',
        UNREACHABLE,
        environment={
            "DATABASE_URL": None,
            "PGHOST": "127.0.0.1",
            "PGPORT": "{port}",
            "PGUSER": "postgres",
            "PGDATABASE": "nowhere",
        },
    ),
    Mistake(
        "status --database-url postgresql://postgres:hush@127.0.0.1:{port}/nowhere",
        'the server refuses the login: database "nowhere" does not exist (postgresql://postgres@127.0.0.1:{port}/nowhere)',
        UNREACHABLE,
    ),
    Mistake(
        "migrate --database-url postgresql://stranger:hush@127.0.0.1:{port}/postgres",
        'the server refuses the login: role "stranger" does not exist (postgresql://stranger@127.0.0.1:{port}/postgres)',
        UNREACHABLE,
    ),
    Mistake(
        "trace --replica-set shop --database-url postgresql://ann:hush@127.0.0.1:1/shop",
        "Connect call failed ('127.0.0.1', 1) (postgresql://ann@127.0.0.1:1/shop)",
        UNREACHABLE,
    ),
    Mistake(
        "status --database-url {url}?sslmode=require", "the server has no TLS, which sslmode asks for: ", UNREACHABLE
    ),
    Mistake("status --database-url {url}?sslmode=maybe", "`sslmode` parameter must be one of"),
    Mistake("status --database-url {url}?colour=red", 'unrecognized configuration parameter "colour"'),
    Mistake(
        "status --database-url {url}?sslrootcert=/no/such/file&sslmode=verify-ca",
        "the database address says sslrootcert=/no/such/file, and there is no such file",
    ),
    Mistake(
        "status --database-url {url}?sslmode=verify-full", "needs the certificate of whoever has signed the server's"
    ),
    Mistake("--replica-set r --projection bare", """write @projection("mails") at {cwd}/bare.py:3"""),
    Mistake(
        "--replica-set r --projection narrow",
        "--projection narrow: projection 'mails': the handler takes (event, tx), not mails(event) at {cwd}/narrow.py:2",
    ),
    Mistake("--replica-set r --projection wide", "the handler takes (events, tx), not mails(e, tx, more) at"),
    Mistake(
        "--replica-set r --projection plain",
        "the handler mails is not async; write `async def`, or blocking=True if it is to run in a thread at",
    ),
    Mistake("--replica-set r --projection option", "unexpected keyword argument 'retry' at {cwd}/option.py:2"),
    Mistake("--replica-set r --projection filter", "event_types must be a list of names, not 'Paid' at {cwd}/filter"),
    Mistake("--replica-set r --projection late", "start must be 'beginning', 'now' or a datetime"),
    Mistake("--replica-set r --projection none", "the module holds no projection (a function under @projection(...))"),
    Mistake(
        "--replica-set r --projection lacks",
        "ModuleNotFoundError: No module named 'no_such_module' at {cwd}/lacks.py:2",
    ),
    Mistake("--replica-set r --projection raises", "RuntimeError: no settings at {cwd}/raises.py:2"),
    Mistake("--replica-set r --projection exits", "importing 'exits' failed: SystemExit: 0 at {cwd}/exits.py:2"),
    Mistake("--replica-set r --projection broken", "SyntaxError: invalid syntax"),
    Mistake("--replica-set r --projection broken", "at {cwd}/broken.py:2"),
    Mistake("--replica-set r --projection latin", "importing 'latin' failed: SyntaxError: "),
    Mistake(
        "--replica-set r --projection shopp",
        "--projection shopp: importing 'shopp' failed: there is none in {cwd} or what is installed",
    ),
    Mistake("--replica-set r --projection shop.mails", "importing 'shop.mails' failed: there is none in {cwd}"),
    Mistake("--replica-set r --projection shop.py", "importing 'shop.py' failed: there is none in"),
    Mistake("--replica-set r --projection ./shop.py", "give MODULE or MODULE:FUNCTION as Python imports it"),
    Mistake("--replica-set r --projection shop:", "'shop:': give MODULE or MODULE:FUNCTION"),
    Mistake("--replica-set r --projection shop,again", "give MODULE or MODULE:FUNCTION"),
    Mistake("--replica-set r --projection=", "--projection '': give MODULE"),
    Mistake("--replica-set r --projection shop:nobody", "shop has no projection 'nobody'; it has mails"),
    Mistake("--replica-set r --projection shop:other", "shop has no projection 'other'; it has mails"),
    Mistake("--replica-set r --projection shop --projection again", "two projections are named 'mails'"),
    Mistake("--replica-set=", "replica-set name '': give 1 to 63 bytes of printable characters"),
    Mistake(f"--replica-set {'x' * 64}", "give 1 to 63 bytes"),
    Mistake("--replica-set a\tb", r"replica-set name 'a\tb': give 1 to 63 bytes of printable"),
    Mistake("--replica-set -r", "if '-r' is it, write --replica-set=-r"),
    Mistake("--replica-set r --batch 1e9", "'1e9' is no whole number"),
    Mistake("--replica-set r --batch 0 --retries 2000", "--retries (retries) must be 0 to 1000, not 2000"),
    Mistake("--replica-set r --heartbeat -1", "--heartbeat (heartbeat_s) must be 0.05 to 3600 seconds, not -1"),
    Mistake(
        "--replica-set r --handler-timeout nan",
        "--handler-timeout (handler_timeout_s) must be 0.001 to 86400 seconds, not nan",
    ),
    Mistake("--replica-set r --http {taken}", "--http {taken} cannot be served: Address already in use"),
    Mistake("--replica-set r --http 192.0.2.1:0", "--http 192.0.2.1:0 cannot be served: Cannot assign requested"),
    Mistake("--replica-set r --http http://127.0.0.1:80", "give HOST:PORT"),
    Mistake("--replica-set r --http nowhere.invalid:80", "--http nowhere.invalid:80 cannot be served: "),
    Mistake("--replica-set r --http [2001:db8::1]:80", "--http [2001:db8::1]:80 cannot be served: "),
    Mistake("--replica-set r", "there is no schema reactive_orch", environment={"DATABASE_URL": "{empty}"}),
    Mistake(
        "--replica-set r --http 127.0.0.1:0",
        "OTEL_TRACES_EXPORTER must be otlp, console or none, not 'jaeger'",
        environment={"OTEL_TRACES_EXPORTER": "jaeger"},
    ),
    Mistake(
        "--replica-set r --http 127.0.0.1:0",
        "OTEL_EXPORTER_OTLP_ENDPOINT must begin with http:// or https://",
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"},
    ),
    Mistake("migrate --partitions 128", "--partitions 128: this log was created with 64, which cannot be changed"),
    Mistake("migrate --partitions 65", "a power of two from 1 to 1024, not 65"),
    Mistake("migrate --partitions 2048", "a power of two from 1 to 1024, not 2048"),
    Mistake("migrate --partitions -64", "a power of two from 1 to 1024, not -64"),
    Mistake("migrate 64", "unrecognized arguments: 64"),
    Mistake("append --expected 4", "there is no event, so --expected says nothing of any aggregate"),
    Mistake("append", "line 1: aggregate_type is missing", stdin=b'{"aggregate_type": ""}\r\n'),
    Mistake("append", "line 2: ", stdin=LINE + b"\r\n\xff\xfe\r\n"),
    Mistake("append", "line 1: an event is a JSON object, not", stdin=b"[" + LINE + b"]"),
    Mistake("append", "line 1: Expecting", stdin=b"aggregate_type,aggregate_id\nOrder,1\n"),
    Mistake("append", "line 1: aggregate_id is missing or not a non-empty string", stdin=b'{"aggregate_type": "A"}'),
    Mistake("append", "line 1: unknown key payloda", stdin=LINE[:-1] + b', "payloda": 1}'),
    Mistake("append", "line 2: Extra data", stdin=LINE + b"\n" + LINE + LINE),
    Mistake(EVENT + " --payload {", "--payload is not JSON: "),
    Mistake(EVENT + " --payload NaN", "--payload is not JSON: NaN is not JSON"),
    Mistake(EVENT + " --expected=-1", "'-1' is neither any, none nor a version"),
    Mistake(EVENT + " --expected 1.0", "'1.0' is neither any, none nor a version"),
    Mistake(EVENT + " --expected 5", "default/Order/1 is at version 0, not at 5", FAILED),
    Mistake("append --aggregate-id 1", "append of one event needs --aggregate-type and --event-type too"),
    Mistake("append events.jsonl", "unrecognized arguments: events.jsonl"),
    Mistake(EVENT, "there is no schema reactive_orch", environment={"DATABASE_URL": "{empty}"}),
    Mistake("status --replica-set shopp", "there is no replica set 'shopp'; there are shop"),
    Mistake("status shop", "unrecognized arguments: shop"),
    Mistake("trace --replica-set shopp", "there is no generation of a replica set 'shopp' on record"),
    Mistake("trace 99 --replica-set shop", "there is no generation 99 of a replica set 'shop' on record"),
    Mistake("trace 0 --replica-set shop", "there is no generation 0 of a replica set 'shop' on record"),
    Mistake(f"trace {10**17} --replica-set shop", "there is no generation 100000000000000000 of a replica set 'shop'"),
    Mistake("trace", "required: --replica-set"),
    Mistake("dead-letters list --replica-set shopp", "there is no replica set 'shopp'; there are shop"),
    Mistake(
        "dead-letters list --replica-set shop --projection mails", "has no projection 'mails'; there are event_counts"
    ),
    Mistake(f"dead-letters show {OF_SHOP} --yes", "dead-letters show takes no --yes"),
    Mistake("dead-letters list --replica-set shop --all --wait", "dead-letters list takes no --all and no --wait"),
    Mistake(f"dead-letters retry {OF_SHOP} --all --json", "dead-letters retry takes no --json"),
    Mistake("dead-letters retry --replica-set shop", "dead-letters retry needs --projection"),
    Mistake(f"dead-letters retry {OF_SHOP}", "needs --key or --all, and not both"),
    Mistake(f"dead-letters retry {OF_SHOP} --key 1 --all", "needs --key or --all, and not both"),
    Mistake(f"dead-letters retry {OF_SHOP} --key 1", "no failing key of projection event_counts is that"),
    Mistake(
        f"dead-letters discard {OF_SHOP} --all --yes", "no key of projection event_counts fails: there is nothing to"
    ),
    Mistake(f"dead-letters skip {OF_SHOP} --all", "dead-letters skip leaves out one event: give its --key"),
    Mistake("dead-letters --replica-set shop", "required: action"),
    Mistake("dead-letters remove --replica-set shop", "argument action: 'remove' is none of list, show"),
    Mistake(
        "pause --replica-set shop --projection mails",
        "replica set shop has no projection 'mails'; there are event_counts",
    ),
    Mistake("resume --replica-set nowhere --projection mails", "there is no replica set 'nowhere'; there are shop"),
    Mistake(f"pause {OF_SHOP} --reasn x", "unrecognized arguments: --reasn; did you mean --reason?"),
    Mistake(
        "rewind --replica-set shop --projection mails --to start",
        "replica set shop has no projection 'mails'; there are event_counts",
    ),
    Mistake("rewind --replica-set shopp --projection mails --to keep", "no replica set 'shopp'; there are shop"),
    Mistake("doctor --replica-set shopp", "there is no replica set 'shopp'; there are shop"),
    Mistake(f"rewind {OF_SHOP}", "required: --to"),
    Mistake(f"rewind {OF_SHOP} --to 99", "--to 99: give start, keep, a time, or a position up to 0"),
    Mistake(f"rewind {OF_SHOP} --to -1", "--to -1: give start, keep, a time, or a position"),
    Mistake(f"rewind {OF_SHOP} --to 2026-13-01", "--to 2026-13-01: give start, keep, a time"),
    Mistake(f"rewind {OF_SHOP} --to keep", "nothing to do"),
    Mistake(f"rewind {OF_SHOP} --to start --load shop", "--load shop: there is no projection 'event_counts'"),
    Mistake(f"rewind {OF_SHOP} --to start --load raises", "--load raises: importing 'raises' failed: RuntimeError"),
    Mistake(
        f"rewind {OF_SHOP} --to start --load shop --no-reset", "argument --no-reset: not allowed with argument --load"
    ),
    Mistake(f"rewind {OF_SHOP} --to 7 --load shop", "--load is for --to start"),
    Mistake(f"rewind {OF_SHOP} --to 0", "set event_counts to position 0? say so with --yes"),
    Mistake("replica-sets", "required: action"),
    Mistake("replica-sets remove", "replica-sets remove needs --replica-set"),
    Mistake("replica-sets remove --replica-set shopp --yes", "there is no replica set 'shopp'; there are shop"),
    Mistake("replica-sets remove --replica-set shop", "say so with --yes"),
    Mistake("replica-sets list --yes", "replica-sets list shows all of them, and takes no option but --json"),
]


@pytest.fixture(scope="module")
def shop(cluster: Cluster, template: str) -> Iterator[str]:
    """A database with a replica set of which a worker has run. Nothing of what follows changes it."""
    with copied(cluster, "mistakes", template) as url:
        ended = asyncio.run(run_worker("--replica-set", "shop", url=url))
        assert ended.code == 0, ended
        yield url


@pytest.fixture(scope="module")
def held(shop: str) -> dict[str, str]:
    """What its tables hold, before the mistakes and after each."""
    return asyncio.run(rows(shop))


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """An address that somebody serves already."""
    with socket.socket() as serving:
        serving.bind(("127.0.0.1", 0))
        serving.listen()
        yield f"127.0.0.1:{serving.getsockname()[1]}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, which is the current one."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


async def rows(url: str) -> dict[str, str]:
    """Return a hash of all that each table holds."""
    async with connected(url) as connection:
        tables = [row[0] for row in await connection.fetch(TABLES)]
        each = (
            f"SELECT '{t}', md5(string_agg(t::text, ',' ORDER BY t::text)) FROM reactive_orch.{t} t"  # noqa: S608 - our tables
            for t in tables
        )
        return dict(map(tuple, await connection.fetch(" UNION ALL ".join(each))))


_names = (f"{number:03}-{mistake.arguments.partition(' ')[0]}" for number, mistake in enumerate(MISTAKES))


@pytest.fixture
def known(shop: str, taken: str, project: Path) -> Mapping[str, str]:
    """What the names in braces stand for."""
    empty = shop.replace("/mistakes", "/template1")
    return {"url": shop, "port": str(urlsplit(shop).port), "cwd": str(project), "taken": taken, "empty": empty}


def run(mistake: Mistake, known: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command, in its environment; return its exit code."""
    for name in [name for name in os.environ if re.match(r"DATABASE_URL|POSTGRES_|PG(?!15_BIN)|OTEL_", name)]:
        monkeypatch.delenv(name)
    for name, value in {"DATABASE_URL": "{url}", **mistake.environment}.items():
        if value is not None:
            monkeypatch.setenv(name, filled(value, known))
    file = Path(known["cwd"]) / "stdin"
    file.write_bytes(mistake.stdin)
    with file.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        return cli.main(filled(mistake.arguments, known).split(" "))


def filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: known[match[1]], text)


@pytest.mark.parametrize("mistake", MISTAKES, ids=_names)
def test_a_mistake(
    mistake: Mistake,
    known: Mapping[str, str],
    held: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = run(mistake, known, monkeypatch)
    out, err = capfd.readouterr()
    assert re.fullmatch(r"reactive_orch: [^\n]+\n", err), err
    assert filled(mistake.says, known) in err
    assert code == mistake.code
    assert not re.search("hush|s3.cret|Traceback", out + err)
    assert asyncio.run(rows(known["url"])) == held


def test_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main(["--replica-set", "r", "--database-url", "postgresql://127.0.0.1:1/shop"]) == CONFIG
    words = (
        "the current folder, where projections are looked for, cannot be used: No such file or directory: go to another"
    )
    assert capfd.readouterr().err == f"reactive_orch: {words}\n"


def test_there_are_a_hundred() -> None:
    assert len(MISTAKES) >= 100
    assert not [a for a, b in itertools.combinations(MISTAKES, 2) if a == b]

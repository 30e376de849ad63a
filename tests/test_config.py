"""The configuration: every rule, all complaints at once, and database addresses in all their forms."""

from __future__ import annotations

import inspect
import os
import pwd
import string
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st

from reactive_orch import address as addresses
from reactive_orch.address import database_url_of_libpq, database_url_of_parts
from reactive_orch.config import Config, shown
from reactive_orch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

URL = "postgresql://host/db"


def config(**values: Any) -> Config:
    return Config(database_url=URL, **values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"batch_events": 1, "retries": 0, "grace_s": 0, "connections_max": 6},
        {"batch_events": 100_000, "retries": 1000, "connections_max": 1000},
        {"heartbeat_s": 0.05, "stale_after_s": 0.15},
        {"heartbeat_s": 0.1, "stale_after_s": 0.3},
        {"heartbeat_s": 3600, "stale_after_s": 86_400},
        {"grace_s": float("inf")},
    ],
)
def test_values_at_the_limits(values: dict[str, Any]) -> None:
    made = config(**values)
    assert all(getattr(made, name) == value for name, value in values.items())


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"batch_events": 0}, r"--batch \(batch_events\) must be 1 to 100000, not 0"),
        ({"batch_events": 100_001}, r"--batch \(batch_events\) must be"),
        ({"heartbeat_s": 0.04}, r"--heartbeat \(heartbeat_s\) must be 0.05 to 3600 seconds, not 0.04"),
        ({"heartbeat_s": -1}, r"--heartbeat \(heartbeat_s\) must be"),
        ({"heartbeat_s": 3601, "stale_after_s": 20_000}, r"--heartbeat \(heartbeat_s\) must be"),
        ({"heartbeat_s": 4}, r"--stale-after \(stale_after_s\) must be at least three heartbeats \(12 s\), not 10:"),
        (
            {"stale_after_s": 5.9},
            r"--stale-after \(stale_after_s\) must be at least three heartbeats \(6 s\), not 5.9:",
        ),
        ({"stale_after_s": float("nan")}, "--stale-after"),
        ({"stale_after_s": float("inf")}, "--stale-after"),
        ({"retries": -1}, r"--retries \(retries\) must be 0 to 1000, not -1"),
        ({"retries": 1001}, r"--retries \(retries\) must be"),
        ({"handler_timeout_s": 0}, r"--handler-timeout \(handler_timeout_s\) must be 0.001 to 86400 seconds, not 0"),
        ({"handler_timeout_s": float("nan")}, r"--handler-timeout \(handler_timeout_s\) must be"),
        ({"handler_timeout_s": float("inf")}, r"--handler-timeout \(handler_timeout_s\) must be"),
        ({"grace_s": -0.1}, "grace_s must not be negative"),
        ({"grace_s": float("nan")}, "grace_s must not be negative"),
        ({"connections_max": 5}, r"--connections \(connections_max\) must be 6 to 1000, not 5"),
        ({"connections_max": 1001}, r"--connections \(connections_max\) must be 6 to 1000, not 1001"),
    ],
)
def test_each_rule(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        config(**values)
    assert ";" not in str(caught.value), "one complaint"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"stale_after_s": None}, "stale_after_s must be a number, not NoneType"),
        ({"retries": True}, "retries must be a whole number, not bool"),
        ({"batch_events": 10.0}, "batch_events must be a whole number, not float"),
        ({"heartbeat_s": "2"}, "heartbeat_s must be a number, not str"),
        ({"trace_events": 1}, "trace_events must be True or False, not int"),
        ({"on_error": ["park"]}, "on_error must be text, not list"),
        ({"database_url": None}, "database_url must be text, not NoneType"),
        ({"database_url": b"hush"}, "database_url must be text, not bytes"),
        ({"database_url": None, "retries": None}, "not NoneType; retries must be a whole number, not NoneType"),
        ({"database_url": " "}, "database_url is empty: give the address of the database"),
    ],
)
def test_values_of_another_type(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        Config(**{"database_url": URL, **values})
    assert "hush" not in str(caught.value)


def test_all_complaints_come_at_once() -> None:
    wrong = (
        "batch_events",
        "heartbeat_s",
        "stale_after_s",
        "retries",
        "handler_timeout_s",
        "grace_s",
        "connections_max",
    )
    with pytest.raises(ConfigError) as caught:
        config(**dict.fromkeys(wrong, -1) | {"heartbeat_s": 9999})
    assert len(str(caught.value).split("; ")) == len(wrong)


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        config().retries = 7  # type: ignore[misc]


def database_url(text: str, **environment: str) -> str:
    return addresses.database_url(text, environment)


def connects_to(url: str) -> tuple[list[tuple[str, int] | str], Any]:
    """Return the addresses and parameters that asyncpg reads from a URL."""
    parse = vars(connect_utils)["_parse_connect_dsn_and_args"]  # there is no public way to ask
    arguments: dict[str, Any] = dict.fromkeys(inspect.signature(parse).parameters)
    hosts, parameters = parse(**{**arguments, "dsn": url})[:2]
    return hosts, parameters


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://user:secret@host:5432/db",
        "postgres://user@host",
        "postgresql:///db?host=/run/postgresql&user=u",
        "postgresql://u@a:1,b:2/db?target_session_attrs=primary",
        "postgresql://user:p%40ss%2Fword@host:5432/db?sslmode=require",
    ],
)
def test_a_uri_stays_as_it_is(uri: str) -> None:
    assert database_url(f"  {uri}\n") == uri
    connects_to(uri)


LIBPQS = (
    "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding "
    "options application_name fallback_application_name keepalives keepalives_idle keepalives_interval "
    "keepalives_count tcp_user_timeout replication gssencmode sslmode sslnegotiation sslcompression sslcert sslkey "
    "sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version "
    "ssl_max_protocol_version min_protocol_version max_protocol_version krbsrvname gsslib gssdelegation service "
    "target_session_attrs load_balance_hosts"
)


@pytest.mark.parametrize("word", LIBPQS.split())
def test_no_word_of_psql_is_taken_for_a_mistyped_one(word: str) -> None:
    said = ""
    try:
        database_url(f"host=h user=u {word}=1")
    except ConfigError as error:
        said = str(error)
    assert "has no word" not in said


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://u@a:1,b:2,[::1]:3/d", ([("a", 1), ("b", 2), ("::1", 3)], "u", None, "d")),
        ("postgresql://u:p%40@[::1]/d", ([("::1", 5432)], "u", "p@", "d")),
        ("postgresql://u:p[q@h/d", ([("h", 5432)], "u", "p[q", "d")),
        (
            "postgresql://u:p\N{FULLWIDTH COMMERCIAL AT}q@h/d",
            ([("h", 5432)], "u", "p\N{FULLWIDTH COMMERCIAL AT}q", "d"),
        ),
        ("postgresql://u@h/d?password=a+b", ([("h", 5432)], "u", "a+b", "d")),
        ("postgresql://u@a,b:2/d", ([("a", 5432), ("b", 2)], "u", None, "d")),
        ("postgresql://u@%2Frun%2Fpg/d", (["/run/pg/.s.PGSQL.5432"], "u", None, "d")),
        ("postgresql://u@h/", ([("h", 5432)], "u", None, "u")),
        ("postgresql://u@h/d?hostaddr=10.0.0.1&connect_timeout=3&keepalives=1", ([("10.0.0.1", 5432)], "u", None, "d")),
    ],
)
def test_a_uri_is_read_as_psql_does(uri: str, expected: tuple[Any, ...]) -> None:
    hosts, parameters = connects_to(database_url(uri))
    assert (hosts, parameters.user, parameters.password, parameters.database) == expected
    assert not parameters.server_settings


@pytest.mark.parametrize("address", ["postgresql://h/d", "host=h dbname=d"])
def test_the_user_is_pguser_or_that_of_the_system(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert connects_to(database_url(address))[1].user == me
    monkeypatch.setenv("PGUSER", "ann")
    assert connects_to(database_url(address, PGUSER="ann"))[1].user == "ann"
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(ConfigError, match="names no user, and this system has no name for its user 4000000"):
        database_url(address)


SERVICES = """
# ours
[other]
host=elsewhere
[shop]
host=h
port=5433

dbname=d = 1
user=u
password=p%(x)s q
[last]
"""


@pytest.mark.parametrize("address", ["service=shop", "postgresql://?service=shop", "dbname='d = 1'", "postgresql:///"])
@pytest.mark.parametrize("where", ["PGSERVICEFILE", "HOME", "PGSYSCONFDIR"])
def test_a_service_says_the_rest(address: str, where: str, tmp_path: Path) -> None:
    file = tmp_path / (".pg_service.conf" if where == "HOME" else "pg_service.conf")
    file.write_text(SERVICES)
    environment = {"HOME": "/nowhere", "PGSERVICE": "shop", where: str(file if where == "PGSERVICEFILE" else tmp_path)}
    hosts, parameters = connects_to(database_url(address, **environment))
    assert hosts == [("h", 5433)]
    assert (parameters.user, parameters.password, parameters.database) == ("u", "p%(x)s q", "d = 1")


def test_what_is_given_beside_a_service_comes_first(tmp_path: Path) -> None:
    (tmp_path / "services").write_text(SERVICES)
    url = database_url("service=shop port=1 dbname=mine", PGSERVICEFILE=str(tmp_path / "services"), PGSERVICE="other")
    hosts, parameters = connects_to(url)
    assert (hosts, parameters.database) == ([("h", 1)], "mine")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("service=none", "service 'none' is in none of .*services, .*pg_service.conf"),
        ("service=odd", "services: line 2 is no key=value word"),
        ("service=nested", "services: line 4 is no key=value word, or names another service"),
        ("host=h channel_binding=require", "asks for channel_binding=require, which is not possible here"),
        ("postgresql://h/d?gssencmode=require", "asks for gssencmode=require"),
        ("host=h require_auth=scram-sha-256", "asks for require_auth="),
        ("host=h sslrootcert=system", "asks for sslrootcert=system, .*: name a file"),
        ("host=h sslmode=verify-full sslrootcert=/no/file", "says sslrootcert=/no/file, and there is no such file"),
        ("host=h sslmode=verify-ca", "sslmode=verify-ca needs the certificate of whoever has signed"),
    ],
)
def test_what_cannot_be_done_is_refused(address: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "services").write_text("[odd]\nhush\n[nested]\nservice=shop\n")
    with pytest.raises(ConfigError, match=complaint) as caught:
        database_url(address, PGSERVICEFILE=str(tmp_path / "services"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "host", "user", "password", "database"),
    [
        ("host=h port=5433 user=u password=p dbname=d", ("h", 5433), "u", "p", "d"),
        ("  host = h  user= u\tpassword =p\ndbname=d ", ("h", 5432), "u", "p", "d"),
        (r"host=h user='u v' password='it\'s \\' dbname=d", ("h", 5432), "u v", "it's \\", "d"),
        (r"host=h user=u\ v password=a\\b\'c dbname=d", ("h", 5432), "u v", r"a\b'c", "d"),
        ("host=h user=u password=a=b&c?d#e/f@g:h%20+ dbname=d", ("h", 5432), "u", "a=b&c?d#e/f@g:h%20+", "d"),
        ("host=h user=u password=p database=d", ("h", 5432), "u", "p", "d"),
        ("hostaddr=10.0.0.1 user=u password=p dbname=d", ("10.0.0.1", 5432), "u", "p", "d"),
        ("host=h user=u password=p dbname='a/b?c d' connect_timeout=3", ("h", 5432), "u", "p", "a/b?c d"),
        ("host=h user=ü password=пароль dbname=数据", ("h", 5432), "ü", "пароль", "数据"),
        ("host=h user=u password='' dbname=d", ("h", 5432), "u", None, "d"),
    ],
)
def test_words(words: str, host: tuple[str, int], user: str, password: str | None, database: str) -> None:
    hosts, parameters = connects_to(database_url(words))
    assert hosts == [host]
    assert (parameters.user, parameters.password, parameters.database) == (user, password, database)


def test_words_keep_sslmode_sockets_and_several_hosts() -> None:
    assert connects_to(database_url("host=a,b port=1,2 user=u dbname=d sslmode=disable"))[0] == [("a", 1), ("b", 2)]
    assert connects_to(database_url("host=/run/pg user=u dbname=d"))[0] == ["/run/pg/.s.PGSQL.5432"]
    assert database_url("user=u sslmode=require") == "postgresql://?user=u&sslmode=require"


@pytest.mark.parametrize("host", ["::1", "fe80::1,h,[::2]", "10.0.0.1,2001:db8::ff"])
def test_words_with_ipv6_addresses(host: str) -> None:
    hosts, _ = connects_to(database_url(f"host={host} port=5433 user=u dbname=d"))
    assert hosts == [(one.strip("[]"), 5433) for one in host.split(",")]


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("", "neither a URI"),
        ("localhost", "neither a URI"),
        ("http://host/db", "neither a URI"),
        ("mysql://user:secret@host/db", "neither a URI"),
        ("host=h password='secret", "from its character 7 on"),
        ("host=h secret", "from its character 7 on"),
        ("host=h password=sec'ret", "from its character 7 on"),
        ("host=h password='secret'x", "from its character 7 on"),
        ("host=h password='secret''x'", "from its character 7 on"),
        ("host=h port=secret", "port must be a number"),
        ("host=h port=70000", "port must be a number"),
        ("host=h prot=6543", "no word prot: is it port"),
        ("host=h usr=ann", "no word usr: is it user"),
        ("postgresql://host/db?passwrd=secret", "no word passwrd: is it password"),
        ("postgresql://host:http/db", "not a valid URI"),
        ("postgresql://host:0/db", "not a valid URI"),
        ("postgresql://a:1,b:x/db", "not a valid URI"),
        ("postgresql://user:secret/x@host/db", "not a valid URI"),
        ("postgresql://user:secret#x@host/db", "not a valid URI"),
        ("postgresql://[::1/db", "not a valid URI"),
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(address: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        database_url(address)
    assert "password='secret" not in str(caught.value)
    assert "user:secret" not in str(caught.value)


def test_parts() -> None:
    assert database_url_of_parts({}) is None
    assert database_url_of_parts({"POSTGRES_HOST": "", "OTHER": "x"}) is None
    every = {"HOST": "h", "PORT": "5433", "USER": "u v", "PASSWORD": "p@/:?#&=+%20'\\", "DB": "d/e"}
    url = database_url_of_parts({f"POSTGRES_{name}": value for name, value in every.items()})
    hosts, parameters = connects_to(url or "")
    assert hosts == [("h", 5433)]
    assert (parameters.user, parameters.password, parameters.database) == ("u v", every["PASSWORD"], "d/e")


def test_parts_without_a_host_are_on_this_machine() -> None:
    url = database_url_of_parts({"POSTGRES_USER": "u", "POSTGRES_DB": "d"})
    assert connects_to(url or "")[0] == [("localhost", 5432)]


def test_parts_with_a_port_that_is_none() -> None:
    with pytest.raises(ConfigError, match="port must be a number"):
        database_url_of_parts({"POSTGRES_PORT": "http"})


anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
secrets = anything.map(lambda text: f"hush{text}hush")


def in_words(password: str) -> str:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    return database_url(f"host=h user=u password='{quoted}' dbname=d")


def in_parts(password: str) -> str:
    return database_url_of_parts({"POSTGRES_USER": "u", "POSTGRES_PASSWORD": password, "POSTGRES_HOST": "h"}) or ""


def in_the_authority(password: str) -> str:
    return f"postgresql://u:{quote(password, safe='')}@h:5432/d?sslmode=disable"


def in_the_query(password: str) -> str:
    return f"postgresql://h/d?user=u&password={quote(password, safe='')}&sslmode=disable"


def hardly_quoted(password: str) -> str:
    return f"postgresql://u:{quote(password, safe=string.punctuation.translate(str.maketrans('', '', '/?#[]%')))}@h/d"


FORMS = [in_words, in_parts, in_the_authority, in_the_query]


@pytest.mark.parametrize("form", FORMS)
@given(password=anything)
def test_every_password_arrives(form: Callable[[str], str], password: str) -> None:
    url = database_url(form(password))
    hosts, parameters = connects_to(url)
    assert (hosts, parameters.user, parameters.password) == ([("h", 5432)], "u", password)


@pytest.mark.parametrize("form", [*FORMS, hardly_quoted])
@given(password=secrets)
def test_no_password_is_shown(form: Callable[[str], str], password: str) -> None:
    text = shown(form(password))
    assert "hush" not in text
    assert "h" in text, "the host is"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://u:p@h:5432/d?sslmode=disable", "postgresql://u@h:5432/d?sslmode=disable"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        (
            "postgresql:///d?host=h&password=p&sslpassword=q&user=u",
            "postgresql:///d?host=h&password=…&sslpassword=…&user=u",
        ),
        ("postgresql://u:p@a:1,b:2/d", "postgresql://u@a:1,b:2/d"),
        ("postgresql://:p@h/d", "postgresql://@h/d"),
        ("postgresql://u:a@b@h/d", "postgresql://u@h/d"),
    ],
)
def test_shown(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize(
    ("environment", "uri"),
    [
        ({}, None),
        ({"PGPASSWORD": "hush", "PGUSER": "ann", "PGPORT": "5433", "PGSSLMODE": "require", "PGHOST": ""}, None),
        ({"PGHOST": "h", "PGUSER": "ann", "PGPASSWORD": "hush"}, "postgresql://?host=h&user=ann"),
        ({"PGHOST": "h", "PGHOSTADDR": "::1", "PGUSER": "ann"}, "postgresql://?host=%5B%3A%3A1%5D&user=ann"),
        ({"PGDATABASE": "a b", "PGPORT": "1", "PGUSER": "ann"}, "postgresql:///a%20b?port=1&user=ann"),
    ],
)
def test_what_libpq_goes_by_names_a_database_or_nothing(environment: dict[str, str], uri: str | None) -> None:
    assert database_url_of_libpq(environment) == uri


def test_a_service_comes_before_the_other_variables(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("[shop]\nhost=there\ndbname=shop\n")
    environment = {"PGSERVICE": "shop", "PGSERVICEFILE": str(file), "PGHOST": "here", "PGPORT": "1", "PGUSER": "ann"}
    assert database_url_of_libpq(environment) == "postgresql:///shop?host=there&port=1&user=ann"

"""A database's address, in any form that psql reads, as the URI that leads asyncpg to the same database.

What cannot be is refused here, in one line that does not show the address: any part of it may be of the password. Where
libpq and asyncpg differ libpq is right, as the same words are given to psql: services, `+` and empty parts in a URI,
`hostaddr`, who the user is. A demand that asyncpg would pass over in silence (`channel_binding=require`) is refused.
"""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode

from reactive_orch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT_MAX = 65_535
PORT_DEFAULT = "5432"

_WITHOUT_EFFECT = frozenset(
    {
        "connect_timeout",  # connecting is bounded anyway
        "fallback_application_name",
        "gssencmode",  # unless it is required
        "channel_binding",  # likewise
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "sslcompression",
        "sslsni",
    }
)
"""libpq's words that are left out: asyncpg would send them as settings, and the server does not know them."""

_DEMANDS = {
    "channel_binding": "require",
    "gssencmode": "require",
    "require_auth": None,
    "requirepeer": None,
    "sslcertmode": "require",
    "sslrootcert": "system",
}
"""libpq's words that protect → the value that asyncpg cannot grant; None: it can grant none."""


_MISTYPED = ("host", "port", "user", "password", "dbname", "database", "sslmode")
"""Words that people write by hand. The server refuses what it does not know, but only if the right one answers."""
_LIKE_THEM = frozenset({"sslpassword", "sslcertmode"})
"""libpq's words that look like those."""


def database_url(text: str, environment: Mapping[str, str] | None) -> str:
    """Return the URI of an address: a postgresql:// URI, or libpq's `key=value` words.

    One that names SQLAlchemy's driver (postgresql+asyncpg://) is the same without it.

    Of the environment it reads PGSERVICE, PGSERVICEFILE, PGSYSCONFDIR, HOME and PGUSER, as libpq does; asyncpg reads
    the other variables. None: there is none to be read, and asyncpg says who the user is. A URI that asyncpg reads as
    libpq does is returned as it is. Raises ConfigError when the text is neither, or asks for what cannot be.
    """
    text = re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", text.strip())
    if re.match(r"postgres(ql)?://", text):
        asked = _words_of_uri(text)
        words = _resolved(asked, environment)
        return text if words == asked and _reads_alike(text) else _uri_of(words)
    if re.match(r"\w+\s*=", text):
        return _uri_of(_resolved(_words(text), environment))
    msg = (
        "the database address is neither a URI (postgresql://user:password@host:5432/database) "
        "nor key=value words (host=… port=… user=… password=… dbname=…)"
    )
    raise ConfigError(msg)


def database_url_of_parts(environment: Mapping[str, str]) -> str | None:
    """Return the URI that POSTGRES_HOST, _PORT, _USER, _PASSWORD and _DB describe; None when none of them is set.

    Raises ConfigError for a port that is none, and when there is no user.
    """
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "DB": "dbname"}
    words = {word: environment.get(f"POSTGRES_{name}", "") for name, word in names.items()}
    if not any(words.values()):
        return None
    words["host"] = words["host"] or "localhost"
    return _uri_of(_with_user(_checked({word: value for word, value in words.items() if value}), environment))


def database_url_of_libpq(environment: Mapping[str, str]) -> str | None:
    """Return the URI that PGHOST and its like describe; None when none of them names a server or a database.

    Who sets only PGPASSWORD, or PGUSER, has named none. asyncpg reads the variables that are not in the URI. Raises
    ConfigError as `database_url` does.
    """
    if not any(environment.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE")):
        return None
    names = {"PGHOST": "host", "PGHOSTADDR": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname"}
    words = {word: environment[name] for name, word in names.items() if environment.get(name)}
    return _uri_of(_checked(words) | _resolved({}, environment))


def user_of(uri: str, environment: Mapping[str, str]) -> str:
    """Return the user whom a URI names that one of the above has returned; else PGUSER does."""
    return _words_of_uri(uri).get("user") or environment["PGUSER"]


def in_database(uri: str, name: str) -> str:
    """Return the URI of another database of the same server; its name has letters, digits and underscores only."""
    before, query, words = uri.partition("?")
    kept = [word for word in words.split("&") if word.partition("=")[0] not in {"dbname", "database"}]
    server = re.match(r"\w+://[^/]*", before)
    assert server is not None, "it is a URI"
    return f"{server[0]}/{name}{query}{'&'.join(kept)}"


_URI = re.compile(r"postgres(?:ql)?://(?:([^@/?#]*)@)?([^@/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?")
_HOST = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::(\d*))?")


def _words_of_uri(text: str) -> dict[str, str]:
    """Return the words that a URI says, those without a value left out."""
    match = _URI.fullmatch(text)
    hosts = [_HOST.fullmatch(host) for host in match[2].split(",")] if match else [None]
    if match is None or not all(hosts):
        raise _no_uri()
    user, _, password = (match[1] or "").partition(":")
    ports = [host[2] or "" for host in hosts if host]
    words = {
        "user": user,
        "password": password,
        "host": ",".join(host[1].strip("[]") for host in hosts if host),
        "port": ",".join(port or PORT_DEFAULT for port in ports) if any(ports) else "",
        "dbname": match[3] or "",
    }
    query = [pair.partition("=") for pair in (match[4] or "").split("&") if pair]
    if not all(equals for _, equals, _ in query) or not all(map(_is_port, ports)):
        raise _no_uri()
    words = {word: unquote(value) for word, value in words.items() if value}
    return _checked(words | {unquote(word): unquote(value) for word, _, value in query if value})


def _no_uri() -> ConfigError:
    return ConfigError(
        "the database address is not a valid URI: it is written postgresql://user:password@host:5432/database, "
        f"with a port of at most {PORT_MAX}, and special characters of the password as %XX (/ as %2F, @ as %40)"
    )


_WORD = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")


def _words(text: str) -> dict[str, str]:
    words: dict[str, str] = {}
    at = 0
    while at < len(text.rstrip()):
        match = _WORD.match(text, at)
        if match is None:
            msg = f"the database address cannot be read as key=value words from its character {at + 1} on"
            raise ConfigError(msg)
        value = re.sub(r"\\(.)", r"\1", match[2][1:-1] if match[2].startswith("'") else match[2])
        if value:
            words[match[1]] = value
        at = match.end()
    return _checked(words)


def _checked(words: dict[str, str]) -> dict[str, str]:
    """Return the words, `database` by libpq's name. Raises ConfigError for a port that is none."""
    if not all(map(_is_port, words.get("port", "").split(","))):
        msg = f"the database's port must be a number from 1 to {PORT_MAX}, not {words['port']!r}"
        raise ConfigError(msg)
    for word in sorted(words.keys() - _LIKE_THEM - set(_MISTYPED)):
        if (meant := _meant(word)) is not None:
            msg = f"the database address has no word {word}: is it {meant}?"
            raise ConfigError(msg)
    return {"dbname" if word == "database" else word: value for word, value in words.items()}


def _meant(word: str) -> str | None:
    """Return the word that was probably meant; None if this is like none of them."""
    from difflib import get_close_matches  # for the few addresses that have other words: a start need not wait for it

    return next(iter(get_close_matches(word, _MISTYPED, n=1, cutoff=0.74)), None)


def _is_port(text: str) -> bool:
    return not text or (text.isdecimal() and 0 < int(text) <= PORT_MAX)


def _reads_alike(uri: str) -> bool:
    """Tell whether asyncpg reads a URI as libpq does.

    asyncpg takes + for a space, and an empty path for the name of a database. It refuses characters that become signs
    of a URI when they are normalized, and from Python 3.13 on [::1] beside other hosts.
    """
    return uri.isascii() and not re.search(r"[\[+]|//[^/?]*/(\?|$)", uri)


def _uri_of(words: Mapping[str, str]) -> str:
    parameters = dict(words)
    if "host" in parameters:
        parameters["host"] = re.sub(r"(?<![^,])[\da-fA-F]*:[^,]*:[^,]*", r"[\g<0>]", parameters["host"])  # IPv6
    # No empty path: asyncpg would take it for a name, and not look at PGDATABASE.
    path = f"/{quote(parameters.pop('dbname'), safe='')}" if "dbname" in parameters else ""
    return f"postgresql://{path}?{urlencode(parameters, quote_via=quote)}"


def _resolved(asked: Mapping[str, str], environment: Mapping[str, str] | None) -> dict[str, str]:
    """Return the words with what their service says besides, and without those that asyncpg would not understand."""
    words = dict(asked)
    service = words.pop("service", None) or (environment or {}).get("PGSERVICE")
    if service:
        words = _words_of_service(service, environment or {}) | words
    for word, impossible in _DEMANDS.items():
        if word in words and impossible in {None, words[word]}:
            msg = f"the database address asks for {word}={words[word]}, which is not possible here"
            more = ": name a file, such as /etc/ssl/certs/ca-certificates.crt" if word == "sslrootcert" else ""
            raise ConfigError(msg + more)
    if "hostaddr" in words:
        words["host"] = words.pop("hostaddr")
    words = {word: value for word, value in words.items() if word not in _WITHOUT_EFFECT}
    return words if environment is None else _with_user(words, environment)


_FILES = {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "sslcrl": "PGSSLCRL"}
"""Words that name a file → the variable that does in their place."""


def _demand_certificates(words: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Raise ConfigError for a file that is not there, also for the one that verifying needs: asyncpg says not which."""
    mode = words.get("sslmode") or environment.get("PGSSLMODE", "")
    named = {word: words.get(word) or environment.get(name, "") for word, name in _FILES.items()}
    missing = next((f"{word}={file}" for word, file in named.items() if file and not Path(file).is_file()), None)
    if missing is not None:
        msg = f"the database address says {missing}, and there is no such file"
        raise ConfigError(msg)
    default = Path(environment.get("HOME") or "~").expanduser() / ".postgresql" / "root.crt"
    if mode in _VERIFYING and not named["sslrootcert"] and not default.is_file():
        msg = (
            f"sslmode={mode} needs the certificate of whoever has signed the server's: "
            f"name its file by sslrootcert=…, or put it at {default}"
        )
        raise ConfigError(msg)


_VERIFYING = ("verify-ca", "verify-full")


def _with_user(words: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the words with a user, unless PGUSER names it: by the system's name, whatever USER and LOGNAME say."""
    _demand_certificates(words, environment)
    if "user" in words or environment.get("PGUSER"):
        return words
    try:
        return words | {"user": pwd.getpwuid(os.geteuid()).pw_name}
    except KeyError:
        msg = f"the database address names no user, and this system has no name for its user {os.geteuid()}"
        raise ConfigError(msg) from None


def _words_of_service(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a service file says of a service. Raises ConfigError when none knows it, or it cannot be read."""
    home = Path(environment.get("HOME") or "~").expanduser()
    files = [
        Path(environment.get("PGSERVICEFILE") or home / ".pg_service.conf"),
        # libpq has it compiled in: this is Debian's.
        Path(environment.get("PGSYSCONFDIR") or "/etc/postgresql-common") / "pg_service.conf",
    ]
    for file in files:
        words = _section(file, service)
        if words is not None:
            return words
    msg = f"the database's service {service!r} is in none of {', '.join(map(str, files))}"
    raise ConfigError(msg)


def _section(file: Path, service: str) -> dict[str, str] | None:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        msg = f"the service file {file} cannot be read: {type(error).__name__}"
        raise ConfigError(msg) from error
    if f"[{service}]" not in lines:
        return None
    words: dict[str, str] = {}
    for number, line in enumerate(lines[(first := lines.index(f"[{service}]") + 1) :], start=first + 1):
        if line.startswith("["):
            break
        if not line or line.startswith("#"):
            continue
        word, equals, value = line.partition("=")
        if not equals or word == "service":
            msg = f"the service file {file}: line {number} is no key=value word, or names another service"
            raise ConfigError(msg)
        words.setdefault(word, value)
    return _checked({word: value for word, value in words.items() if value})

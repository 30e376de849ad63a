"""Commands that help, as a shell takes them: ours, and psql's."""

from __future__ import annotations

from shlex import quote

from reactive_orch.model.problems import option

PSQL = 'psql "$DATABASE_URL"'
_CALL = "SELECT"


def ours(word: str, **options: str) -> str:
    """Return a command of ours with its options."""
    return " ".join(
        [
            "python -m reactive_orch",
            word,
            *(option(f"--{name.replace('_', '-')}", value) for name, value in options.items()),
        ]
    )


def psql(*statements: str) -> str:
    """Return the command that has the database execute these."""
    return " ".join([PSQL, *(f"-c {quoted(each)}" for each in statements)])


def piped(command: str) -> str:
    """Return the command that has the database execute what another one prints."""
    return f"{command} | {psql()}"


def quoted(text: str) -> str:
    """Return a text as one word; what has single quotes in it, which SQL has, stands in double ones if it may."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else quote(text)


def call(function: str) -> str:
    """Return the statement that calls a function."""
    return f"{_CALL} {function}"


def ending(pid: int | None, prepared: str | None) -> str:
    """Return the command that ends a session, or without its number takes back a prepared transaction."""
    return psql(
        call(f"pg_terminate_backend({pid})") if pid is not None else f"ROLLBACK PREPARED {literal(prepared or '')}"
    )


def identifier(name: str) -> str:
    """Return a name as SQL takes it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Return a text as SQL takes it."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"

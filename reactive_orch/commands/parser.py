"""argparse for people who mistype: one line for each complaint, with the word that was probably meant."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from reactive_orch.process.explaining import EXIT_CONFIG
from reactive_orch.process.streams import say

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

EXIT_CODES = """exit codes:
  0  done, or stopped cleanly
  1  failed
  2  wrong usage or configuration: somebody must change something
  3  the database could not be reached at the start, or refused the login"""


class Parser(argparse.ArgumentParser):
    """A parser of the program or of one of its commands."""

    def __init__(self, *, prog: str, description: str = "", epilog: str = EXIT_CODES, **others: Any) -> None:
        """No option may be shortened: one that is added later would change what a script means.

        `others`: what argparse gives the parser of a command besides; since Python 3.14, whether it has colours.
        """
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **others,
        )
        self.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the options that the arguments are, or complain and exit.

        An unknown option is complained of before one that is missing: it is perhaps the same one, mistyped.
        """
        before = ""
        for argument in arguments:
            if argument == "--":
                break
            if _is_option(argument):
                self._check_known(argument, before)
            before = argument
        return self.parse_args(arguments)

    def _check_known(self, argument: str, before: str) -> None:
        known, option = self._option_string_actions, argument.partition("=")[0]
        if option in known:
            return
        if self._takes_a_value(before):
            self.error(f"argument {before}: expected one argument; if {argument!r} is it, write {before}={argument}")
        self.error(f"unrecognized arguments: {option}{did_you_mean(option, known)}")

    def words(self, arguments: Sequence[str]) -> list[str]:
        """Return those arguments that are neither options nor values of options."""
        pairs = zip(["", *arguments], arguments, strict=False)
        return [word for before, word in pairs if not _is_option(word) and not self._takes_a_value(before)]

    def _takes_a_value(self, option: str) -> bool:
        action = self._option_string_actions.get(option)
        return action is not None and action.nargs is None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            msg = f"{value!r} is none of {', '.join(action.choices)}{did_you_mean(value, list(action.choices))}"
            raise argparse.ArgumentError(action, msg)

    def error(self, message: str) -> NoReturn:
        """Complain in one line."""
        say(f"{message} (--help shows the options)")
        sys.exit(EXIT_CONFIG)


def add_database(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the database is."""
    parser.add_argument(
        "--database-url",
        metavar="ADDRESS",
        help="postgresql://… or key=value words; otherwise DATABASE_URL, otherwise POSTGRES_HOST, _PORT, _USER, "
        "_PASSWORD, _DB, otherwise PGHOST and its like, otherwise the embedded server",
    )


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        from importlib import metadata  # as long to import as a command takes to start

        print(f"reactive_orch {metadata.version('reactive_orch')}")
        sys.exit(0)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the question whether a known word was meant; empty if the word is like none of them."""
    from difflib import get_close_matches  # only where somebody has mistyped

    longer = [one for one in known if one.startswith(word)]
    meant = longer if len(longer) == 1 else get_close_matches(word, list(known), n=1, cutoff=0.65)
    return f"; did you mean {meant[0]}?" if meant else ""


def _is_option(text: str) -> bool:
    """Tell whether argparse takes a text for an option, known or not: a number or a text with spaces is a value."""
    return text.startswith("-") and len(text) > 1 and " " not in text and not re.fullmatch(r"-\d+|-\d*\.\d+", text)


def whole_number(text: str) -> int:
    """Return the number that an option was given; Python would also take `1_000`, and the digits of any script."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        msg = f"{text!r} is no whole number"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def seconds(text: str) -> float:
    """Return the seconds that an option was given; their limits are not looked at here."""
    try:
        return float(text if text.isascii() and "_" not in text else "")
    except ValueError:
        msg = f"{text!r} is no number of seconds"
        raise argparse.ArgumentTypeError(msg) from None

"""What the reference says, taken from the code whenever the site is built.

help WORD         what a command's --help says; `worker` is the one without a word. Each has to be on a page
fields            the fields of `Config`: default and meaning
docstring MODULE  a module's docstring, as it stands there
offered           all that `import reactive_orch` offers
"""

from __future__ import annotations

import inspect
import os
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import reactive_orch
from reactive_orch import cli
from reactive_orch.commands import COMMANDS
from reactive_orch.config import DEFAULTS, Config

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from sphinx.application import Sphinx

PROGRAM = "python -m reactive_orch"
WORKER = "worker"
_told: set[str] = set()


class _Help(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (word,) = self.arguments
        _told.add(word)
        return [_block(_parser(word).format_help())]


class _Docstring(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [_block(inspect.getdoc(import_module(self.arguments[0])) or "")]


class _Fields(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        meanings = ModuleAnalyzer.for_module(Config.__module__).find_attr_docs()
        rows = [
            f"| `{each.name}` | `{getattr(DEFAULTS, each.name)!r}` | {' '.join(meanings[Config.__name__, each.name])} |"
            for each in fields(Config)
        ]
        return self.parse_text_to_nodes("\n".join(["| field | default | meaning |", "|---|---|---|", *rows]))


class _Offered(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        offered = ((name, getattr(reactive_orch, name)) for name in reactive_orch.__all__)
        directives = [f".. {_kind(each)}:: reactive_orch.{name}" for name, each in offered]
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *directives, "```"]))


def _kind(offered: object) -> str:
    if not inspect.isclass(offered):
        return "autofunction" if inspect.isfunction(offered) else "autodata"
    return "autoexception" if issubclass(offered, BaseException) else "autoclass"


def _block(text: str) -> nodes.Node:
    return nodes.literal_block(text, text, language="text")


def _parser(word: str) -> ArgumentParser:
    if word == WORKER:
        return cli._worker_parser(PROGRAM)  # noqa: SLF001 - the very parsers that read the command line
    return cli._command_parser(PROGRAM, word, COMMANDS[word])  # noqa: SLF001


def _leave_out_aliases(*told: object) -> None:
    """Keep a field of a named tuple by its name and type: Python says of it that it is an alias for its number."""
    lines = told[-1]
    assert isinstance(lines, list)
    lines[:] = [line for line in lines if not line.startswith("Alias for field number")]


def _demand_every_command(*_: object) -> None:
    if untold := {WORKER, *COMMANDS} - _told:
        msg = f"no page has the help of {', '.join(sorted(untold))}"
        raise ExtensionError(msg)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    os.environ |= {"COLUMNS": "88", "NO_COLOR": "1"}  # else the help is as wide as whoever builds has a terminal
    for name, directive in {"help": _Help, "fields": _Fields, "docstring": _Docstring, "offered": _Offered}.items():
        app.add_directive(name, directive)
    app.connect("autodoc-process-docstring", _leave_out_aliases)
    app.connect("env-check-consistency", _demand_every_command)
    return {"parallel_read_safe": False}

"""Each block of the README and of the documentation is run by a test, or stands here with the reason why it is not."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from integration_test.harness.pages import PAGES, README, RUNNABLE, Block, block, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

NOT_RUN = {
    ("docs/docker.md", "docker compose up --build"): "needs containers: `make test-containers` starts it so",
    ("docs/docker.md", "--scale worker=5"): "needs containers: `make test-containers` does the same by its programs",
    ("docs/docker.md", "docker build --tag"): "needs containers: `make test-containers` builds and runs the image",
    ("docs/hosts.md", "tcp_keepalives_idle = 5"): "of a whole server: `make test-hosts` starts one with these",
    ("docs/kubernetes.md", "docker push"): "needs a registry: `make test-containers` builds and runs the image",
    ("docs/kubernetes.md", "secrets.yaml"): "needs a cluster: test_kubernetes.py holds it against the code",
    ("docs/kubernetes.md", "job/migrate"): "needs a cluster, too",
    ("docs/kubernetes.md", "doctor --replica-set"): "needs a cluster, too",
    ("docs/operations.md", "--to keep"): "needs a worker that is refused: test_changed_filters.py has some",
    (
        "docs/operations.md",
        "OWNERS_DATABASE_URL",
    ): "needs psql: integration_test/operating/test_grants.py runs what is printed",
    ("docs/operations.md", "sslmode=verify-full"): "an address, and no command",
    ("docs/operations.md", "setval("): "has places for the reader's own figures",
    ("docs/performance.md", "make bench "): "takes half an hour",
    (
        "docs/seeing.md",
        "reactive_orch watch",
    ): "goes on until somebody ends it: integration_test/operating/test_watch.py",
    (
        "docs/seeing.md",
        "OTEL_EXPORTER_OTLP_ENDPOINT=",
    ): "has a place for the reader's own: integration_test/telemetry exports",
    ("docs/seeing.md", "curl -s localhost:8080/healthz"): "what it shows is cut: integration_test/http asks for it",
    (README, "make check"): "are the suites themselves: `make test-fresh` runs them",
}
"""Page and words of a block → why no test asks for it."""


def _asked_for() -> Iterator[Block]:
    """Yield the blocks that tests ask for, by `the("words", PAGE)`."""
    for path in sorted((ROOT / "integration_test").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {"README": README} | dict(_constants(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in {"the", "_typed"} and node.args:
                words, *page = (_value(each, constants) for each in node.args)
                if words is not None:
                    yield block(words, *filter(None, page))


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _value(node.value, {})
            if value is not None:
                yield node.targets[0].id, value


def _value(node: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return constants.get(node.id) if isinstance(node, ast.Name) else None


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_each_block_is_run_or_has_a_reason() -> None:
    run, excused = set(_asked_for()), {block(words, page) for page, words in NOT_RUN}
    assert len(run) > 30
    forgotten = {each for each in blocks() if each.language in RUNNABLE} - run - excused
    assert not forgotten, "no test asks for them, and NOT_RUN has no reason"
    assert not run & excused, "a test asks for them: they need no reason"


def test_each_block_says_what_it_is() -> None:
    """One without a language, or indented only, would be missed."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        begins = re.findall(r"(?m)^ *```(.*)$", text)[::2]
        assert all(re.fullmatch(r"\w+|{[\w-]+}.*", each) for each in begins), page
        prose = re.sub(r"(?ms)^( *)```.*?^\1```$", "", text)
        assert not re.search(r"\n\n {4}\S", prose), page

"""What examples/kubernetes starts: it is what Kubernetes takes, and means what docs/kubernetes.md says of it.

No cluster is asked: kubernetes-validate has the schemas of Kubernetes, `schemas/` those of what extends it. Both refuse
what they do not know.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

from reactive_orch import cli
from reactive_orch.commands.loading import projections_of
from reactive_orch.commands.migrate import MIGRATE
from reactive_orch.commands.run import http_address
from reactive_orch.config import DEFAULTS
from reactive_orch.http.server import Pages, _app
from reactive_orch.postgres.migrations import PARTITIONS_DEFAULT
from reactive_orch.process.explaining import EXIT_CONFIG
from reactive_orch.process.last_resort import LAST_WORDS_S, LEFT_BEHIND_S
from reactive_orch.runtime.progress_watch import LOOK_OVERDUE_S

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
VERSIONS = ["1.31", kubernetes_validate.latest_version()]
"""The oldest that has all that is asked for, and the newest that is known."""
EXTENSIONS = json.loads((Path(__file__).parent / "schemas" / "kubernetes.json").read_text(encoding="utf-8"))
RELEASE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
KUBECTL = shutil.which("kubectl")

Document = dict[str, Any]


def _documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


KUSTOMIZATION = _documents("kustomization.yaml")[0]
SECRETS = {each["metadata"]["name"]: each for each in _documents("secrets.example.yaml")}
OBJECTS = {each["kind"]: each for name in KUSTOMIZATION["resources"] for each in _documents(name)}
ALL = [*OBJECTS.values(), *SECRETS.values()]
DEPLOYMENT, JOB = OBJECTS["Deployment"], OBJECTS["Job"]
WORKER, MIGRATION = (each["spec"]["template"] for each in (DEPLOYMENT, JOB))


def _container(template: Document) -> Document:
    (container,) = template["spec"]["containers"]
    return dict(container)


def _options(template: Document) -> argparse.Namespace:
    return cli._parse(_container(template)["args"])  # noqa: SLF001 - the very parser that will read them


def _environment(template: Document) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in _container(template)["env"]}


def _named(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


# What Kubernetes takes.


def _complaint(document: Document, version: str) -> str | None:
    """Return what is wrong with it; None if nothing."""
    if (extension := f"I{document['kind']}") in EXTENSIONS["definitions"]:
        schema = EXTENSIONS | {"$ref": f"#/definitions/{extension}"}
        error = best_match(Draft7Validator(schema).iter_errors(document))
        return error and str(error)
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", ALL, ids=_named)
def test_kubernetes_takes_it(document: Document, version: str) -> None:
    assert _complaint(document, version) is None


def _misspelt(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a value as often as it has objects with fixed keys, each time with another one that has a key too many."""
    if isinstance(value, dict):
        yield "", value | {"misspelt": 1}
        for key, inner in value.items():
            if key not in _MAPS:
                yield from ((f".{key}{at}", value | {key: other}) for at, other in _misspelt(inner))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from (
                (f"[{number}]{at}", [*value[:number], other, *value[number + 1 :]]) for at, other in _misspelt(inner)
            )


_MAPS = {"labels", "annotations", "matchLabels", "stringData", "requests", "limits", "metadata"}
"""Whose keys are anybody's; of `metadata` that of a trigger is, too."""


@pytest.mark.parametrize("document", ALL, ids=_named)
def test_a_key_too_many_is_refused_wherever_it_stands(document: Document) -> None:
    changed = list(_misspelt(document))
    assert [at for at, other in changed if _complaint(other, VERSIONS[-1]) is None] == []


def test_a_value_of_another_type_is_refused() -> None:
    for kind, path in [
        ("Deployment", "minReadySeconds"),
        ("PodMonitor", "podMetricsEndpoints"),
        ("ScaledObject", "maxReplicaCount"),
    ]:
        changed = copy.deepcopy(OBJECTS[kind])
        changed["spec"][path] = "many"
        assert _complaint(changed, VERSIONS[-1]) is not None, kind


def test_every_file_is_applied_or_is_said_not_to_be() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {*KUSTOMIZATION["resources"], "kustomization.yaml", "secrets.example.yaml", "Dockerfile"}
    assert len(OBJECTS) == sum(len(_documents(name)) for name in KUSTOMIZATION["resources"])


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed (Debian: kubernetes-client)")
def test_kubectl_puts_it_together() -> None:
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", FOLDER], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert made.keys() == OBJECTS.keys()
    assert [_named(each) for each in made.values() if _complaint(each, VERSIONS[-1]) is not None] == []
    (image,) = KUSTOMIZATION["images"]
    for kind in ("Deployment", "Job"):
        assert _container(made[kind]["spec"]["template"])["image"] == f"{image['newName']}:{image['newTag']}"
    namespaces = {each["metadata"].get("namespace") for each in made.values() if each["kind"] != "Namespace"}
    assert (
        namespaces
        == {made["Namespace"]["metadata"]["name"]}
        == {each["metadata"]["namespace"] for each in SECRETS.values()}
    )


# What it runs.


def test_the_image_is_of_this_release() -> None:
    assert [each["newTag"] for each in KUSTOMIZATION["images"]] == [RELEASE]
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert f"FROM reactive_orch:{RELEASE}" in lines
    (built,) = [shlex.split(line.strip("# ")) for line in lines if "docker build" in line]
    assert built[built.index("--tag") + 1] == f"{KUSTOMIZATION['images'][0]['newName']}:{RELEASE}"
    assert (ROOT / built[built.index("--file") + 1]).samefile(FOLDER / "Dockerfile")
    assert (ROOT / built[-1] / "projections.py").is_file()


def test_workers_run_options_that_exist_on_projections_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))  # the image has examples/shop as shop
    options = _options(WORKER)
    assert options.replica_set == DEPLOYMENT["metadata"]["labels"]["app.kubernetes.io/instance"]
    assert [each.name for each in projections_of(options.projection)] == ["orders_per_customer", "order_list"]
    assert _options(MIGRATION).command is MIGRATE


def test_nobody_has_more_rights_than_it_needs() -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (user,) = re.findall(r"^USER (\d+):\1$", image, re.MULTILINE)
    for template in (WORKER, MIGRATION):
        pod = template["spec"]
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"]
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": int(user),
            "runAsGroup": int(user),
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert _container(template)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    labels = OBJECTS["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_each_has_an_address_of_its_own_role() -> None:
    users = []
    for template in (WORKER, MIGRATION):
        asked = _environment(template)["DATABASE_URL"]["secretKeyRef"]
        secret = SECRETS[asked["name"]]["stringData"]
        (volume,) = template["spec"]["volumes"]
        (mounted,) = _container(template)["volumeMounts"]
        assert (volume["name"], volume["secret"]["secretName"]) == (mounted["name"], asked["name"])
        url = urlsplit(secret[asked["key"]])
        (certificate,) = volume["secret"]["items"]
        assert certificate["key"] in secret
        file = f"{mounted['mountPath']}/{certificate['path']}"
        assert parse_qs(url.query) == {"sslmode": ["verify-full"], "sslrootcert": [file]}
        users.append(url.username)
    worker, owner = users
    assert worker != owner
    granted = re.findall(r"grants --role (\S+) --for (\S+)", PAGE)
    assert granted == [(worker, "worker")]


# When it starts, is asked, and ends.


def _routes() -> set[str]:
    app = _app(Pages(health=NotImplemented, metrics=NotImplemented), NotImplemented)
    return {route.resource.canonical for route in app.router.routes() if route.resource is not None}


def test_probes_ask_the_right_pages_at_the_right_port() -> None:
    container = _container(WORKER)
    (port,) = container["ports"]
    assert http_address(_options(WORKER).http) == ("0.0.0.0", port["containerPort"])  # noqa: S104 - inside its pod
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: get["path"] for kind, get in asked.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    (scraped,) = OBJECTS["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert {get["path"] for get in (*asked.values(), scraped)} <= _routes()
    assert {get["port"] for get in (*asked.values(), scraped)} == {port["name"]}


def test_a_silent_worker_has_as_long_as_its_own_page_gives_it() -> None:
    probe = _container(WORKER)["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= LOOK_OVERDUE_S


def test_a_worker_that_stops_may_finish() -> None:
    """Its batches, what comes after them, and the last words."""
    assert WORKER["spec"]["terminationGracePeriodSeconds"] > DEFAULTS.grace_s + LEFT_BEHIND_S + LAST_WORDS_S


def test_what_no_second_attempt_can_help_is_tried_once() -> None:
    fails, _ = JOB["spec"]["podFailurePolicy"]["rules"]
    assert fails["action"] == "FailJob"
    assert fails["onExitCodes"]["values"] == [EXIT_CONFIG]
    assert fails["onExitCodes"]["containerName"] == _container(MIGRATION)["name"]
    assert MIGRATION["spec"]["restartPolicy"] == "Never"  # else Kubernetes refuses the policy


# Who is meant.


def _chosen(selector: Document, template: Document) -> bool:
    return set(selector["matchLabels"].items()) <= set(template["metadata"]["labels"].items())


def test_selectors_choose_the_workers_and_nobody_else() -> None:
    spread = WORKER["spec"]["topologySpreadConstraints"]
    selectors = [
        *(OBJECTS[kind]["spec"]["selector"] for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor")),
        *(each["labelSelector"] for each in spread),
    ]
    for selector in selectors:
        assert _chosen(selector, WORKER)
        assert not _chosen(selector, MIGRATION)
    assert OBJECTS["ScaledObject"]["spec"]["scaleTargetRef"] == {"name": DEPLOYMENT["metadata"]["name"]}


def test_the_network_lets_through_what_they_need() -> None:
    policy = OBJECTS["NetworkPolicy"]["spec"]
    assert all(_chosen(policy["podSelector"], template) for template in (WORKER, MIGRATION))
    (ingress,) = policy["ingress"]
    assert [each["port"] for each in ingress["ports"]] == [_container(WORKER)["ports"][0]["name"]]
    assert all("from" in rule for rule in policy["ingress"])
    let = {(_place(rule), each["port"], each["protocol"]) for rule in policy["egress"] for each in rule["ports"]}
    urls = [secret["stringData"]["DATABASE_URL"] for secret in SECRETS.values()]
    needed = {urlsplit(url) for url in (*urls, _environment(WORKER)["OTEL_EXPORTER_OTLP_ENDPOINT"])}
    assert let == {("kube-system", 53, "UDP"), ("kube-system", 53, "TCP")} | {
        ((url.hostname or "").split(".")[1], url.port, "TCP") for url in needed
    }


def _place(rule: Document) -> str:
    (peer,) = rule["to"]
    return str(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])


# How many. Its query is among those that test_deployment.py holds against the metrics there are.


def test_as_many_as_are_of_use_and_the_database_has_connections_for() -> None:
    scaled = OBJECTS["ScaledObject"]["spec"]
    assert "replicas" not in DEPLOYMENT["spec"]  # each `apply` would set them back
    assert 2 <= scaled["minReplicaCount"] < scaled["maxReplicaCount"] <= PARTITIONS_DEFAULT
    surge = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    workers = (scaled["maxReplicaCount"] + surge) * _options(WORKER).connections
    others, reserved = 3, 3
    assert workers + others + reserved <= 100, "PostgreSQL's default"


# The page.


def test_commands_of_the_page_are_what_kubectl_and_the_command_take() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    ours = [words[words.index("reactive_orch") + 1 :] for words in commands if "reactive_orch" in words]
    assert len(ours) >= 2
    for words in ours:
        cli._parse(words[: words.index("|")] if "|" in words else words)  # noqa: SLF001
    named = {f"job/{JOB['metadata']['name']}", f"deployment/{DEPLOYMENT['metadata']['name']}"}
    assert named <= {word for words in commands for word in words}
    files = {word for words in commands for word in words if word.startswith("examples/")}
    assert all((ROOT / file).exists() for file in files)

"""What `docker compose up` starts: the files parse, agree with each other, and ask only for metrics that exist.

Nothing here needs Docker or a network. promtool, where installed (Debian's package prometheus), checks the rules too.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

from reactive_orch import cli
from reactive_orch.address import database_url_of_parts
from reactive_orch.commands.loading import projections_of
from reactive_orch.commands.run import http_address
from reactive_orch.model.problems import CODES, command, words
from reactive_orch.telemetry import prometheus
from reactive_orch.telemetry.metric_names import METRICS, Kind
from reactive_orch.telemetry.registry import Registry
from reactive_orch.telemetry.sdk import COORDINATION
from reactive_orch.telemetry.span_names import SPANS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
OTEL = ROOT / "otel"
YAML = sorted([ROOT / "docker-compose.yml", *OTEL.rglob("*.yml"), *OTEL.rglob("*.yaml")])
DASHBOARD = OTEL / "grafana" / "dashboards" / "reactive_orch.json"

OURS = {"migrate", "worker", "appender"}
UNCHECKED = {
    "migrate": "ends",
    "appender": "serves nothing, and nobody waits for it",
    "otel-collector": "its image has nothing to ask it with; Prometheus sees it",
}


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = _yaml(ROOT / "docker-compose.yml")["services"]
    return services


# The metrics, as Prometheus has them: name → labels.


def _exposed() -> dict[str, frozenset[str]]:
    exposed = {}
    for metric in METRICS:
        labels = frozenset(key.replace(".", "_") for key in metric.keys) | {"instance", "job"}
        names = {metric.prometheus}
        if metric.kind is Kind.HISTOGRAM:
            names = {f"{metric.prometheus}_sum", f"{metric.prometheus}_count"}
            exposed[f"{metric.prometheus}_bucket"] = labels | {"le"}
        exposed |= dict.fromkeys(names, labels)
    return exposed


_WORDS = frozenset({"and", "or", "unless", "on", "ignoring", "group_left", "group_right", "by", "without", "offset"})
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"(?<![\w.:$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(\s*\()?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def _metrics_asked(expression: str) -> tuple[set[str], dict[str, set[str]]]:
    """Return the metrics of an expression with the labels they are selected by, and the labels grouped by."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    groups = {label.strip() for found in _GROUPING.findall(plain) for label in found.split(",")} - {""}
    plain = re.sub(r"\[[^]]*\]", "", _GROUPING.sub("", plain))
    asked: dict[str, set[str]] = {}
    for name, selector, call in _NAME.findall(plain):
        if not call and name not in _WORDS:
            asked.setdefault(name, set()).update(_LABEL.findall(selector))
    return groups, asked


def _queries() -> Iterator[tuple[str, str]]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] == "prometheus":
                yield f"panel {panel['title']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["target"]["expr"]
    for variable in dashboard["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert asked is not None
        yield f"variable {variable['name']}", f"sum by ({asked[2]}) ({asked[1]})"
    for rule in _rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for trigger in _yaml(ROOT / "examples" / "kubernetes" / "scaling.yaml")["spec"]["triggers"]:
        yield "autoscaling", trigger["metadata"]["query"]


def _rules() -> list[dict[str, Any]]:
    return [rule for group in _yaml(OTEL / "alerts.yml")["groups"] for rule in group["rules"]]


def test_the_page_has_the_settings_of_haproxy_that_are_run() -> None:
    run = (ROOT / "integration_test/environments/cluster/haproxy.cfg").read_text(encoding="utf-8")
    page = (ROOT / "docs/failover.md").read_text(encoding="utf-8").splitlines()
    settings = [line for line in run.partition("defaults\n")[2].splitlines() if line.strip() and "$" not in line]
    assert len(settings) > 8
    assert [line for line in settings if line not in page] == []


def test_metrics_of_an_expression_are_found() -> None:
    expression = 'sum by (le, q) (rate(a_total{x="b{c}", y=~"$d"}[5m] offset 1m)) > 0.05 * max(e) and on (job) f'
    assert _metrics_asked(expression) == ({"le", "q", "job"}, {"a_total": {"x", "y"}, "e": set(), "f": set()})


def test_queries_ask_for_metrics_and_labels_of_the_table() -> None:
    exposed = _exposed()
    for where, expression in _queries():
        groups, asked = _metrics_asked(expression)
        assert asked, where
        for name, labels in asked.items():
            assert name in exposed, f"{where} asks for {name}"
            assert labels <= exposed[name], f"{where} selects {name} by {labels - exposed[name]}"
        known = frozenset[str]().union(*(exposed[name] for name in asked))
        assert groups <= known, f"{where} groups by {groups - known}"


def test_labels_in_the_alerts_texts_are_those_of_their_rules() -> None:
    for rule in _rules():
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        _, asked = _metrics_asked(rule["expr"])
        assert used <= frozenset[str]().union(*(_exposed()[name] for name in asked)), rule["alert"]
        assert {"summary", "description", "command", "runbook"} == set(rule["annotations"]), rule["alert"]


def _anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_a_command(text: str) -> bool:
    if text.startswith("psql "):
        return True
    options = cli._parse(shlex.split(text)[3:])  # noqa: SLF001 - the very parser that will read them
    return options.command is not None or bool(options.projection)


def test_an_alert_has_the_words_and_the_command_of_its_problem() -> None:
    for rule in _rules():
        code, told = rule["labels"].get("code"), rule["annotations"]
        assert _is_a_command(told["command"]), rule["alert"]
        if code in {None, "interrupted", "connection_refused"}:  # words of what fails, which only the worker knows
            continue
        projection = "{{ $labels.projection }}" if "projection" in rule["expr"] else ""
        what = "{{ $value }}" + (" keys wait" if code == "keys_wait" else "")
        assert words(code, projection, what) in told["summary"], rule["alert"]
        if CODES[code].command and rule["alert"] != "NoWorker":  # which tells of no single replica set
            assert told["command"] == command(code, "{{ $labels.replica_set }}", projection), rule["alert"]


def test_a_runbook_is_a_chapter_that_exists() -> None:
    pages = {page: _anchors((ROOT / page).read_text(encoding="utf-8")) for page in ("docs/operations.md",)}
    for rule in _rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in pages[page], rule["alert"]


def test_the_page_for_operators_has_every_problem_alert_and_line() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    chapter = page.partition("## Every problem and every alert\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in chapter.splitlines() if row.startswith("| ")]
    codes = {row[0].strip("`"): row[1] for row in rows[1:] if row[0]}
    assert codes.keys() == CODES.keys()
    assert {code: level.partition(",")[0].partition(";")[0] for code, level in codes.items()} == {
        code: each.level for code, each in CODES.items()
    }
    alerts = {rule["alert"]: rule["labels"].get("code", "") for rule in _rules()}
    told = {alert: row[0].strip("`") for row in rows[1:] for alert in re.findall(r"`(\w+)`", row[2])}
    assert told.keys() == alerts.keys()
    assert all(
        any(f"`{alert}`" in row[2] for row in rows if row[0].strip("`") == code)
        for alert, code in alerts.items()
        if code
    )
    lines = (ROOT / "docs/seeing.md").read_text(encoding="utf-8")
    events = set(re.findall(r"`(\w+)`", lines.partition("Events are ")[2].partition(". When")[0]))
    assert events <= set(re.findall(r"`(\w+)`", chapter))


def test_the_dashboard_shows_every_metric_that_tells_of_trouble() -> None:
    shown = {name for where, expression in _queries() for name in _metrics_asked(expression)[1] if "panel" in where}
    unshown = {
        metric.prometheus
        for metric in METRICS
        if not any(name.removesuffix("_bucket").removesuffix("_sum") == metric.prometheus for name in shown)
    }
    # Not of the workers, or shown by another metric.
    assert unshown <= {"messaging_client_sent_messages_total", "reactive_orch_assignments_total"}


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_parses(path: Path) -> None:
    assert _yaml(path)


def _schema(name: str) -> Any:
    return json.loads((Path(__file__).parent / "schemas" / name).read_text(encoding="utf-8"))


DASHBOARDS = Draft7Validator(_schema("grafana.json"))
"""The schema of the Grafana that docker-compose.yml starts; `schemas/grafana.ts` says what it is made of."""


def test_the_dashboard_is_what_grafana_takes() -> None:
    assert best_match(DASHBOARDS.iter_errors(json.loads(DASHBOARD.read_text(encoding="utf-8")))) is None
    version = _schema("package.json")["dependencies"]["@grafana/schema"]
    assert _services()["grafana"]["image"] == f"grafana/grafana:{version}"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"type": "timeseries"', '"type": "timeserie"'),
        ('"lineWidth": ', '"lineWidht": '),
        ('"colorMode": "value"', '"colorMode": "valeu"'),
        ('"unit": "none"', '"unit": 3'),
        ('"expr": ', '"expression": '),
        ('"gridPos": ', '"position": '),
        ('"schemaVersion": ', '"schema": '),
    ],
)
def test_grafana_would_not_take_a_slip(right: str, wrong: str) -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    assert right in text
    assert not DASHBOARDS.is_valid(json.loads(text.replace(right, wrong, 1)))


def test_the_dashboard_is_laid_out_without_overlaps() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_data_sources_of_the_dashboard_are_provisioned() -> None:
    sources = _yaml(OTEL / "grafana" / "provisioning" / "datasources" / "datasources.yml")["datasources"]
    provisioned = {(source["type"], source["uid"]) for source in sources}
    asked = re.findall(r'"type": "(\w+)",\s*"uid": "(\w+)"', DASHBOARD.read_text(encoding="utf-8"))
    assert set(asked) == provisioned == {("prometheus", "prometheus"), ("jaeger", "jaeger")}


# docker-compose.yml and Dockerfile.


def test_images_are_pinned() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for name, service in _services().items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"
        assert (name in OURS) == (service["image"] == f"reactive_orch:{version}")
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)


def test_one_service_builds_the_image_and_those_that_use_it_wait_for_that_one() -> None:
    services = _services()
    assert [name for name, service in services.items() if "build" in service] == ["migrate"]
    assert {name: services[name]["pull_policy"] for name in OURS} == dict.fromkeys(OURS, "never") | {"migrate": "build"}
    assert all("migrate" in services[name]["depends_on"] for name in OURS - {"migrate"})


def _waits_for(name: str, services: dict[str, dict[str, Any]]) -> set[str]:
    needed = set(services[name].get("depends_on", ()))
    return needed.union(*(_waits_for(each, services) for each in needed))


def test_work_waits_for_the_database_and_not_for_those_that_watch() -> None:
    services = _services()
    for name in OURS - {"migrate"}:
        assert _waits_for(name, services) == {"postgres", "migrate"}, name


def test_any_password_leads_to_the_database() -> None:
    """It is in no address, where characters would have to be quoted."""
    services, login = _services(), {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
    given = {name: services["postgres"]["environment"][name] for name in login}
    for name in OURS:
        environment = services[name]["environment"]
        assert "DATABASE_URL" not in environment
        assert {each: environment[each] for each in login} == given, name
        assert environment["POSTGRES_HOST"] == "postgres"
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    values = dict(re.findall(r"^(\w+)='(.*)'$", example, re.MULTILINE))
    assert asked == values.keys()
    url = database_url_of_parts(services["worker"]["environment"] | values)
    assert url is not None
    assert parse_qs(urlsplit(url).query)["password"] == [values["POSTGRES_PASSWORD"]]


def test_ports_are_published_on_loopback_only() -> None:
    published = [(name, port) for name, service in _services().items() for port in service.get("ports", ())]
    assert len(published) == 5
    for name, port in published:
        assert re.fullmatch(r"127\.0\.0\.1:[\d-]+:\d+", port), f"{name}: {port}"


def test_every_service_has_a_health_check_or_a_reason() -> None:
    for name, service in _services().items():
        check = service.get("healthcheck", {"disable": True})
        assert check.get("disable", False) == (name in UNCHECKED), name
        assert check.get("disable") or check["test"][0] == "CMD", name


def test_conditions_can_come_true() -> None:
    services = _services()
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert needed in services, name
            assert (condition == "service_completed_successfully") == (needed == "migrate"), name
            assert (condition == "service_healthy") == (needed not in UNCHECKED), name


def test_volumes_are_named_and_mounted_files_are_there() -> None:
    compose = _yaml(ROOT / "docker-compose.yml")
    used = set()
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            source, _, rest = volume.partition(":")
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert rest.endswith(":ro"), f"{name}: {volume}"
            else:
                used.add(source)
    assert used == set(compose["volumes"]) == {"postgres-data", "prometheus-data", "grafana-data"}


def test_three_workers_run_options_that_exist_on_projections_that_exist() -> None:
    worker = _services()["worker"]
    options = cli._parse(worker["command"])  # noqa: SLF001 - the very parser that will read them
    assert worker["deploy"]["replicas"] == 3
    assert [each.name for each in projections_of(options.projection)] == ["orders_per_customer", "order_list"]
    assert http_address(options.http) == ("0.0.0.0", 8080)  # noqa: S104 - inside its container
    assert cli._parse(_services()["migrate"]["command"]).command is not None  # noqa: SLF001


def test_the_image_is_small_unprivileged_and_stops_well() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    instructions = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    final = instructions[[words[0] for words in instructions].index("FROM", 1) :]
    given = {words[0]: words[1] for words in final}
    assert set(given) >= {"USER", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD", "WORKDIR"}
    assert given["RUN"].startswith("pip uninstall")  # nothing but the environment is added to the base
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", given["USER"])
    assert given["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(given["ENTRYPOINT"]) == ["python", "-m", "reactive_orch"]
    check = json.loads(given["HEALTHCHECK"].partition(" CMD ")[2])
    compile(check[2], "HEALTHCHECK", "exec")
    assert "/livez" in check[2]


def test_the_builder_gets_what_the_wheel_is_made_from_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    kept = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "*" in lines
    licences = {file for file in project["project"]["license-files"] if file.partition("/")[0] not in packages}
    assert kept == {"pyproject.toml", project["project"]["readme"], *licences, *packages}


# The collector, Jaeger, Prometheus.

COLLECTOR = {  # of otel/opentelemetry-collector-contrib:0.160.0, those in use
    "receivers": {"otlp"},
    "connectors": {"span_metrics"},
    "processors": {"batch", "memory_limiter", "tail_sampling"},
    "exporters": {"otlp_grpc", "prometheus"},
    "extensions": {"health_check"},
}
JAEGER = {  # of jaegertracing/jaeger:2.20.0
    "receivers": {"otlp"},
    "processors": {"batch"},
    "exporters": {"jaeger_storage_exporter"},
    "extensions": {"healthcheckv2", "jaeger_query", "jaeger_storage"},
}


@pytest.mark.parametrize(
    ("path", "known"),
    [(OTEL / "collector.yaml", COLLECTOR), (OTEL / "jaeger.yaml", JAEGER)],
    ids=["collector", "jaeger"],
)
def test_pipelines_are_made_of_components_that_exist_and_are_all_used(path: Path, known: dict[str, set[str]]) -> None:
    config = _yaml(path)
    service = config["service"]
    assert set(config) == {*known, "service"}
    for kind, components in known.items():
        assert {name.partition("/")[0] for name in config[kind]} == components
    pipelines = service["pipelines"].values()
    connectors = set(config.get("connectors", ()))
    assert {name for pipeline in pipelines for name in pipeline["receivers"]} == {*config["receivers"], *connectors}
    assert {name for pipeline in pipelines for name in pipeline["exporters"]} == {*config["exporters"], *connectors}
    assert {name for pipeline in pipelines for name in pipeline["processors"]} == set(config["processors"])
    assert set(service["extensions"]) == set(config["extensions"])
    assert all(name.partition("/")[0] in {"traces", "metrics"} for name in service["pipelines"])


def test_every_coordinating_trace_is_kept_and_spans_are_counted_before_any_is_dropped() -> None:
    config = _yaml(OTEL / "collector.yaml")
    sampling = config["processors"]["tail_sampling"]
    policies = {policy["type"]: policy[policy["type"]] for policy in sampling["policies"]}
    assert set(policies) == {"boolean_attribute", "status_code", "latency", "and", "probabilistic"}
    waited, _ = policies["and"]["and_sub_policy"]
    (age,) = re.findall(r'attributes\["(.+?)"\]', *waited["ottl_condition"]["span"])
    assert any(age in span.attributes for span in SPANS)
    assert policies["boolean_attribute"] == {"key": COORDINATION, "value": True}
    assert any(COORDINATION in span.attributes for span in SPANS)
    assert policies["status_code"] == {"status_codes": ["ERROR"]}
    assert 0 < policies["probabilistic"]["sampling_percentage"] < 10
    assert sampling["decision_wait"] == "10s"
    assert min(sampling["decision_cache"].values()) >= 10 * sampling["num_traces"]
    pipelines = config["service"]["pipelines"]
    measured = next(one for one in pipelines.values() if "span_metrics" in one["exporters"])
    assert "tail_sampling" not in measured["processors"]
    dimensions = {each["name"] for each in config["connectors"]["span_metrics"]["dimensions"]}
    assert dimensions == {"reactive_orch.rebalance.reason", "error.type"}
    assert dimensions <= {key for span in SPANS for key in span.attributes}


def test_addresses_between_the_services_agree() -> None:
    services = _services()
    collector, jaeger = _yaml(OTEL / "collector.yaml"), _yaml(OTEL / "jaeger.yaml")
    prometheus = {job["job_name"]: job for job in _yaml(OTEL / "prometheus.yml")["scrape_configs"]}
    workers = prometheus["reactive_orch"]["dns_sd_configs"][0]
    assert (workers["names"], workers["port"]) == (["worker"], 8080)
    assert set(services) >= {"worker", "otel-collector", "jaeger", "prometheus"}
    otlp = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    for name in OURS:
        environment = services[name]["environment"]
        assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://otel-collector:{otlp.rpartition(':')[2]}"
    taken_in = jaeger["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert collector["exporters"]["otlp_grpc/jaeger"]["endpoint"] == f"jaeger:{taken_in.rpartition(':')[2]}"
    exported = collector["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]
    own = collector["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["port"]
    targets = prometheus["otel-collector"]["static_configs"][0]["targets"]
    assert set(targets) == {f"otel-collector:{exported}", f"otel-collector:{own}"}
    asked = jaeger["extensions"]["jaeger_storage"]["metric_backends"]["span_metrics"]["prometheus"]
    assert asked["endpoint"] == "http://prometheus:9090"
    assert asked["latency_unit"] == collector["connectors"]["span_metrics"]["histogram"]["unit"] == "s"


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"]
)
def test_promtool_agrees(command: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *command.split()], cwd=OTEL, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_understands_every_query(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    variables = {"$replica_set": ".*", "$__rate_interval": "1m"}
    rules = []
    for number, (_, expression) in enumerate(_queries()):
        for name, value in variables.items():
            expression = expression.replace(name, value)  # noqa: PLW2901
        rules.append({"record": f"query_{number}", "expr": expression})
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(  # noqa: S603
        [PROMTOOL, "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_reads_the_page_of_metrics() -> None:
    assert PROMTOOL is not None
    registry = Registry()
    for metric in METRICS:
        labels = ['a "quoted"\\\n'] * len(metric.attributes)
        if metric.kind is Kind.HISTOGRAM:
            registry.record(metric, 0.5, *labels)
        elif metric.kind is Kind.COUNTER:
            registry.count(metric, *labels)
    gauges = [(metric, 1.0, ("x",) * len(metric.attributes)) for metric in METRICS if metric.kind is Kind.GAUGE]
    with registry.observed(lambda: gauges):
        page, _ = prometheus.page(registry, "")
    done = subprocess.run(  # noqa: S603
        [PROMTOOL, "check", "metrics"], input=page.decode(), capture_output=True, text=True, check=False
    )
    # OpenTelemetry's conventions call a number of things a count; promtool would keep that word for histograms.
    complaints = {line.partition(" ")[0]: line for line in done.stderr.splitlines()}
    assert all(name.endswith("_count") for name in complaints), done.stderr
    assert complaints.keys() <= {metric.prometheus for metric in METRICS}, done.stderr


def test_every_alert_is_tested() -> None:
    tested = (OTEL / "alerts_test.yml").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in _rules() if f'"{rule["alert"]}"' not in tested] == []


def test_ci_refuses_a_stage_that_there_is_not_before_it_installs_anything() -> None:
    words = [str(ROOT / ".ci/run"), "hosts", "nowhere"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stdout) == (2, "")
    (stages,) = re.findall("^STAGES := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert done.stderr.endswith(f" of the stages {stages}\n")

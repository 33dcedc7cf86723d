"""Alerts fire when they should, dashboards show what there is, and the documentation names both."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitoring import dashboards
from runner import manifest
from runner.metrics import Metrics
from runner.orchestrator.catalog import Entry, Member
from runner.orchestrator.figures import Figures
from runner.registry import Instance

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "monitoring" / "prometheus"
GRAFANA = ROOT / "monitoring" / "grafana"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule["alert"] for rule in RULES if "alert" in rule]


@pytest.fixture(scope="session")
def promtool() -> str:
    """Give Prometheus' own checker; Debian's package `prometheus` has it."""
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if not found:
        pytest.skip("promtool is neither on PATH nor named by PROMTOOL")
    return found


def checked(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)


# --- rules ---------------------------------------------------------------------------------------


def test_prometheus_reads_its_configuration(promtool: str) -> None:
    """The configuration and the rules are what Prometheus takes."""
    # The file of its key is written when its container starts.
    ran = checked(promtool, "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ran = checked(promtool, "check", "rules", PROMETHEUS / "rules.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_alerts_fire_when_they_should(promtool: str) -> None:
    """The rules' own tests pass."""
    ran = checked(promtool, "test", "rules", PROMETHEUS / "rules_test.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("instead", ["vector(1) < 0", "vector(1)"])
def test_every_alert_is_tested(promtool: str, tmp_path: Path, alert: str, instead: str) -> None:
    """An alert that never fires breaks the rules' tests, and so does one that always does."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text("utf-8"))
    for rule in itertools.chain.from_iterable(group["rules"] for group in groups["groups"]):
        if rule.get("alert") == alert:
            rule["expr"] = instead
    (tmp_path / "rules.yml").write_text(json.dumps(groups))
    shutil.copy(PROMETHEUS / "rules_test.yml", tmp_path)
    assert checked(promtool, "test", "rules", tmp_path / "rules_test.yml").returncode != 0


def test_every_alert_leads_to_what_to_do() -> None:
    """Each has a severity, a summary, and a link to its row in docs/operate.md, which names all."""
    text = (ROOT / "docs" / "operate.md").read_text("utf-8")
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"]["summary"].endswith((".", ")."))
            assert rule["annotations"]["runbook"] == f"docs/operate.md#{rule['alert'].lower()}"
    assert re.findall(r'<a id="(\w+)"></a>(\w+) \|', text) == [(a.lower(), a) for a in ALERTS]


# --- metrics -------------------------------------------------------------------------------------


def scraped() -> str:
    """Return what an orchestrator's /metrics says when one job of one service has ended."""
    one = manifest.load(ROOT / "tests" / "gallery" / "echo.yaml")
    worker = Instance("echo@1", "echo", "1.0.0", one.digest, "ready", 2, load_seconds=1.0)
    catalog: Any = SimpleNamespace(
        entries=lambda: [Entry(one, (Member(worker),), 0.0)], conflicts=0
    )
    metrics = Metrics()
    metrics.collect(Figures(metrics, catalog, None).samples)  # type: ignore[arg-type]
    metrics.finished(
        service="echo", version="1.0.0", outcome="succeeded", reason="", queue_seconds=1.0,
        run_seconds=1.0, steps={"run": 1.0}, input_bytes=1,
    )  # fmt: skip
    metrics.retried("echo", "transient")
    metrics.webhook("delivered")
    metrics.dropped("unsealed")
    metrics.http("GET", "/", 200, 0.1)
    return metrics.render()[0].decode()


def test_prometheus_finds_nothing_to_improve_in_our_metrics(promtool: str) -> None:
    """Names, units and types are such as Prometheus' own checker wants them."""
    ran = subprocess.run(
        [promtool, "check", "metrics"], input=scraped(), capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def exposed() -> dict[str, tuple[str, ...]]:
    """Return every metric that /metrics tells, with its labels, histograms without suffixes."""
    found: dict[str, tuple[str, ...]] = {}
    for family in text_string_to_metric_families(scraped()):
        for sample in family.samples:
            name = re.sub("_(bucket|sum|count)$", "", sample.name)
            if not name.endswith("_created"):
                found[name] = tuple(sorted(set(sample.labels) - {"le"}))
    return found


def test_every_metric_is_documented() -> None:
    """The table in docs/operate.md and /metrics have the same names and labels."""
    text = (ROOT / "docs" / "operate.md").read_text("utf-8")
    rows = re.findall(r"^\| `(nlp_\w+|http_\w+)` \|([^|]*)\|", text, re.MULTILINE)
    documented = {name: tuple(sorted(re.findall(r"\w+", labels))) for name, labels in rows}
    ours = {n: ls for n, ls in exposed().items() if n.startswith(("nlp_", "http_"))}
    assert documented == ours


NAME = re.compile(r"\b(?:[a-z]+(?:_[a-z]+)?:[a-z0-9_:]+|(?:nlp|http|process)_\w+|up)\b")
"""A metric of ours, or what a recording rule makes of some."""


def names_of(expression: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    bare = re.sub(r'"[^"]*"', "", expression)
    return {re.sub("_(bucket|sum|count)$", "", name) for name in NAME.findall(bare)}


def test_rules_and_dashboards_ask_for_what_there_is() -> None:
    """Every metric in an expression is told by /metrics, made by a rule, or Prometheus' own."""
    known = {*exposed(), "up", *(rule["record"] for rule in RULES if "record" in rule)}
    expressions = [*(rule["expr"] for rule in RULES), *(expr for _, expr in queries())]
    asked = set().union(*map(names_of, expressions))
    assert len(asked) > 20
    assert asked - known == set()


def test_a_name_that_is_wrong_would_be_found() -> None:
    """The names of an expression are read off it whole, whatever stands around them."""
    expression = 'max by (service) (a_b:nlp_x:max{state="nlp_no"}) / rate(nlp_y_bucket[5m]) + up'
    assert names_of(expression) == {"a_b:nlp_x:max", "nlp_y", "up"}


# --- dashboards ----------------------------------------------------------------------------------


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every panel that is no row, with the file of its dashboard."""
    for name, board in dashboards.DASHBOARDS.items():
        yield from ((name, panel) for panel in board["panels"] if panel["type"] != "row")


def queries() -> Iterator[tuple[str, str]]:
    """Yield the expression of every query, as Prometheus is asked for it."""
    for name, panel in panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield name, expression.replace("$service", "ner")


def test_the_files_are_what_the_code_writes() -> None:
    """`python -m monitoring.dashboards` would change nothing."""
    folder = dashboards.FOLDER
    found = {path.name: path.read_text("utf-8") for path in folder.glob("*.json")}
    assert found == dashboards.texts()


def test_every_expression_parses(promtool: str, tmp_path: Path) -> None:
    """Prometheus takes each query of each dashboard."""
    rules = [{"record": f"query:{n}", "expr": expr} for n, (_, expr) in enumerate(queries())]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    ran = checked(promtool, "check", "rules", path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(rules)} rules found" in ran.stdout


def test_panels_can_be_read() -> None:
    """Each has a title, a sentence, a unit, queries and an id, and none lies on another."""
    uids = [board["uid"] for board in dashboards.DASHBOARDS.values()]
    assert len(set(uids)) == len(uids)
    for board in dashboards.DASHBOARDS.values():
        taken: set[tuple[int, int]] = set()
        ids = [panel["id"] for panel in board["panels"]]
        assert ids == list(range(1, len(ids) + 1))
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= dashboards.WIDTH, panel["title"]
            taken |= cells
    for _, panel in panels():
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


def test_one_service_is_shown_by_its_variable() -> None:
    """Every query of the service dashboard is about the service chosen, and no other one is."""
    for name, panel in panels():
        for target in panel["targets"]:
            assert ("$service" in target["expr"]) == (name == "service.json"), panel["title"]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    """The data source has the id that panels name, and the provider looks where the files are."""
    source = yaml.safe_load((GRAFANA / "datasources" / "prometheus.yml").read_text("utf-8"))
    assert source["datasources"][0]["uid"] == dashboards.SOURCE["uid"]
    provider = yaml.safe_load((GRAFANA / "dashboards" / "provider.yml").read_text("utf-8"))
    path = Path(provider["providers"][0]["options"]["path"])
    assert GRAFANA / path.relative_to("/etc/grafana/provisioning") == dashboards.FOLDER

"""Grafana's dashboards as code: `python -m monitoring.dashboards` writes their JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana" / "dashboards" / "nlp"
SOURCE = {"type": "prometheus", "uid": "prometheus"}

WIDTH = 24
"""Columns of Grafana's grid."""

ONE = 'service="$service"'
"""The service that a reader has chosen."""

Query = tuple[str, str]
"""An expression, and what its line is called."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `unit` is Grafana's word, `width` counts columns, `kind` is Grafana's type.

    `stack` puts the lines on top of each other; `limits` are (from this value on, colour).
    """

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    stack: bool = False
    limits: tuple[tuple[float, str], ...] = ()


Row = tuple[str, tuple[Panel, ...]]
"""Panels side by side under a title."""


def quantile(share: float, histogram: str, by: str, where: str = "") -> str:
    """Return the expression of a quantile over all orchestrators."""
    selected = f"{histogram}_bucket{{{where}}}" if where else f"{histogram}_bucket"
    return f"histogram_quantile({share}, sum by ({by}le) (rate({selected}[$__rate_interval])))"


def rate(counter: str, by: str, where: str = "") -> str:
    """Return the expression of a rate per second over all orchestrators."""
    selected = f"{counter}{{{where}}}" if where else counter
    return f"sum by ({by}) (rate({selected}[$__rate_interval]))"


def quantiles(histogram: str, where: str) -> tuple[Query, ...]:
    """Return the median, the 95th and the 99th of a hundred."""
    return tuple(
        (quantile(share, histogram, "", where), name)
        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )


AGE = ((0.0, "green"), (30.0, "orange"), (60.0, "red"))
SHARE = ((0.0, "green"), (0.02, "orange"), (0.1, "red"))
FULL = ((0.0, "green"), (0.8, "orange"), (1.0, "red"))
SOME = ((0.0, "green"), (1.0, "red"))
NONE = ((0.0, "red"), (1.0, "green"))

PLATFORM: tuple[Row, ...] = (
    ("Now", (
        Panel("Orchestrators", "How many answer Prometheus.", "short",
              (('sum(up{job="orchestrator"})', ""),), "stat", 4, limits=NONE),
        Panel("Ready workers", "Of all services.", "short",
              (('sum(service_state:nlp_workers:max{state="ready"})', ""),), "stat", 4,
              limits=NONE),
        Panel("Jobs a second", "That ended, over the last five minutes.", "reqps",
              (("sum(service_outcome:nlp_jobs:rate5m)", ""),), "stat", 4),
        Panel("Failing", "Share of the jobs that failed by no fault of their callers.",
              "percentunit",
              (("sum(service:nlp_job_failures:increase5m) / "
                "sum(service:nlp_jobs:increase5m)", ""),),
              "stat", 4, limits=SHARE),
        Panel("Oldest waiting job", "The figure to scale by.", "s",
              (("max(service:nlp_queue_oldest_age_seconds:max)", ""),), "stat", 4, limits=AGE),
        Panel("In quarantine", "Workers whose manifest or WIRE_SECRET is refused.", "short",
              (("max(nlp_registry_conflicts)", ""),), "stat", 4, limits=SOME),
    )),
    ("Work", (
        Panel("Jobs that end", "Each is counted once, by the orchestrator that committed it.",
              "reqps", ((rate("nlp_jobs_total", "service"), "{{service}}"),), stack=True),
        Panel("Failures", "By service and what ended them.", "reqps",
              ((rate("nlp_jobs_total", "service, reason", 'outcome="failed"'),
                "{{service}}: {{reason}}"),), stack=True),
        Panel("Attempts made again", "By what ended the one before.", "reqps",
              ((rate("nlp_job_retries_total", "service, reason"), "{{service}}: {{reason}}"),),
              stack=True),
    )),
    ("Waiting", (
        Panel("Oldest waiting job", "How long it has waited for its present attempt.", "s",
              (("service:nlp_queue_oldest_age_seconds:max", "{{service}}"),), limits=AGE),
        Panel("Waiting jobs", "That have been accepted and have not started.", "short",
              (("service:nlp_queue_depth:max", "{{service}}"),), stack=True),
        Panel("Time in the queue, p95", "Of the jobs that ended.", "s",
              (("service:nlp_job_queue_seconds:p95_5m", "{{service}}"),)),
    )),
    ("Running", (
        Panel("Run time, p95", "From the start to the end of a job's last attempt.", "s",
              (("service:nlp_job_run_seconds:p95_5m", "{{service}}"),)),
        Panel("Running jobs", "At this moment.", "short",
              (("max by (service) (nlp_jobs_in_progress)", "{{service}}"),), stack=True),
        Panel("Slots in use", "Share of what the ready workers can run at a time.", "percentunit",
              (("max by (service) (nlp_worker_busy) / (max by (service) (nlp_worker_slots) > 0)",
                "{{service}}"),), limits=FULL),
    )),
    ("Workers", (
        Panel("Workers by state", "Alive, whatever they do.", "short",
              (("sum by (state) (service_state:nlp_workers:max)", "{{state}}"),), stack=True),
        Panel("Services without a ready worker", "Known, and nobody serves them now.", "short",
              (("max by (service) (nlp_service_info) unless on (service) "
                '(service_state:nlp_workers:max{state="ready"} > 0)', "{{service}}"),)),
        Panel("Versions", "That answer for a service now.", "short",
              (("max by (service, version, digest) (nlp_service_info)", ""),), "table"),
    )),
    ("HTTP", (
        Panel("Requests", "By status.", "reqps",
              ((rate("http_request_duration_seconds_count", "status", 'job="orchestrator"'),
                "{{status}}"),), stack=True),
        Panel("Time to answer, p95", "By route; long polls wait on purpose.", "s",
              ((quantile(0.95, "http_request_duration_seconds", "route, ", 'job="orchestrator"'),
                "{{route}}"),)),
        Panel("Webhook deliveries", "By outcome.", "reqps",
              ((rate("nlp_webhook_deliveries_total", "outcome"), "{{outcome}}"),), stack=True),
    )),
    ("Orchestrators", (
        Panel("Processor", "Cores in use.", "short",
              (('rate(process_cpu_seconds_total{job="orchestrator"}[$__rate_interval])',
                "{{instance}}"),), width=12),
        Panel("Memory", "Resident.", "bytes",
              (('process_resident_memory_bytes{job="orchestrator"}', "{{instance}}"),), width=12),
    )),
)  # fmt: skip

SERVICE: tuple[Row, ...] = (
    ("Now", (
        Panel("Ready workers", "Of this service.", "short",
              ((f'sum(service_state:nlp_workers:max{{state="ready", {ONE}}})', ""),), "stat", 4,
              limits=NONE),
        Panel("Slots in use", "Share of what they can run at a time.", "percentunit",
              ((f"sum(max by (service) (nlp_worker_busy{{{ONE}}})) / "
                f"sum(max by (service) (nlp_worker_slots{{{ONE}}}))", ""),), "stat", 4,
              limits=FULL),
        Panel("Jobs a second", "That ended, over the last five minutes.", "reqps",
              ((f"sum(service_outcome:nlp_jobs:rate5m{{{ONE}}})", ""),), "stat", 4),
        Panel("Failing", "Share that failed by no fault of their callers.", "percentunit",
              ((f"max(service:nlp_job_failures:ratio5m{{{ONE}}})", ""),), "stat", 4, limits=SHARE),
        Panel("Oldest waiting job", "The figure to scale by.", "s",
              ((f"max(service:nlp_queue_oldest_age_seconds:max{{{ONE}}})", ""),), "stat", 4,
              limits=AGE),
        Panel("Loading", "The longest of the ready workers.", "s",
              ((f"max(nlp_worker_load_seconds{{{ONE}}})", ""),), "stat", 4),
    )),
    ("What becomes of jobs", (
        Panel("By outcome", "Jobs that ended.", "reqps",
              ((rate("nlp_jobs_total", "outcome", ONE), "{{outcome}}"),), stack=True),
        Panel("By reason", "What ended those that did not succeed.", "reqps",
              ((rate("nlp_jobs_total", "reason", f'reason!="", {ONE}'), "{{reason}}"),),
              stack=True),
        Panel("Attempts made again", "By what ended the one before.", "reqps",
              ((rate("nlp_job_retries_total", "reason", ONE), "{{reason}}"),), stack=True),
    )),
    ("Where time goes", (
        Panel("Time in the queue", "Of a job's last attempt.", "s",
              quantiles("nlp_job_queue_seconds", ONE)),
        Panel("Run time", "Of a job's last attempt.", "s", quantiles("nlp_job_run_seconds", ONE)),
        Panel("Run times", "How many jobs took how long.", "s",
              ((f"sum by (le) (increase(nlp_job_run_seconds_bucket{{{ONE}}}[$__rate_interval]))",
                "{{le}}"),), "heatmap"),
    )),
    ("Steps", (
        Panel("Step time, p95", "Of each step that the manifest declares.", "s",
              ((quantile(0.95, "nlp_step_seconds", "service, step, ", ONE),
                "{{service}}: {{step}}"),), width=12),
        Panel("Seconds of work a second", "In which step the service spends its time.", "short",
              ((rate("nlp_step_seconds_sum", "service, step", ONE), "{{service}}: {{step}}"),),
              width=12, stack=True),
    )),
    ("Load", (
        Panel("Waiting and running jobs", "At this moment.", "short",
              ((f"sum(service:nlp_queue_depth:max{{{ONE}}})", "waiting"),
               (f"sum(max by (service) (nlp_jobs_in_progress{{{ONE}}}))", "running"))),
        Panel("Workers by state", "Alive, whatever they do.", "short",
              ((f"sum by (state) (service_state:nlp_workers:max{{{ONE}}})", "{{state}}"),),
              stack=True),
        Panel("Size of inputs", "Before compression.", "bytes",
              quantiles("nlp_input_bytes", ONE)),
    )),
)  # fmt: skip


def dashboard(uid: str, title: str, rows: Sequence[Row], *, choose: bool = False) -> dict[str, Any]:
    """Return a dashboard; `choose` gives it a variable `service`."""
    panels: list[dict[str, Any]] = []
    top = 0
    for name, row in rows:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": name, "collapsed": False,
             "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}, "panels": []}
        )  # fmt: skip
        top, left = top + 1, 0
        height = 4 if all(panel.kind == "stat" for panel in row) else 8
        for panel in row:
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            panels.append(drawn(panel, len(panels) + 1, place))
            left += panel.width
        top += height
    return {
        "uid": uid, "title": title, "tags": ["nlp-runner"], "schemaVersion": 39, "version": 1,
        "editable": False, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [chooser()] if choose else []},
        "annotations": {"list": []}, "links": [], "panels": panels,
    }  # fmt: skip


def chooser() -> dict[str, Any]:
    """Return the variable by which a reader chooses services."""
    query = "label_values(nlp_service_info, service)"
    return {
        "name": "service", "label": "Service", "type": "query", "datasource": SOURCE,
        "definition": query, "query": {"query": query, "refId": "service"}, "refresh": 2,
        "sort": 1, "multi": False, "includeAll": False, "hide": 0,
    }  # fmt: skip


def drawn(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    """Return a panel as Grafana knows it."""
    steps = [{"value": None if at == 0 else at, "color": colour} for at, colour in panel.limits]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if steps:
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["color"] = {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stack else 0, "showPoints": "never", "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none"},
            "thresholdsStyle": {"mode": "line" if steps else "off"},
        }  # fmt: skip
    instant = panel.kind in ("stat", "table")
    shape = {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series")
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.about,
        "datasource": SOURCE, "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": OPTIONS.get(panel.kind, {}),
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expr, "format": shape,
             "legendFormat": legend or "__auto", "instant": instant, "range": not instant}
            for n, (expr, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip


OPTIONS: dict[str, dict[str, Any]] = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "none"},
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "heatmap": {"calculate": False, "yAxis": {"unit": "s"}, "cellGap": 1},
}

DASHBOARDS = {
    "platform.json": dashboard("nlp-platform", "NLP platform", PLATFORM),
    "service.json": dashboard("nlp-service", "NLP service", SERVICE, choose=True),
}


def texts() -> dict[str, str]:
    """Return the name and the text of every file."""
    return {name: json.dumps(board, indent=1) + "\n" for name, board in DASHBOARDS.items()}


def main() -> None:
    """Write the files."""
    for name, text in texts().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()

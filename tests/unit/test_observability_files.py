"""Dashboard and alerts speak of metrics, labels and sections that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from billing.observability.metrics import Metrics

ROOT: Final = Path(__file__).parents[2]
PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
DASHBOARD: Final[Any] = json.loads(
    (ROOT / "deploy" / "grafana" / "billing-dashboard.json").read_text("utf-8")
)
RULES: Final[Any] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS: Final[Any] = [rule for rule in RULES if "alert" in rule]
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text("utf-8")

SERIES_OF: Final = {
    "counter": ["_total"],
    "gauge": [""],
    "histogram": ["_bucket", "_sum", "_count"],
}
GIVEN_BY_PROMETHEUS: Final = {"instance", "le"}
NAME: Final = re.compile(r"\b(?:billing|process)[a-z0-9_:]*\b(?!\()")
SELECTOR: Final = re.compile(r"\b((?:billing|process)[a-z0-9_:]*)\{([^}]*)\}")
GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def registered() -> Mapping[str, set[str]]:
    """The labels of every series that the service tells, by its name."""
    collectors = Metrics().registry._collector_to_names
    labels: dict[str, set[str]] = {}
    for collector in collectors:
        for metric in collector.collect():
            for suffix in SERIES_OF[metric.type]:
                own = set(getattr(collector, "_labelnames", ()))
                labels[metric.name + suffix] = own | GIVEN_BY_PROMETHEUS
    return labels


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression in use, with its place."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]


SERIES: Final = registered()
RECORDED: Final = {rule["record"] for rule in RULES if "record" in rule}
EXPRESSIONS: Final = list(expressions())


def without_texts(expression: str) -> str:
    """The expression without the values of labels and the labels in groupings."""
    return re.sub(r'"[^"]*"', '""', expression)


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[p for p, _ in EXPRESSIONS])
def test_every_metric_is_told_and_has_its_labels(place: str, expression: str) -> None:
    bare = without_texts(expression)
    names = set(NAME.findall(bare))
    assert names, "an expression about nothing"
    assert names <= SERIES.keys() | RECORDED
    for name, matchers in SELECTOR.findall(bare):
        if name in SERIES:
            assert set(LABEL.findall(matchers)) <= SERIES[name], name
    for labels in GROUPING.findall(bare):
        named = set(labels.replace(",", " ").split())
        assert any(named <= SERIES[name] for name in names & SERIES.keys()) or names & RECORDED


def test_everything_that_is_told_of_billing_is_shown_or_alerts() -> None:
    used = {name for _, expression in EXPRESSIONS for name in NAME.findall(expression)}
    told = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        for name in SERIES
        if name.startswith("billing_")
    }
    assert not {name for name in told if not any(use.startswith(name) for use in used)}


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_every_alert_says_what_is_wrong_and_where_to_read_on(alert: Any) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "runbook_url"}
    anchor = alert["alert"].lower()
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{anchor}"
    assert f"\n### {alert['alert']}\n" in OPERATIONS


def test_operations_explain_no_alert_that_is_gone() -> None:
    explained = re.findall(r"^### (Billing\w+)$", OPERATIONS, re.MULTILINE)
    assert explained == [alert["alert"] for alert in ALERTS]


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text("utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fired == {alert["alert"] for alert in ALERTS}
    assert silent == fired


def test_panels_have_their_own_places_and_say_what_they_show() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert all(
                target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]
            )


def promtool(*arguments: str) -> None:
    """Run Prometheus's own tool, where it is installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [program, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_they_do_what_their_tests_say() -> None:
    promtool("check", "rules", str(PROMETHEUS / "alerts.yaml"))
    promtool("test", "rules", str(PROMETHEUS / "alerts_test.yaml"))


def test_prometheus_takes_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(EXPRESSIONS)
    ]
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))

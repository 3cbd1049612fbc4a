"""The alerts: Prometheus' own tool checks and runs them, and each leads to a page and a command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kubectl_llmdoctor.alerts import alerting_engines, groups
from kubectl_llmdoctor.catalog.metrics import ENGINES, PLATFORM, metrics_of
from kubectl_llmdoctor.cli.alerts import command
from kubectl_llmdoctor.packs import installed

CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kubectl-llmdoctor"


def promtools() -> list[str]:
    """Every promtool that there is: on the path, and where the end-to-end tests keep theirs."""
    found = shutil.which("promtool")
    built = sorted(CACHE.glob("**/promtool")) if CACHE.is_dir() else []
    return [*([found] if found else []), *(str(path) for path in built if path.is_file())]


def output(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.exception is None, result.exception
    return result.output


@pytest.mark.skipif(not promtools(), reason="no promtool on this machine")
@pytest.mark.parametrize("tool", promtools())
class TestWithPromtool:
    """Debian's and the newest, as far as they are there."""

    def run(self, tool: str, folder: Path, *arguments: str) -> None:
        done = subprocess.run([tool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("arguments", [(), ("-n", "serving"), ("--engine", "sglang", "--runbooks", "https://x/y/")])
    def test_rules_are_sound(self, tool: str, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        (tmp_path / "rules.yaml").write_text(output("--raw", *arguments), encoding="utf-8")
        self.run(tool, tmp_path, "check", "rules", "rules.yaml")

    @pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
    def test_rules_fire_and_stay_quiet(self, tool: str, tmp_path: Path, path: Path) -> None:
        (tmp_path / "rules.yaml").write_text(output("--raw"), encoding="utf-8")
        shutil.copy(path, tmp_path / path.name)
        self.run(tool, tmp_path, "test", "rules", path.name)


def rules(**more: Any) -> list[dict[str, Any]]:
    return [rule for group in groups(**more) for rule in group["rules"]]


def test_every_alert_has_a_test_that_expects_it() -> None:
    expected = {
        row["alertname"]
        for path in CASES
        for test in yaml.safe_load(path.read_text())["tests"]
        for row in test["alert_rule_test"]
        if row["exp_alerts"]
    }
    assert expected == {rule["alert"] for rule in rules()}


def test_every_alert_leads_to_a_page_and_a_command() -> None:
    pages = {check.docs for check in installed()}
    for rule in rules():
        notes = rule["annotations"]
        assert notes["runbook_url"].partition("?")[0] in pages
        assert notes["diagnose"] == "kubectl llmdoctor diagnose {{ $labels.pod }} -n {{ $labels.namespace }}"
    far = rules(runbooks="https://wiki/llm/")
    assert far[0]["annotations"]["runbook_url"].startswith("https://wiki/llm/queue-growing.md?")


def test_every_metric_of_an_expression_is_known() -> None:
    known = {m.name for source in (*ENGINES, *PLATFORM) for m in metrics_of(source)}
    for rule in rules():
        words = re.sub(r'"[^"]*"', "", rule["expr"])
        used = {
            word
            for word in re.findall(r"[a-zA-Z_:][\w:]*", words)
            if re.search(r"[:]|^(tgi|nv|kube|DCGM|trtllm)_", word)
        }
        assert used
        assert used <= known


def test_the_namespace_limits_every_selector_of_pods() -> None:
    for rule in rules(namespace="serving"):
        selectors = re.findall(
            r"\b(?:\w+:\w+|(?:tgi|nv|trtllm|kube)_\w+)(\{[^}]*\})?", re.sub(r"label_replace.*?\)\)", "", rule["expr"])
        )
        assert selectors
        assert all('namespace="serving"' in selector for selector in selectors), rule["expr"]


def test_the_object() -> None:
    made = yaml.safe_load(output("-n", "serving", "--engine", "vllm", "--name", "llm", "--label", "release=prometheus"))
    assert (made["apiVersion"], made["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert made["metadata"]["name"] == "llm"
    assert made["metadata"]["namespace"] == "serving"
    assert made["metadata"]["labels"]["release"] == "prometheus"
    assert [group["name"] for group in made["spec"]["groups"]] == ["llmdoctor-vllm", "llmdoctor-pods", "llmdoctor-gpus"]


@pytest.mark.parametrize(
    "arguments", [("--engine", "ollama"), ("-n", 'x"} or up{'), ("--label", "release"), ("--label", "=x")]
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(command, arguments, standalone_mode=False).exception is not None


def test_all_engines_but_those_without_a_queue_of_their_own_name() -> None:
    assert set(ENGINES) - set(alerting_engines()) == {"nim"}

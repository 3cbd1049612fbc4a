"""Which of several timeouts ended a request, and that the fix for it never shortens what is allowed."""

from pathlib import Path

import pytest
from llmdoctor_checks.serving._timeouts import Timeout, longer

from kubectl_llmdoctor.facts.cluster import Item
from kubectl_llmdoctor.testing import diagnose_case, load_case

CASES = Path(__file__).parent.parent / "checks" / "cases" / "gateway-timeout"


@pytest.mark.parametrize(
    ("case", "named", "value"),
    [
        (
            "fires_attempts_shorter_than_the_route",
            "after 60 s; its log says so 4 times, and BackendTrafficPolicy/patient",
            "600s",
        ),
        ("fires_answer_begins_late", "Service/llama-predictor allows 5 min", 600),
        # beside the attributes that are there
        (
            "fires_alb_of_two_minutes",
            "which is what Ingress/qwen3 allows",
            "deletion_protection.enabled=true,idle_timeout.timeout_seconds=600",
        ),
    ],
)
def test_the_timeout_that_ended_the_request_is_raised(case: str, named: str, value: object) -> None:
    report = diagnose_case(load_case(CASES / f"{case}.yaml"))
    finding = report.targets[0].findings[0]
    assert named in finding.summary
    patch = finding.fixes[0].patch
    assert patch is not None
    assert [operation["value"] for operation in patch.body] == [value]


def test_no_route_is_named_where_cloudflare_gave_up() -> None:
    report = diagnose_case(load_case(CASES / "fires_tunnel.yaml"))
    assert "Cloudflare" in report.targets[0].findings[0].fixes[0].summary


def test_replicas_of_a_gateway_are_counted_and_their_last_word_is_told() -> None:
    report = diagnose_case(load_case(CASES / "quiet_two_gateways_days_ago.yaml"))
    summary = report.targets[0].findings[0].summary
    assert summary.startswith("istio-ingressgateway-9x4t and 1 more gave up")
    assert summary.endswith("their logs say so 4 times, the last 2 d ago.")


@pytest.mark.parametrize(("seconds", "wanted"), [(30, "600s"), (600, "1200s"), (1800, "3600s")])
def test_a_longer_timeout_is_longer(seconds: int, wanted: str) -> None:
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "llama", "namespace": "serving"},
        "spec": {"rules": [{"timeouts": {"request": f"{seconds}s"}}]},
    }
    path = "spec.rules[0].timeouts.request"
    timeout = Timeout(Item(route, None), path, f"request: {seconds}s", seconds, whole=True)
    patch = longer(timeout, 0).patch
    assert patch is not None
    assert patch.body[0]["value"] == wanted

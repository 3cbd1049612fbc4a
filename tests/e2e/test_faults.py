"""Whatever breaks between the program and the API server: a report that says so, or one line. Never a traceback, never
a false "healthy"."""

import time
from collections.abc import Callable

import pytest

from .conftest import Doctor
from .controlplane import ControlPlane
from .faultproxy import URL, Fault, FaultProxy, Rule, cut_json, refuse, reset_midway, silence
from .play import Object
from .program import Result, assert_honest

CAUSE = ("cause", "context-uncapped")
POD = r"GET /api/v1/namespaces/serving/pods/llama-0(\?|$)"
# What a diagnosis asks for, as the report calls it, and what its requests look like.
SOURCES = {
    "logs": r"/pods/llama-0/log",
    "events": r"/events\b",
    "nodes": r"/api/v1/nodes\b",
    "statefulsets": r"/statefulsets\b",
    "services": r"/services\b",
    "endpointslices": r"/endpointslices\b",
}
FAULTS: dict[str, Fault] = {
    "403": refuse(403, "Forbidden", "it is forbidden"),
    "404": refuse(404, "NotFound", "the server could not find the requested resource"),
    "429": refuse(429, "TooManyRequests", "too many requests"),
    "500": refuse(500, "InternalError", "an error on the server"),
    "503": refuse(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
    "reset": reset_midway,
    "cut": cut_json,
}

Diagnose = Callable[..., Result]


@pytest.fixture
def diagnose(crashed: Object, cluster: ControlPlane, proxy: FaultProxy, doctor: Doctor) -> Diagnose:
    """Diagnoses the crashed pod through the proxy."""
    kubeconfig = cluster.kubeconfig("proxied", cluster.user("anyone"), server=URL)

    def run(*arguments: str) -> Result:
        return doctor("diagnose", "llama-0", "-n", "serving", "-o", "json", *arguments, kubeconfig=kubeconfig)

    return run


def _found(result: Result) -> bool:
    return result.code == 1 and result.findings[0] == CAUSE


def test_without_a_fault(diagnose: Diagnose, proxy: FaultProxy) -> None:
    assert _found(diagnose())
    assert proxy.requests
    assert all(request.startswith(("GET ", "POST /apis/authorization.k8s.io/")) for request in proxy.requests)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fault", FAULTS)
def test_one_source_is_broken(diagnose: Diagnose, proxy: FaultProxy, source: str, fault: str) -> None:
    rule = Rule(SOURCES[source], FAULTS[fault])
    proxy.rules.append(rule)
    result = diagnose("--request-timeout", "3s")
    assert rule.hits, f"the diagnosis never asked for {source}"
    assert result.code == 1
    if fault == "404":  # said by the API server itself: there is none, and nothing was left unread
        assert result.target["verdict"] != "healthy"
        assert "Traceback" not in result.err
    else:
        # A log cannot be seen to be cut when the answer pretends to be whole.
        if (source, fault) != ("logs", "cut"):
            assert_honest(result, source)
    if source != "logs":
        assert CAUSE in result.findings, "the other sources say enough"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_pod_itself_cannot_be_read(diagnose: Diagnose, proxy: FaultProxy, fault: str) -> None:
    proxy.rules.append(Rule(r"/api/v1/(namespaces/serving/)?pods(/llama-0)?(\?|$)", FAULTS[fault]))
    result = diagnose("--request-timeout", "3s")
    assert result.code == 3
    assert_honest(result)


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_can_be_read(diagnose: Diagnose, proxy: FaultProxy, fault: str) -> None:
    proxy.rules.append(Rule("", FAULTS[fault]))
    result = diagnose("--request-timeout", "3s")
    assert result.code == 3
    assert_honest(result)


@pytest.mark.parametrize("fault", ["429", "500", "503"])
def test_what_passes_is_tried_again(diagnose: Diagnose, proxy: FaultProxy, fault: str) -> None:
    proxy.rules.append(Rule("/pods/llama-0/log", FAULTS[fault], times=1))
    result = diagnose()
    assert _found(result)
    assert len(proxy.rules[0].hits) == 1


def test_retry_after_is_honoured(diagnose: Diagnose, proxy: FaultProxy) -> None:
    busy = refuse(429, "TooManyRequests", "too many requests, please try again later", {"Retry-After": "2"})
    first = Rule(POD, busy, times=1)
    second = Rule(POD, lambda exchange: exchange.answer(exchange.forward()))
    proxy.rules += [first, second]
    assert _found(diagnose())
    assert second.hits[0] - first.hits[0] >= 2


def test_busy_for_ever_ends(diagnose: Diagnose, proxy: FaultProxy) -> None:
    busy = refuse(429, "TooManyRequests", "too many requests, please try again later", {"Retry-After": "1"})
    proxy.rules.append(Rule("/events", busy))
    result = diagnose("--request-timeout", "3s")
    assert_honest(result, "events")
    assert CAUSE in result.findings
    assert result.seconds < 20


@pytest.mark.parametrize("source", ["logs", "events", "nodes"])
def test_silence_is_cut(diagnose: Diagnose, proxy: FaultProxy, source: str) -> None:
    proxy.rules.append(Rule(SOURCES[source], silence(10)))
    result = diagnose("--request-timeout", "1s")
    assert_honest(result, source)
    assert result.code == 1
    assert result.seconds < 8, "the program waited for an answer that it was told not to wait for"


def test_the_server_goes_away(diagnose: Diagnose, proxy: FaultProxy) -> None:
    """It answers for the pod and is gone for everything else."""
    proxy.rules.append(Rule(rf"^(?!{POD})", lambda exchange: exchange.reset()))
    result = diagnose("--request-timeout", "3s")
    assert_honest(result)


def test_silence_of_everything(diagnose: Diagnose, proxy: FaultProxy) -> None:
    proxy.rules.append(Rule("", silence(10)))
    began = time.monotonic()
    result = diagnose("--request-timeout", "1s")
    assert result.code == 3
    assert_honest(result)
    assert time.monotonic() - began < 8

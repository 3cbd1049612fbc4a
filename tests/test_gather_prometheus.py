"""Prometheus in a gathering: which Services are one, what it is asked, and what is said when it fails."""
# ruff: noqa: F811

from __future__ import annotations

import base64
import json
import math
import re
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import yaml

from kubectl_llmdoctor.catalog import metrics
from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather import access, fleet
from kubectl_llmdoctor.gather.cluster import Cluster, Query, gather
from kubectl_llmdoctor.gather.prometheus import ask, find, options, queries, reading
from kubectl_llmdoctor.gather.prometheus.queries import PodRef
from kubectl_llmdoctor.gather.wanted import WantedPrometheus
from kubectl_llmdoctor.redact import mask_object
from kubectl_llmdoctor.snapshot import Missing, Snapshot
from tests.test_gather_cluster import obj, pod
from tests.test_gather_connection import Pki, pki  # noqa: F401
from tests.test_gather_server import (  # noqa: F401
    FakeApi,
    Fault,
    Handler,
    Json,
    api,
    cluster,
    kubeconfig,
    raw,
    reset_after,
    seconds_of,
    silence,
    status,
)

PROXY = "/api/v1/namespaces/monitoring/services/prometheus-k8s:9090/proxy"
NAME = "Service monitoring/prometheus-k8s:9090"
AUTO = WantedPrometheus(where="auto")


def service(name: str = "prometheus-k8s", ns: str = "monitoring", **more: Any) -> Json:
    labels = more.pop("labels", {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "prometheus"})
    ports = more.pop("ports", [{"name": "web", "port": 9090}])
    return obj("Service", name, ns=ns, meta={"labels": labels}, spec={"ports": ports, **more})


class Engine:
    """What a Prometheus knows of `serving/llama-0`, as an answer to any query."""

    def __init__(self, **wrong: Any) -> None:
        self.asked: list[dict[str, str]] = []
        self.wrong = wrong

    def __call__(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.asked.append(asked)
        if parts.path.endswith("/query"):
            now = time.time() + self.wrong.get("skew", 0)
            metric = {"family": "engine", "labels": "pod", "namespace": "serving", "pod": "llama-0"}
            rows = [{"metric": {}, "value": [now, "0"]}, {"metric": metric, "value": [now, "4"]}]
            result: Any = rows[: 1 if self.wrong.get("empty") else 2]
            kind = "vector"
        else:
            start, labels = float(asked["start"]), {"__name__": "vllm:num_requests_waiting", "pod": "llama-0"}
            values = [[start, "0"], [start + 30, "NaN"], [start + 60, "+Inf"], [start + 90, "2.5"]]
            result, kind = [{"metric": labels | self.wrong.get("labels", {}), "values": values}], "matrix"
        tree: Json = {"status": "success", "data": {"resultType": kind, "result": result}}
        handler.json(tree | self.wrong.get("more", {}))


@pytest.fixture
def world(api: FakeApi) -> FakeApi:
    running = {"name": "vllm", "ready": True, "state": {"running": {}}}
    api.objects = [pod("llama-0", status={"containerStatuses": [running], "podIP": "10.0.0.7"}), service()]
    api.logs["serving", "llama-0", "vllm", False] = b"INFO started\n"
    answer(api, Engine())
    return api


def answer(api: FakeApi, fault: Fault, root: str = PROXY) -> Any:
    for path in ("query", "query_range"):
        api.faults[f"{root}/api/v1/{path}"] = [fault]
    return fault


def run(cluster: Cluster, wanted: WantedPrometheus = AUTO) -> Snapshot:
    return gather(cluster, Query(names=("llama-0",), prometheus=wanted))


def said(snapshot: Snapshot) -> list[Missing]:
    assert any(one["kind"] == "Pod" for one in snapshot.objects)
    assert snapshot.logs
    return [row for row in snapshot.missing if row.source == "prometheus"]


# --- what is asked and kept -------------------------------------------------------------------------------------------


def test_the_series_of_a_pod_are_read_through_the_api_server(world: FakeApi, cluster: Cluster) -> None:
    found = run(cluster)

    assert said(found) == []
    assert {one["source"] for one in found.prometheus} == {NAME}
    (first, *_) = found.prometheus
    assert set(first) == {"source", "query", "start", "end", "step", "series", "warnings"}
    (series,) = first["series"]
    # NaN and the infinities are no numbers; whole ones stay short.
    assert series == {
        "labels": {"__name__": "vllm:num_requests_waiting", "pod": "llama-0"},
        "values": [[0, 0], [30, None], [60, None], [90, 2.5]],
    }
    began, ended = (datetime.fromisoformat(first[key]) for key in ("start", "end"))
    assert (ended - began).total_seconds() == queries.WINDOW
    assert abs((ended - datetime.now(UTC)).total_seconds()) < 5
    assert msgspec.json.decode(msgspec.json.encode(found.prometheus))


def test_one_pod_costs_few_and_bounded_queries(world: FakeApi, cluster: Cluster) -> None:
    asked = answer(world, Engine()).asked
    run(cluster)

    assert 2 <= len(asked) <= 12
    for one in asked[1:]:
        assert float(one["end"]) - float(one["start"]) == 3600
        assert int(one["step"]) >= 30
        assert one["limit"] == "5000"
        assert one["timeout"]


def test_nothing_is_asked_and_imported_without_prometheus(world: FakeApi, cluster: Cluster) -> None:
    answer(world, Engine()).asked.clear()
    found = gather(cluster, Query(names=("llama-0",)))

    assert found.prometheus == ()
    assert not [row for row in found.missing if row.source == "prometheus"]
    assert not any("/proxy/" in path for _, path, _, _ in world.requests)


def test_secrets_in_labels_are_masked(world: FakeApi, cluster: Cluster) -> None:
    answer(world, Engine(labels={"api_key": "sk-proj-abcdefghijklmnop0123456789"}))
    assert "abcdefghijklmnop" not in str(run(cluster).prometheus)


def test_the_mask_leaves_names_and_queries_of_the_catalogue_alone() -> None:
    pods = [PodRef("serving", "llama-0", "10.0.0.7", ((engine, None),), ()) for engine in metrics.ENGINES]
    styles: dict[str, tuple[str, ...]] = {
        "engine": ("pod",),
        "cadvisor": ("pod",),
        "dcgm": ("exported_pod",),
        "hpa": ("pod",),
    }
    for question in queries.questions(pods, styles):
        tree = {"query": question.promql, "labels": {"__name__": question.promql[:60]}}
        assert mask_object(tree) == tree


# --- queries ----------------------------------------------------------------------------------------------------------


def refs(count: int, version: str | None = "0.11.0") -> list[PodRef]:
    owner = (("Deployment", "llama"), ("StatefulSet", "cache"))
    return [PodRef("serving", f"llama-7d9f8-{i:05}", f"10.0.0.{i}", (("vllm", version),), owner) for i in range(count)]


EVERYTHING = {
    "engine": ("pod", "exported_pod", "kubernetes_pod_name", "instance"),
    "cadvisor": ("pod",),
    "dcgm": ("pod", "exported_pod"),
    "hpa": ("pod", "exported_pod"),
    "replicas": ("pod",),
}


@pytest.mark.parametrize("count", [1, 16, 50, 64, 200, 5000])
def test_the_queries_of_an_audit_are_bounded(count: int) -> None:
    pods = refs(count)
    asked = [queries.probe(pods[:64]), *(question.promql for question in queries.questions(pods, EVERYTHING))]
    assert len(asked) <= (12 if count <= 16 else 25)
    assert all(question.step >= 30 for question in queries.questions(pods, EVERYTHING))


def test_an_audit_of_many_pods_stays_within_its_queries(world: FakeApi, cluster: Cluster) -> None:
    running = {"name": "vllm", "ready": True, "state": {"running": {}}}
    world.objects += [pod(f"llama-{i}", status={"containerStatuses": [running]}) for i in range(1, 120)]
    asked = answer(world, Engine()).asked

    found = gather(cluster, Query(all_namespaces=True, prometheus=AUTO))

    assert len(asked) <= 25
    names = {name for one in asked for name in re.findall(r"llama-\d+", one["query"])}
    assert len(names) == 50
    assert any("explained" in row.reason for row in found.missing)


def test_names_follow_the_release() -> None:
    def asked(version: str | None) -> str:
        return " ".join(one.promql for one in queries.questions(refs(1, version=version), {"engine": ("pod",)}))

    assert "vllm:gpu_cache_usage_perc" in asked("0.8.5")
    assert "vllm:kv_cache_usage_perc" not in asked("0.8.5")
    assert "vllm:kv_cache_usage_perc" in asked("0.20.0")
    assert "vllm:gpu_cache_usage_perc" not in asked("0.20.0")
    assert "vllm:gpu_cache_usage_perc" in asked(None)
    assert "vllm:kv_cache_usage_perc" in asked(None)
    assert "sglang" not in asked(None)


def test_a_pod_without_an_engine_is_asked_about_for_its_container_only() -> None:
    pods = [PodRef("serving", "web-0", "10.0.0.1", (), ())]
    assert [one.about for one in queries.questions(pods, EVERYTHING)] == [
        "cAdvisor",
        "DCGM exporter",
        "kube-state-metrics",
    ]
    assert 'family","engine"' not in queries.probe(pods)


def test_the_nodes_of_the_pods_are_asked_about_by_name_and_by_address() -> None:
    pods = [PodRef("serving", f"llama-{n}", f"10.0.0.{n}", (), (), ("gpu-1", "10.1.0.4")) for n in range(2)]
    (text,) = (one.promql for one in queries.questions(pods, {"cadvisor": ("pod",)}))
    assert '{__name__=~"node_memory_MemAvailable_bytes",node=~"10\\\\.1\\\\.0\\\\.4|gpu-1"}' in text
    assert 'instance=~"10\\\\.1\\\\.0\\\\.4(:.*)?|gpu-1(:.*)?"' in text


def test_selectors_quote_what_is_special_in_a_regular_expression() -> None:
    pods = [PodRef("serving", "llama.v2-0", "10.0.0.7", (("vllm", "0.11.0"),), ())]
    text = queries.probe(pods)
    assert r'pod=~"llama\\.v2-0"' in text
    assert r'instance=~"10\\.0\\.0\\.7:.*"' in text
    # Whether the names are those of the pod alone is what a regular expression engine says.
    pattern = re.search(r'[^_]pod=~"([^"]*llama[^"]*)"', text)
    assert pattern
    assert not re.fullmatch(pattern[1].replace(r"\\", "\\"), "llama-v2-0")


def test_what_a_server_has_is_read_from_the_answer() -> None:
    pods = refs(3)

    def row(value: float | None, **labels: str) -> Json:
        return {"labels": labels, "values": [[0, value]]}

    found = queries.found(
        [
            row(0),
            row(5, family="engine", labels="exported_pod", exported_namespace="serving", exported_pod=pods[0].name),
            row(5, family="engine", labels="exported_pod", exported_namespace="other", exported_pod=pods[1].name),
            row(5, family="engine", labels="instance", instance="10.0.0.2:8000"),
            row(0, family="dcgm", labels="pod"),
            row(3, family="cadvisor", labels="pod"),
            row(3, family="cadvisor", labels="of nobody"),
        ],
        pods,
    )
    assert found.styles == {"engine": ("exported_pod", "instance"), "cadvisor": ("pod",)}
    assert found.pods == {("serving", pods[0].name), ("serving", pods[2].name)}


# --- finding it -------------------------------------------------------------------------------------------------------

KPS = {"app": "kube-prometheus-stack-prometheus", "release": "kps"}
K8S = "app.kubernetes.io/name"
PART = "app.kubernetes.io/component"


@pytest.mark.parametrize(
    ("name", "labels", "ports", "expected"),
    [
        ("kps-kube-prometheus-stack-prometheus", KPS, [("http-web", 9090), ("reloader-web", 8080)], "9090"),
        ("prometheus-server", {K8S: "prometheus", PART: "server"}, [("http", 80)], "80"),
        ("prometheus-server", {"app": "prometheus", "component": "server"}, [("http", 80)], "80"),
        ("prometheus-operated", {"operated-prometheus": "true"}, [("web", 9090)], "9090"),
        ("prometheus", {}, [("", 9090)], "9090"),
        ("thanos-query", {K8S: "thanos-query", PART: "query-layer"}, [("grpc", 10901), ("http", 9090)], "9090"),
        ("obs-thanos-query-frontend", {K8S: "thanos", PART: "query-frontend"}, [("http", 9090)], "9090"),
        ("mimir-query-frontend", {K8S: "mimir", PART: "query-frontend"}, [("http-metrics", 8080)], "8080/prometheus"),
        ("vmselect-main", {K8S: "vmselect", PART: "monitoring"}, [("http", 8481)], "8481/select/0/prometheus"),
        ("vms-victoria-metrics-single-server", {K8S: "victoria-metrics-single"}, [("http", 8428)], "8428"),
        ("vmsingle-main", {K8S: "vmsingle"}, [("http", 8429)], "8429"),
        # Neighbours of the same releases.
        ("alertmanager-main", {K8S: "alertmanager"}, [("web", 9093)], None),
        ("prometheus-node-exporter", {K8S: "prometheus-node-exporter"}, [("metrics", 9100)], None),
        ("prometheus-pushgateway", {"app": "prometheus", "component": "pushgateway"}, [("http", 9091)], None),
        ("prometheus-k8s-thanos-sidecar", {K8S: "prometheus", PART: "thanos-sidecar"}, [("grpc", 10901)], None),
        ("prometheus-operator", {K8S: "prometheus-operator"}, [("https", 8443)], None),
        ("prometheus-adapter", {K8S: "prometheus-adapter"}, [("https", 443)], None),
        ("kube-state-metrics", {K8S: "kube-state-metrics"}, [("http", 8080)], None),
        ("thanos-receive", {K8S: "thanos", PART: "receive"}, [("http", 10902)], None),
        ("thanos-storegateway", {K8S: "thanos", PART: "storegateway"}, [("http", 10902)], None),
        ("vminsert-main", {K8S: "vminsert", PART: "monitoring"}, [("http", 8480)], None),
        ("mimir-ingester", {K8S: "mimir", PART: "ingester"}, [("http-metrics", 8080)], None),
        ("grafana", {K8S: "grafana"}, [("http", 9090)], None),
        ("prometheus", {}, [("", 5432)], None),
    ],
)
def test_which_services_are_one(name: str, labels: Json, ports: list[tuple[str, int]], expected: str | None) -> None:
    row = service(name, labels=labels, ports=[{"name": called, "port": port} for called, port in ports])
    found = find.candidate(msgspec.convert(row, find._Service))
    assert (found and f"{found.port}{found.path}") == expected


def test_the_one_that_knows_the_pods_is_taken(world: FakeApi, cluster: Cluster) -> None:
    labels = {K8S: "thanos-query"}
    world.objects.append(service("thanos-query", "infra", labels=labels, ports=[{"name": "http", "port": 9090}]))
    answer(world, Engine(empty=True), "/api/v1/namespaces/infra/services/thanos-query:9090/proxy")

    found = run(cluster)

    assert {one["source"] for one in found.prometheus} == {NAME}
    assert said(found) == []


def test_the_operators_object_says_path_and_tls(world: FakeApi, cluster: Cluster) -> None:
    spec = {"routePrefix": "/prom", "web": {"tlsConfig": {"keySecret": {"name": "tls"}}}}
    world.objects.append(obj("Prometheus", "k8s", "monitoring.coreos.com/v1", ns="monitoring", spec=spec))
    world.faults["/apis"] = [
        lambda h: h.json({"groups": [{"name": "monitoring.coreos.com", "versions": [{"version": "v1"}]}]})
    ]
    answer(world, Engine(), "/api/v1/namespaces/monitoring/services/https:prometheus-k8s:9090/proxy/prom")

    assert run(cluster).prometheus


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://thanos-query.infra.svc:9090", "/api/v1/namespaces/infra/services/thanos-query:9090/proxy"),
        (
            "dnssrv+https://q.infra.svc.cluster.local:10902/thanos/",
            "/api/v1/namespaces/infra/services/https:q:10902/proxy/thanos",
        ),
        ("http://q:9090/../../secrets", "/api/v1/namespaces/monitoring/services/q:9090/proxy"),
        ("q.infra.svc", None),
    ],
)
def test_a_ruler_names_who_it_asks(endpoint: str, expected: str | None) -> None:
    ruler = obj("ThanosRuler", "main", "monitoring.coreos.com/v1", ns="monitoring", spec={"queryEndpoints": [endpoint]})
    assert [one.proxy_path for one in find._queried(ruler)] == ([expected] if expected else [])


def test_without_the_right_to_list_all_services_the_usual_namespaces_are_looked_through(
    world: FakeApi, cluster: Cluster
) -> None:
    world.faults["/api/v1/services"] = [status(403, "services is forbidden at the cluster scope")]

    assert run(cluster).prometheus


def test_none_found_is_said(world: FakeApi, cluster: Cluster) -> None:
    del world.objects[1]
    assert said(run(cluster)) == [Missing(source="prometheus", ref="", reason="none found")]


def test_access_says_whether_one_answers(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{PROXY}/api/v1/query"] = [Engine(), status(403, "services/proxy is forbidden")]
    answers, refuses = access.prometheus(cluster, None), access.prometheus(cluster, None)
    del world.objects[1]
    none = access.prometheus(cluster, None)

    assert (answers.allowed, NAME in answers.needed_for, answers.reason) == (True, True, "")
    assert (refuses.allowed, refuses.reason) == (False, f"{NAME}: forbidden: services/proxy is forbidden")
    assert (none.allowed, none.reason) == (False, "none found")


# --- faults -----------------------------------------------------------------------------------------------------------

MANY = json.dumps(
    {"status": "error", "errorType": "execution", "error": "query processing would load too many samples"}
)
LOGIN = b"<!doctype html><html><form action=/login>"
FAULTS: dict[str, tuple[Fault, str]] = {
    "down": (
        status(503, 'no endpoints available for service "prometheus-k8s"'),
        "server error 503: no endpoints available",
    ),
    "slow": (silence, "timed out after 2 s"),
    "reset": (reset_after(b'{"status"'), "connection broken"),
    "unauthorized": (raw(401, b"Unauthorized"), "unauthorized: Unauthorized; the API server passes no credentials on"),
    "no right to the proxy": (
        status(403, 'services "x" is forbidden: cannot get services/proxy'),
        "forbidden: services",
    ),
    "forbidden behind it": (raw(403, b"tenant is not allowed"), "forbidden: tenant is not allowed"),
    "too much asked": (
        raw(422, MANY.encode()),
        "refused (422): execution: query processing would load too many samples",
    ),
    "not there": (raw(404, b"404 page not found"), "not found (404)"),
    "huge": (raw(200, b" " * (2**20 + 1)), "the answer is larger than 1 MiB"),
    "login page": (raw(200, LOGIN), "a web page instead of an answer; is it Prometheus?"),
    "redirect": (
        raw(302, b"", Location="https://sso/login?state=SECRET"),
        "elsewhere (302, https://sso/login): is it Prom",
    ),
    "no JSON": (raw(200, b"OK"), "not whole"),
    "other JSON": (raw(200, b'{"kind":"Status"}'), "the answer is none of Prometheus"),
    "other shape": (raw(200, b'{"status":"success","data":{"result":7}}'), "neither a vector nor a matrix"),
    "values that are none": (
        raw(200, b'{"status":"success","data":{"result":[{"metric":{},"value":7}]}}'),
        "not understood",
    ),
    "no data": (Engine(empty=True), "has no series of these pods"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.impatient
def test_a_fault_costs_one_line_and_no_more(
    fault: str, world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "MOST_BYTES", 2**20)
    behaviour, expected = FAULTS[fault]
    answer(world, behaviour)

    found: list[Snapshot] = []
    seconds = seconds_of(lambda: found.append(run(cluster)))

    (row,) = said(found[0])
    assert expected in row.reason
    assert "\n" not in row.reason
    assert "SECRET" not in row.reason
    assert found[0].prometheus == ()
    assert seconds < 6


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"warnings": ["store 10.0.0.9 did not answer"]}, "store 10.0.0.9 did not answer"),
        ({"isPartial": True}, "partial response: some storage nodes did not answer"),
    ],
)
def test_a_partial_response_is_kept_and_said(more: Json, expected: str, world: FakeApi, cluster: Cluster) -> None:
    answer(world, Engine(more=more))
    found = run(cluster)

    assert said(found) == [Missing(source="prometheus", ref=NAME, reason=expected)]
    assert found.prometheus
    assert all(one["warnings"] == [expected] for one in found.prometheus)


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_another_clock_is_used_and_said(skew: int, world: FakeApi, cluster: Cluster) -> None:
    asked = answer(world, Engine(skew=skew)).asked
    found = run(cluster)

    (row,) = said(found)
    assert re.search(r"its clock and this one are 7(19|20)\d s apart", row.reason)
    assert math.isclose(float(asked[-1]["end"]), time.time() + skew, abs_tol=5)
    assert found.prometheus


def test_a_query_that_fails_costs_its_own_series_only(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{PROXY}/api/v1/query_range"] = [raw(422, MANY.encode()), Engine()]
    found = run(cluster)

    (row,) = said(found)
    assert row.ref.startswith(f"{NAME}, ")
    assert "422" in row.reason
    assert found.prometheus


def test_a_slow_server_is_not_asked_for_ever(world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PATIENCE", 0.05)

    def late(handler: Handler) -> None:
        time.sleep(0.1)
        Engine()(handler)

    answer(world, late)
    found = run(cluster)

    assert {row.reason for row in said(found)} == {"not asked: the answers before took 0.05 s"}


# --- by URL -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside() -> Iterator[FakeApi]:
    """A Prometheus outside of the cluster; it answers under /prom."""
    server = FakeApi()
    answer(server, Engine(), "/prom")
    yield server
    server.stop()


def headers_of(server: FakeApi) -> Json:
    return {name: values[0] for name, values in server.requests[-1][3].items()}


def test_a_url_is_asked_with_what_the_file_says(
    world: FakeApi, cluster: Cluster, outside: FakeApi, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("pass word\n")
    config = {
        "basic_auth": {"username": "doctor", "password_file": "password"},
        "http_headers": {"X-Scope-OrgID": {"values": ["team-a"]}},
    }
    (tmp_path / "http.yml").write_text(yaml.safe_dump(config))

    found = run(cluster, WantedPrometheus(where=f"{outside.url}/prom/", config=str(tmp_path / "http.yml")))

    assert said(found) == []
    assert {one["source"] for one in found.prometheus} == {f"{outside.url}/prom"}
    sent = headers_of(outside)
    assert sent["authorization"] == "Basic " + base64.b64encode(b"doctor:pass word").decode()
    assert sent["x-scope-orgid"] == "team-a"
    # The credentials for the cluster are nobody else's business.
    assert "t0ken" not in str(outside.requests)
    assert "impersonate-user" not in sent


def test_a_token_and_a_tenant_come_from_the_environment(
    world: FakeApi, cluster: Cluster, outside: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMDOCTOR_PROMETHEUS_TOKEN", "s3cret")
    monkeypatch.setenv("LLMDOCTOR_PROMETHEUS_TENANT", "team-b")
    run(cluster, WantedPrometheus(where=f"{outside.url}/prom"))

    assert (headers_of(outside)["authorization"], headers_of(outside)["x-scope-orgid"]) == ("Bearer s3cret", "team-b")


def test_the_tenant_is_told_through_the_api_server_too(
    world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMDOCTOR_PROMETHEUS_TENANT", "team-b")
    run(cluster)

    sent = [headers for _, path, _, headers in world.requests if path.startswith(PROXY)]
    assert sent
    assert all(headers["x-scope-orgid"] == ["team-b"] for headers in sent)


def test_a_password_in_the_url_is_sent_and_never_shown(world: FakeApi, cluster: Cluster, outside: FakeApi) -> None:
    url = outside.url.replace("://", "://doctor:s3cret@")
    found = run(cluster, WantedPrometheus(where=f"{url}/prom"))

    assert headers_of(outside)["authorization"] == "Basic " + base64.b64encode(b"doctor:s3cret").decode()
    assert found.prometheus
    assert "s3cret" not in str(found)


def test_a_url_that_is_down_is_said(world: FakeApi, cluster: Cluster) -> None:
    (row,) = said(run(cluster, WantedPrometheus(where="http://127.0.0.1:9")))
    assert row == Missing(source="prometheus", ref="http://127.0.0.1:9", reason="connection refused")


def test_tls_with_an_own_authority_and_a_client_certificate(
    world: FakeApi, cluster: Cluster, outside: FakeApi, pki: Pki, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server(), pki.folder / "server.key")
    context.load_verify_locations(pki.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    outside.server.socket = context.wrap_socket(outside.server.socket, server_side=True, do_handshake_on_connect=False)
    url = f"https://127.0.0.1:{outside.server.server_port}/prom"
    tls = {"ca_file": str(pki.ca), "cert_file": str(pki.client()), "key_file": str(pki.folder / "client.key")}
    (tmp_path / "http.yml").write_text(yaml.safe_dump({"tls_config": tls}))
    wanted = WantedPrometheus(where=url, config=str(tmp_path / "http.yml"))

    assert run(cluster, wanted).prometheus
    (row,) = said(run(cluster, WantedPrometheus(where=url)))
    assert "its certificate is not trusted" in row.reason


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("[1]", "no mapping"),
        ("{", "not YAML"),
        ("oauth2: {client_id: x}", "oauth2 is not supported"),
        ("bearer_token_file: gone", "bearer_token_file: gone: No such file"),
        ("tls_config: {cert: x}", "a certificate without its key"),
        ("basic_auth: 7", "basic_auth. is no mapping"),
        ('bearer_token: "a\\nb"', "characters that no token has"),
        ('http_headers: {X: {values: ["a\\r\\nb"]}}', "characters that no header has"),
    ],
)
def test_a_file_that_is_wrong_is_wrong_usage(config: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "http.yml"
    path.write_text(config)
    with pytest.raises(UsageError, match=re.escape(expected)):
        options.endpoint(WantedPrometheus(where="http://prometheus:9090", config=str(path)))


def test_a_file_that_is_wrong_is_said_before_anything_is_read(world: FakeApi, cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="No such file"):
        run(cluster, WantedPrometheus(where="http://prometheus:9090", config="/no/such/file"))
    assert world.requests == []


def test_what_is_no_address_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="not auto, off or a URL"):
        WantedPrometheus(where="prometheus:9090")


# --- an audit ---------------------------------------------------------------------------------------------------------


def test_an_audit_asks_about_one_ready_pod_of_each_workload(world: FakeApi, cluster: Cluster) -> None:
    engine, owner = answer(world, Engine()), obj("StatefulSet", "llama", "apps/v1")
    running = {"name": "vllm", "ready": True, "state": {"running": {}}}
    waiting = {"name": "vllm", "ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    world.objects += [
        pod("twin-a", owner, status={"containerStatuses": [running]}),
        pod("twin-b", owner, status={"containerStatuses": [running]}),
        pod("broken", status={"containerStatuses": [waiting]}),
    ]

    found = fleet.gather(cluster, "", Query(prometheus=AUTO))

    assert [row for row in found.missing if row.source == "prometheus"] == []
    assert {entry["source"] for entry in found.prometheus} == {NAME}
    (probe, *_) = [asked["query"] for asked in engine.asked]
    # replicas stand behind the one that was chosen, as in a diagnosis
    assert "llama-0" in probe
    assert "twin-a" in probe
    assert "broken" not in probe
    assert len(engine.asked) <= 25


def test_an_audit_without_prometheus_says_so(world: FakeApi, cluster: Cluster) -> None:
    world.objects = [item for item in world.objects if item["kind"] != "Service"]

    found = fleet.gather(cluster, "", Query(prometheus=AUTO))

    assert [row.reason for row in found.missing if row.source == "prometheus"] == ["none found"]
    assert [row for row in fleet.gather(cluster, "", Query()).missing if row.source == "prometheus"] == []

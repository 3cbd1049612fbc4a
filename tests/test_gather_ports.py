"""The engines' own ports in a gathering: what is asked of which engine, what is kept, and what is said when it fails."""
# ruff: noqa: F811

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather import scrape
from kubectl_llmdoctor.gather.cluster import Cluster, Query, gather
from kubectl_llmdoctor.gather.files import load, save
from kubectl_llmdoctor.gather.wanted import WantedPorts, WantedPrometheus
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.snapshot import Snapshot
from tests.test_gather_cluster import pod
from tests.test_gather_prometheus import Engine, answer, service
from tests.test_gather_server import (  # noqa: F401
    FakeApi,
    Json,
    api,
    cluster,
    kubeconfig,
    raw,
    seconds_of,
    silence,
    status,
)

ROOT = "/api/v1/namespaces/serving/pods/llama-0:8000/proxy"
READY = {"name": "vllm", "ready": True, "state": {"running": {}}}
TEXT = b'vllm:num_requests_waiting{model_name="llama"} 7.0\n'
MODELS = b'{"object":"list","data":[{"id":"llama"}]}'


def world_of(api: FakeApi, image: str, *, status: Json = READY, **container: Any) -> FakeApi:
    one = pod("llama-0", status={"containerStatuses": [status], "podIP": "10.0.0.7"})
    one["spec"]["containers"][0] |= {"image": image, **container}
    api.objects = [one]
    return api


@pytest.fixture
def world(api: FakeApi) -> FakeApi:
    for path, body in (("health", b""), ("version", b'{"version":"0.9.1"}'), ("v1/models", MODELS), ("metrics", TEXT)):
        api.faults[f"{ROOT}/{path}"] = [raw(200, body)]
    return world_of(api, "vllm/vllm-openai:v0.9.1")


def run(cluster: Cluster, **wanted: Any) -> Snapshot:
    return gather(cluster, Query(names=("llama-0",), ports=WantedPorts(**wanted)))


def asked(api: FakeApi) -> list[str]:
    return sorted(f"{method} {path.partition('/proxy')[2]}" for method, path, _, _ in api.requests if "/proxy/" in path)


def said(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    sources = ("metrics", "port", "smoke")
    return [(row.source, row.ref, row.reason) for row in snapshot.missing if row.source in sources]


def test_a_ready_engine_is_asked_how_it_is(world: FakeApi, cluster: Cluster, tmp_path: Path) -> None:
    found = run(cluster)

    assert asked(world) == ["GET /health", "GET /metrics", "GET /v1/models", "GET /version"]
    assert [(one.path, one.status, one.text) for one in found.answers] == [
        ("/health", 200, ""),
        ("/v1/models", 200, MODELS.decode()),
        ("/version", 200, '{"version":"0.9.1"}'),
    ]
    (metrics,) = found.metrics
    assert (metrics.namespace, metrics.pod, metrics.container, metrics.text) == (
        "serving",
        "llama-0",
        "vllm",
        TEXT.decode(),
    )
    assert said(found) == []
    save(found, str(tmp_path / "saved.json"))
    assert load(str(tmp_path / "saved.json")).answers == found.answers


@pytest.mark.parametrize(
    ("image", "container", "port", "expected"),
    [
        ("lmsysorg/sglang:v0.5.5", {"command": ["python3", "-m", "sglang.launch_server"]}, 30000, "/v1/models"),
        ("ghcr.io/huggingface/text-generation-inference:3.3.4", {}, 80, "/info"),
        ("ollama/ollama:0.12.0", {}, 11434, "/api/version"),
        ("ghcr.io/ggml-org/llama.cpp:server", {}, 8080, "/health"),
        ("vllm/vllm-openai:v0.9.1", {"args": ["--port", "9000"]}, 9000, "/health"),
    ],
)
def test_where_health_costs_a_token_another_path_is_asked(
    image: str, container: Json, port: int, expected: str, api: FakeApi, cluster: Cluster
) -> None:
    world_of(api, image, **container)
    found = run(cluster)

    assert {one.port for one in found.answers} == {port}
    assert f"GET {expected}" in asked(api)
    if expected != "/health":
        assert not [line for line in asked(api) if "health" in line or "POST" in line or "generate" in line]


@pytest.mark.parametrize(
    "state",
    [
        {"name": "vllm", "ready": False, "state": {"running": {}}},
        {"name": "vllm", "ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
    ],
)
def test_what_is_not_ready_is_not_asked(state: Json, api: FakeApi, cluster: Cluster) -> None:
    world_of(api, "vllm/vllm-openai:v0.9.1", status=state)
    found = run(cluster)

    assert asked(api) == []
    assert said(found) == []


@pytest.mark.impatient
def test_a_port_that_does_not_answer_is_an_answer(world: FakeApi, cluster: Cluster) -> None:
    for path in ("health", "version", "v1/models", "metrics"):
        world.faults[f"{ROOT}/{path}"] = [silence]
    found: list[Snapshot] = []

    assert seconds_of(lambda: found.append(run(cluster))) < 6
    (one,) = found[0].answers
    assert (one.path, one.status, one.error) == ("/health", None, "timed out after 2 s")
    assert one.seconds >= 1.9
    assert said(found[0]) == [("metrics", "serving/llama-0:8000", "timed out after 2 s")]


def test_a_refused_connection_is_the_api_servers_word_and_no_status(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{ROOT}/health"] = [status(503, "error trying to reach service: dial tcp: connection refused")]
    (one,) = run(cluster).answers

    assert one.status is None
    assert "connection refused" in one.error


def test_an_engine_that_is_dead_says_so_with_its_status(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{ROOT}/health"] = [raw(503, b"")]
    world.faults[f"{ROOT}/v1/models"] = [raw(401, b'{"error":"Unauthorized"}')]
    found = run(cluster)

    assert {one.path: one.status for one in found.answers} == {"/health": 503, "/version": 200, "/v1/models": 401}
    (target,) = diagnose(found, installed()).targets
    assert [(f.id, f.role) for f in target.findings if f.role in ("cause", "symptom")] == [("engine-dead", "symptom")]
    assert target.verdict == "undetermined"


def test_no_right_to_the_proxy_is_one_line(world: FakeApi, cluster: Cluster) -> None:
    forbidden = status(403, 'pods "llama-0" is forbidden: cannot get resource "pods/proxy"')
    for path in ("health", "version", "v1/models", "metrics"):
        world.faults[f"{ROOT}/{path}"] = [forbidden]
    found = run(cluster)

    assert [(source, ref) for source, ref, _ in said(found)] == [("metrics", "serving")]
    assert not found.answers
    assert not found.metrics


def test_secrets_in_what_a_server_says_are_masked(api: FakeApi, cluster: Cluster) -> None:
    world_of(api, "lmsysorg/sglang:v0.5.5", command=["python3", "-m", "sglang.launch_server"])
    root = ROOT.replace("8000", "30000")
    key = "sk-proj-abcdefghijklmnop0123456789"
    arguments = {"model_path": "Qwen/Qwen3-8B", "api_key": key, "max_running_requests": 48}
    api.faults[f"{root}/server_info"] = [raw(200, json.dumps(arguments).encode())]
    api.faults[f"{root}/metrics"] = [raw(200, f'x{{api_key="{key}"}} 1\n'.encode())]
    found = run(cluster)

    (told,) = (one for one in found.answers if one.path == "/server_info")
    assert json.loads(told.text)["max_running_requests"] == 48
    assert key not in str(found)


def test_a_page_is_no_metrics(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{ROOT}/metrics"] = [raw(200, b"<html>")]
    assert said(run(cluster)) == [("metrics", "serving/llama-0:8000", "/metrics answers a web page, no metrics")]


def test_two_samples(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{ROOT}/metrics"] = [raw(200, b"a 1\n"), raw(200, b"a 2\n")]
    found: list[Snapshot] = []
    seconds = seconds_of(lambda: found.append(run(cluster, sample=1.0)))
    first, second = found[0].metrics

    assert (first.text, second.text) == ("a 1\n", "a 2\n")
    assert first.taken_at < second.taken_at
    assert 1 <= seconds < 6


def test_what_prometheus_knows_is_not_read_from_the_port(world: FakeApi, cluster: Cluster) -> None:
    world.objects.append(service())
    answer(world, Engine())
    query = Query(names=("llama-0",), ports=WantedPorts(), prometheus=WantedPrometheus())
    assert gather(cluster, query).metrics == ()

    answer(world, Engine(empty=True))
    assert len(gather(cluster, query).metrics) == 1


def test_of_many_pods_the_first_are_asked(world: FakeApi, cluster: Cluster) -> None:
    for number in range(1, 20):
        one = pod(f"llama-{number}", status={"containerStatuses": [READY]})
        world.objects.append(one)
    found = gather(cluster, Query(ports=WantedPorts()))

    assert len({one.pod for one in found.answers}) == scrape.PODS


def test_smoke_asks_for_one_token_and_keeps_none(world: FakeApi, cluster: Cluster) -> None:
    bodies: list[Any] = []

    def complete(handler: Any) -> None:
        bodies.append(handler.path)
        handler.send(200, b'{"choices":[{"text":"pong"}]}')

    world.faults[f"{ROOT}/v1/completions"] = [complete]
    found = run(cluster, smoke=True)

    (one,) = (one for one in found.answers if one.method == "POST")
    assert (one.path, one.status, one.text) == ("/v1/completions", 200, "")
    assert len(bodies) == 1
    assert "pong" not in str(found)


def test_a_generation_that_fails_is_sent_once(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{ROOT}/v1/completions"] = [raw(500, b'{"error":"EngineDeadError"}')]
    found = run(cluster, smoke=True)

    (one,) = (one for one in found.answers if one.method == "POST")
    assert one.status == 500
    assert "EngineDeadError" in one.error
    assert asked(world).count("POST /v1/completions") == 1

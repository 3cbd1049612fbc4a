"""One gathering against a scripted API server: what is asked for, what is kept, and what is said about the rest."""
# ruff: noqa: F811

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.errors import AccessError, UsageError
from kubectl_llmdoctor.gather import capacity, collector, events, walk
from kubectl_llmdoctor.gather.access import RULES
from kubectl_llmdoctor.gather.cluster import Cluster, Query, access, gather
from kubectl_llmdoctor.snapshot import Missing, ReadList, Snapshot, TargetRef, to_json
from tests.test_gather_server import (  # noqa: F401
    FakeApi,
    Json,
    api,
    cluster,
    drip,
    kubeconfig,
    normal,
    raw,
    reset_after,
    silence,
    status,
)

NS = "/api/v1/namespaces/serving"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123456789"


def obj(
    kind: str, name: str, api_version: str = "v1", *, ns: str = "serving", owner: Json | None = None, **more: Any
) -> Json:
    meta: Json = {"name": name, "uid": f"{kind}-{name}", "managedFields": [{"manager": "x"}], **more.pop("meta", {})}
    if ns:
        meta["namespace"] = ns
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
            | {"uid": owner["metadata"]["uid"], "controller": True}
        ]
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **more}


CRASHED = {
    "name": "vllm",
    "restartCount": 6,
    "ready": False,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1}},
}


def pod(name: str, owner: Json | None = None, **more: Any) -> Json:
    spec = {
        "nodeName": "gpu-1",
        "containers": [
            {
                "name": "vllm",
                "image": "vllm/vllm-openai:v0.9.1",
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "env": [{"name": "HF_TOKEN", "value": TOKEN}],
            }
        ],
    }
    labels = {"app": "llama", **more.pop("labels", {})}
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"token": TOKEN})}
    return obj(
        "Pod",
        name,
        owner=owner,
        meta={"labels": labels, "annotations": annotations},
        spec=spec | more.pop("spec", {}),
        status={"phase": "Running", "containerStatuses": [CRASHED]} | more.pop("status", {}),
        **more,
    )


SELECTOR = {"selector": {"matchLabels": {"app": "llama"}}}


def deployment_world() -> list[Json]:
    isvc = obj("InferenceService", "chat", "serving.kserve.io/v1beta1")
    deployment = obj("Deployment", "llama", "apps/v1", owner=isvc, spec=SELECTOR)
    old = obj("ReplicaSet", "llama-1", "apps/v1", owner=deployment, meta={"labels": {"app": "llama"}}, spec=SELECTOR)
    new = obj("ReplicaSet", "llama-2", "apps/v1", owner=deployment, meta={"labels": {"app": "llama"}}, spec=SELECTOR)
    stray = obj("ReplicaSet", "stray", "apps/v1", meta={"labels": {"app": "llama"}}, spec=SELECTOR)
    volumes = [
        {"name": "m", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "c", "configMap": {"name": "vllm-config"}},
        {"name": "r", "configMap": {"name": "kube-root-ca.crt"}},
        {"name": "s", "secret": {"secretName": "hf"}},
    ]
    spec = {"volumes": volumes, "priorityClassName": "high", "runtimeClassName": "nvidia"}
    secret_fields: list[Json] = [{"fieldsV1": {"f:data": {".": {}, "f:HF_TOKEN": {}}, "f:type": {}}}]
    return [
        isvc,
        deployment,
        old,
        new,
        stray,
        pod("llama-2-a", new, spec=spec),
        pod("llama-2-b", new),
        pod(
            "llama-1-a", old, status={"containerStatuses": [{"name": "vllm", "ready": True, "state": {"running": {}}}]}
        ),
        obj("Node", "gpu-1", ns="", status={"images": [{"names": ["x"]}], "capacity": {"nvidia.com/gpu": "8"}}),
        obj("PersistentVolumeClaim", "models", spec={"volumeName": "pv-1", "storageClassName": "fast"}),
        obj("PersistentVolume", "pv-1", ns=""),
        obj("StorageClass", "fast", "storage.k8s.io/v1", ns=""),
        obj("ConfigMap", "vllm-config", data={"config.yaml": f"token: {TOKEN}\n"}, binaryData={"x": "AAAA"}),
        obj("ConfigMap", "kube-root-ca.crt"),
        obj("Secret", "hf", meta={"managedFields": secret_fields}, data={"HF_TOKEN": "c2VjcmV0"}),
        obj("PriorityClass", "high", "scheduling.k8s.io/v1", ns=""),
        obj("Namespace", "serving", ns=""),
        obj("Service", "llama", spec={"selector": {"app": "llama"}}),
        obj("EndpointSlice", "llama-x", "discovery.k8s.io/v1", endpoints=None),
        obj("PodDisruptionBudget", "llama", "policy/v1"),
        event("mine", "Pod", "llama-2-a"),
        event("of-claim", "PersistentVolumeClaim", "models"),
        event("of-gone-pod", "Pod", "llama-2-gone"),
        event("foreign", "Pod", "other-0"),
        event("of-node", "Node", "gpu-1", ns="default"),
    ]


def event(name: str, kind: str, about: str, *, ns: str = "serving") -> Json:
    involved = {"kind": kind, "name": about} | ({} if kind == "Node" else {"namespace": ns})
    return obj("Event", name, ns=ns, involvedObject=involved, message="m", reason="r")


def names(snapshot: Snapshot, kind: str) -> list[str]:
    return [o["metadata"]["name"] for o in snapshot.objects if o["kind"] == kind]


def run(cluster: Cluster, *targets: str, **more: Any) -> Snapshot:
    return gather(cluster, Query(names=targets, **more))


def refused(cluster: Cluster, *targets: str, kind: type[Exception] = AccessError, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        run(cluster, *targets, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def world(api: FakeApi) -> FakeApi:
    api.objects = deployment_world()
    api.logs["serving", "llama-2-a", "vllm", True] = f"loading\nHF_TOKEN={TOKEN}\nValueError\n".encode()
    api.logs["serving", "llama-2-b", "vllm", True] = b"b\n"
    api.logs["serving", "llama-1-a", "vllm", False] = b"a\n"
    return api


# --- a pod and all around it ------------------------------------------------------------------------------------------


def test_a_crashed_pod_and_everything_around_it(world: FakeApi, cluster: Cluster) -> None:
    found = run(cluster, "llama-2-a")
    assert found.missing == ()
    assert found.target == TargetRef(kind="Pod", name="llama-2-a", namespace="serving", api_version="v1")
    assert found.taken_at is not None
    assert len(found.taken_at) == len("2026-11-20T10:00:00Z")
    assert [f"{o['kind']}/{o['metadata']['name']}" for o in found.objects] == [
        "ConfigMap/vllm-config",
        "Deployment/llama",
        "EndpointSlice/llama-x",
        "Event/of-node",
        "Event/mine",
        "Event/of-claim",
        "Event/of-gone-pod",
        "InferenceService/chat",
        "Namespace/serving",
        "Node/gpu-1",
        "PersistentVolume/pv-1",
        "PersistentVolumeClaim/models",
        "Pod/llama-1-a",
        "Pod/llama-2-a",
        "Pod/llama-2-b",
        "PodDisruptionBudget/llama",
        "PriorityClass/high",
        "ReplicaSet/llama-1",
        "ReplicaSet/llama-2",
        "Secret/hf",
        "Service/llama",
        "StorageClass/fast",
    ]
    assert ReadList(kind="Service", namespace="serving") in found.read
    assert ReadList(kind="RuntimeClass") in found.read
    assert cluster.requests == len(world.requests)


def test_nothing_secret_and_nothing_superfluous_is_kept(world: FakeApi, cluster: Cluster) -> None:
    text = to_json(run(cluster, "llama-2-a")).decode()
    assert TOKEN not in text
    assert "c2VjcmV0" not in text
    assert "managedFields" not in text
    assert "last-applied" not in text
    assert '"endpoints"' not in text, "null is the same as absent"
    assert '"images"' not in text
    assert '"binaryData":{"x":""}' in text


def test_of_a_secret_only_the_metadata_is_asked_for(world: FakeApi, cluster: Cluster) -> None:
    found = run(cluster, "llama-2-a")
    asked = [headers["accept"] for _, path, _, headers in world.requests if "/secrets" in path]
    assert asked == [["application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"]]
    (secret,) = [o for o in found.objects if o["kind"] == "Secret"]
    assert secret["data"] == {"HF_TOKEN": "<masked:unread>"}


def test_a_server_that_sends_a_secret_nevertheless_does_not_get_it_kept(world: FakeApi, cluster: Cluster) -> None:
    whole = {"kind": "Secret", "metadata": {"name": "hf", "namespace": "serving"}, "data": {"HF_TOKEN": "c2VjcmV0"}}
    world.faults[f"{NS}/secrets/hf"] = [raw(200, json.dumps(whole).encode())]
    (secret,) = [o for o in run(cluster, "llama-2-a").objects if o["kind"] == "Secret"]
    assert "data" not in secret


def test_between_two_starts_the_log_is_asked_for_once(world: FakeApi, cluster: Cluster) -> None:
    (log,) = run(cluster, "llama-2-a").logs
    assert (log.pod, log.container, log.previous, log.restart) == ("llama-2-a", "vllm", True, 6)
    assert log.text == "loading\nHF_TOKEN=<masked:hf-token>\nValueError\n"
    assert len(world.asked(f"{NS}/pods/llama-2-a/log")) == 1


RUNNING = {"ready": True, "restartCount": 0, "state": {"running": {}}}
READY = {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "vllm", **RUNNING}]}


def asking(name: str, url: str) -> Json:
    """A pod that is told to ask there."""
    container = {"name": "app", "image": "app:1", "env": [{"name": "OPENAI_BASE_URL", "value": url}]}
    status = {"phase": "Running", "containerStatuses": [{"name": "app", **RUNNING}]}
    return obj("Pod", name, spec={"containers": [container]}, status=status)


def asked_for(world: FakeApi) -> set[str]:
    """The pods whose logs were read."""
    return {path.split("/")[-2] for _, path, _, _ in world.requests if path.endswith("/log")}


def test_of_who_asks_a_ready_pod_the_log_is_read(world: FakeApi, cluster: Cluster) -> None:
    world.objects += [
        obj("Service", "model", spec={"selector": {"app": "model"}, "ports": [{"port": 80, "targetPort": 8000}]}),
        pod("model-0", labels={"app": "model"}, status=READY),
        *(asking(f"client-{n}", "http://model.serving.svc/v1") for n in range(6)),
        asking("other", "http://llama/v1"),
    ]
    world.logs |= {("serving", f"client-{n}", "app", False): b"404\n" for n in range(6)}
    found = run(cluster, "model-0")

    assert asked_for(world) == {"model-0", "client-0", "client-1", "client-2", "client-3"}
    assert [(log.pod, log.text) for log in found.logs][:2] == [("client-0", "404\n"), ("client-1", "404\n")]


def test_of_who_asks_a_front_end_of_a_ready_pod_the_log_is_read(world: FakeApi, cluster: Cluster) -> None:
    front = asking("front", "http://model/v1")
    front["metadata"]["labels"] = {"app": "front"}
    world.objects += [
        obj("Service", "model", spec={"selector": {"app": "model"}, "ports": [{"port": 80, "targetPort": 8000}]}),
        obj("Service", "front", spec={"selector": {"app": "front"}, "ports": [{"port": 80}]}),
        pod("model-0", labels={"app": "model"}, status=READY),
        front,
        asking("a-client", "http://front/v1"),
        asking("other", "http://llama/v1"),
    ]
    run(cluster, "model-0")

    assert asked_for(world) == {"model-0", "front", "a-client"}


def test_of_who_asks_a_pod_that_fails_no_log_is_read(world: FakeApi, cluster: Cluster) -> None:
    service = obj("Service", "model", spec={"selector": {"app": "llama"}, "ports": [{"port": 80}]})
    world.objects += [service, asking("client", "http://model/v1")]
    run(cluster, "llama-2-a")

    assert asked_for(world) == {"llama-2-a"}


@pytest.mark.parametrize("host", ["model.models.svc.cluster.local", "model.models"])
def test_of_a_client_the_services_that_it_asks_are_followed_into_other_namespaces(
    world: FakeApi, cluster: Cluster, host: str
) -> None:
    server = obj(
        "Pod", "model-0", ns="models", spec={"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.9.1"}]}
    )
    server["metadata"]["labels"] = {"app": "model"}
    world.objects += [
        asking("client", f"http://{host}:8000/v1"),
        obj("Service", "model", ns="models", spec={"selector": {"app": "model"}, "ports": [{"port": 8000}]}),
        server,
        obj("Pod", "other-0", ns="models", spec={"containers": [{"name": "x", "image": "x"}]}),
        obj("NetworkPolicy", "closed", "networking.k8s.io/v1", ns="models"),
    ]
    found = run(cluster, "client")

    kept = {(o["kind"], o["metadata"]["name"]) for o in found.objects if o["metadata"].get("namespace") == "models"}
    assert kept == {("Service", "model"), ("Pod", "model-0"), ("NetworkPolicy", "closed")}


def test_of_a_client_no_service_is_asked_for_that_is_a_name_of_the_world(world: FakeApi, cluster: Cluster) -> None:
    world.objects.append(asking("client", "https://api.example.com/v1"))
    run(cluster, "client")

    assert not [path for _, path, _, _ in world.requests if path.startswith("/api/v1/namespaces/example")]


@pytest.mark.parametrize(("pod", "followed"), [("llama-2-a", True), ("llama-1-a", False)])
def test_of_servers_those_that_fail_are_followed_to_the_services_that_they_ask(
    world: FakeApi, cluster: Cluster, pod: str, followed: bool
) -> None:
    one = next(item for item in world.objects if (item["kind"], item["metadata"]["name"]) == ("Pod", pod))
    one["spec"]["containers"][0].setdefault("env", []).append({"name": "STORE", "value": "http://store.other.svc:80"})
    run(cluster, pod)

    assert any("/namespaces/other/services/store" in path for _, path, _, _ in world.requests) is followed


@pytest.mark.parametrize(
    ("line", "followed"),
    [
        ("ConnectionError: Failed to connect to store.other.svc:6379", {"store"}),
        (
            "dial tcp: lookup store-1.store.other.svc on 10.0.0.2:53: no such host; store-1.store.other.svc:6379",
            {"store"},
        ),
        ("listening beside store.other.svc:6379", set()),
    ],
)
def test_of_pods_that_fail_the_services_are_followed_that_their_logs_say_they_asked_in_vain(
    world: FakeApi, cluster: Cluster, line: str, followed: set[str]
) -> None:
    world.logs["serving", "llama-2-a", "vllm", True] = f"loading\n{line}\n".encode()
    run(cluster, "llama-2-a")

    asked = {path.rpartition("/")[2] for _, path, _, _ in world.requests if "/namespaces/other/services/" in path}
    assert asked == followed


def test_of_a_router_the_servers_are_read_that_its_labels_select(world: FakeApi, cluster: Cluster) -> None:
    router = asking("router", "http://unused.example.com/v1")
    router["spec"]["containers"][0]["args"] = ["--service-discovery", "--prefill-selector", "app=pre", "tier==gpu"]
    server = asking("pre-0", "http://unused.example.com/v1")
    server["metadata"]["labels"] = {"app": "pre", "tier": "gpu"}
    world.objects += [router, server]
    run(cluster, "router")

    assert "pre-0" in asked_for(world)


def test_of_a_client_whose_server_is_scaled_to_none_that_is_read(world: FakeApi, cluster: Cluster) -> None:
    world.objects += [
        asking("client", "http://model/v1"),
        obj("Service", "model", spec={"selector": {"app": "model"}, "ports": [{"port": 80}]}),
        obj("Deployment", "model", "apps/v1", spec={"replicas": 0, "selector": {"matchLabels": {"app": "model"}}}),
        obj("Deployment", "busy", "apps/v1", spec={"replicas": 2, "selector": {"matchLabels": {"app": "busy"}}}),
    ]
    found = run(cluster, "client")

    assert names(found, "Deployment") == ["model"]


def test_of_a_client_of_many_services_it_is_said_that_not_all_are_followed(world: FakeApi, cluster: Cluster) -> None:
    world.objects.append(asking("client", " ".join(f"http://model-{n}.models.svc:8000/v1" for n in range(8))))
    found = run(cluster, "client")

    row = Missing(source="services", ref="asked by pods", reason="only 6 of 8 were followed to their pods")
    assert row in found.missing
    assert sum("/models/services/" in path for _, path, _, _ in world.requests) == 6


def test_of_a_client_an_absent_service_is_noted_as_absent(world: FakeApi, cluster: Cluster) -> None:
    world.objects.append(asking("client", "http://model.models.svc:8000/v1"))
    found = run(cluster, "client")

    assert ReadList(kind="Service", namespace="models", fields="metadata.name=model") in found.read


def test_of_an_endpoint_picker_the_log_is_read(world: FakeApi, cluster: Cluster) -> None:
    pool = {"endpointPickerRef": {"name": "model-epp"}, "selector": {"matchLabels": {"app": "modell"}}}
    world.objects += [
        obj("InferencePool", "model", "inference.networking.k8s.io/v1", spec=pool),
        pod("model-0", labels={"app": "model"}, status=READY),
        asking("model-epp-7d8f9-k4m2x", "http://127.0.0.1"),
    ]
    run(cluster, "model-0")

    assert asked_for(world) == {"model-0", "model-epp-7d8f9-k4m2x"}


def test_where_the_previous_log_is_gone_the_current_one_serves(world: FakeApi, cluster: Cluster) -> None:
    world.logs = {("serving", "llama-2-a", "vllm", False): b"hello\n"}
    found = run(cluster, "llama-2-a")
    assert [(log.previous, log.text) for log in found.logs] == [(False, "hello\n")]
    assert found.missing == ()


def test_a_long_log_is_cut_in_the_middle(world: FakeApi, cluster: Cluster) -> None:
    world.logs["serving", "llama-2-a", "vllm", True] = b"a line\n" * 10_000
    (log,) = run(cluster, "llama-2-a", log_cap_bytes=7000).logs
    assert log.cut is not None
    assert len(log.text) + log.cut.bytes == 70_000


def test_every_gathering_gives_the_same_bytes(world: FakeApi, cluster: Cluster) -> None:
    def once() -> bytes:
        return to_json(run(cluster, "llama-2-a")).split(b'"target"')[1]

    first = once()
    world.objects.reverse()
    assert {once() for _ in range(5)} == {first}


def test_a_namespace_with_more_events_than_a_page_is_asked_per_object(
    world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.objects = [event(f"a{number}", "Pod", "noise") for number in range(30)] + world.objects
    world.page_size = 20
    found = run(cluster, "llama-2-a")
    assert names(found, "Event") == ["of-node", "mine", "of-claim"]
    assert {"fieldSelector": "involvedObject.name=llama-2-a", "limit": "500"} in world.asked(f"{NS}/events")
    monkeypatch.setattr(events, "_MAX_OBJECTS", 1)
    found = run(cluster, "llama-2-a")
    assert names(found, "Event") == ["of-node", "mine"]
    assert any(row.source == "events" and "1 of" in row.reason for row in found.missing)


def test_what_former_replica_sets_of_its_deployment_did_is_kept(world: FakeApi, cluster: Cluster) -> None:
    world.objects += [event("of-former", "ReplicaSet", "llama-0"), event("of-another", "ReplicaSet", "other-0")]
    found = names(run(cluster, "llama-2-a"), "Event")
    assert "of-former" in found
    assert "of-another" not in found


def test_progress_is_told(world: FakeApi, cluster: Cluster) -> None:
    said: list[str] = []
    gather(cluster, Query(names=("llama-2-a",)), progress=said.append)
    assert said == ["reading llama-2-a", "reading logs of 1 container of llama-2-a"]


# --- sources that fail ------------------------------------------------------------------------------------------------

_LISTS = {
    "services": f"{NS}/services",
    "events": f"{NS}/events",
    "poddisruptionbudgets.policy": "/apis/policy/v1/namespaces/serving/poddisruptionbudgets",
}


@pytest.mark.parametrize("source", _LISTS)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(403, "user cannot list"), "forbidden: user cannot list"),
        (status(500, "boom"), "server error 500: boom"),
        (status(429, "slow"), "too many requests (429): slow"),
        (silence, "timed out after 2 s"),
        (drip, "timed out after 2 s"),
        (reset_after(b'{"items": ['), "connection broken: "),
        (raw(200, b'{"items": [{"metadata"'), "the answer is not whole: "),
        (raw(200, b'{"items": 7}'), "the answer is not whole: "),
        (raw(404, b"404 page not found"), "not found: the server does not know this kind of object"),
    ],
)
@pytest.mark.impatient
def test_a_failing_list_is_missing_and_the_rest_is_there(
    world: FakeApi, cluster: Cluster, source: str, fault: Any, reason: str
) -> None:
    world.faults[_LISTS[source]] = [fault]
    began = time.monotonic()
    found = run(cluster, "llama-2-a")
    assert time.monotonic() - began < 6
    (row,) = found.missing
    assert (row.source, row.ref) == (source, "serving")
    assert row.reason.startswith(reason)
    assert "Pod" not in {r.kind for r in found.read if r.kind == source}
    assert len(found.logs) == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/nodes/gpu-1", Missing(source="nodes", ref="gpu-1", reason="forbidden: no")),
        ("/api/v1/pods", Missing(source="pods", ref="spec.nodeName=gpu-1", reason="forbidden: no")),
        (
            f"{NS}/configmaps/vllm-config",
            Missing(source="configmaps", ref="serving/vllm-config", reason="forbidden: no"),
        ),
        (f"{NS}/secrets/hf", Missing(source="secrets", ref="serving/hf", reason="forbidden: no")),
        (f"{NS}/pods/llama-2-a/log", Missing(source="logs", ref="serving/llama-2-a", reason="forbidden: no")),
        (
            "/apis/apps/v1/namespaces/serving/replicasets/llama-2",
            Missing(source="replicasets.apps", ref="serving/llama-2", reason="forbidden: no"),
        ),
    ],
)
def test_a_forbidden_object_is_missing(world: FakeApi, cluster: Cluster, path: str, expected: Missing) -> None:
    world.faults[path] = [status(403)]
    assert expected in run(cluster, "llama-2-a").missing


def test_routes_to_the_namespace_are_read_wherever_they_stand(world: FakeApi, cluster: Cluster) -> None:
    def route(name: str, ns: str, **backend: str) -> Json:
        spec = {"rules": [{"backendRefs": [{"name": "llama", "port": 80, **backend}]}]}
        return obj("HTTPRoute", name, "gateway.networking.k8s.io/v1", ns=ns, spec=spec)

    lost = route("lost", "edge")
    lost["status"] = {"parents": [{"conditions": [{"type": "ResolvedRefs", "status": "False"}]}]}
    world.objects += [route("own", "serving"), route("edge", "edge", namespace="serving"), route("other", "edge"), lost]

    assert named(run(cluster, "llama-2-a"), "HTTPRoute") == {"own", "edge", "lost"}

    world.faults["/apis/gateway.networking.k8s.io/v1/httproutes"] = [status(403)]
    found = run(cluster, "llama-2-a")
    assert named(found, "HTTPRoute") == {"own"}
    (missing,) = found.missing
    assert (missing.ref, missing.reason) == ("other namespaces", "forbidden: no")
    assert "HTTPRoute" in {row.kind for row in found.read if row.namespace == "serving"}


def test_the_gateways_of_the_routes_that_lead_here_are_read(world: FakeApi, cluster: Cluster) -> None:
    def route(name: str, *parents: Json, namespace: str) -> Json:
        spec = {"parentRefs": [*parents], "rules": [{"backendRefs": [{"name": "llama", "namespace": namespace}]}]}
        return obj("HTTPRoute", name, "gateway.networking.k8s.io/v1", ns="edge", spec=spec)

    mesh = {"group": "", "kind": "Service", "name": "llama"}
    ours = route("ours", {"name": "own"}, {"name": "front", "namespace": "infra"}, mesh, namespace="serving")
    world.objects += [ours, route("other", {"name": "foreign"}, namespace="edge")]
    run(cluster, "llama-2-a")

    asked = {path.partition("/namespaces/")[2] for _, path, _, _ in world.requests if "/gateways/" in path}
    assert asked == {"edge/gateways/own", "infra/gateways/front"}


def test_the_routes_of_the_cluster_are_asked_for_once(world: FakeApi, cluster: Cluster) -> None:
    world.objects.append(obj("HTTPRoute", "edge", "gateway.networking.k8s.io/v1", ns="edge"))
    other = pod("other-0")
    other["metadata"]["namespace"] = "second"
    world.objects.append(other)
    gather(cluster, Query(all_namespaces=True))

    asked = [path for _, path, _, _ in world.requests if path.endswith("/httproutes")]
    assert asked == ["/apis/gateway.networking.k8s.io/v1/httproutes"]


def named(snapshot: Snapshot, kind: str) -> set[str]:
    return {item["metadata"]["name"] for item in snapshot.objects if item["kind"] == kind}


def test_a_user_who_may_read_pods_only_gets_a_snapshot(world: FakeApi, cluster: Cluster) -> None:
    everything = run(cluster, "llama-2-a")
    for path in {path for _, path, _, _ in world.requests} - {f"{NS}/pods/llama-2-a"}:
        world.faults[path] = [status(403)]
    found = run(cluster, "llama-2-a")
    assert [o["kind"] for o in found.objects] == ["Pod"]
    assert found.target == everything.target
    assert len(found.missing) > 10
    assert {row.reason for row in found.missing} == {"forbidden: no"}


def test_a_log_that_breaks_off_keeps_what_came(world: FakeApi, cluster: Cluster) -> None:
    path = f"{NS}/pods/llama-2-a/log"
    world.faults[path] = [reset_after(b"first line\n"), reset_after(b"first line\nsecond"), status(503)]
    found = run(cluster, "llama-2-a")
    assert [log.text for log in found.logs] == ["first line\nsecond"]
    (row,) = found.missing
    assert (row.source, row.ref) == ("logs", "serving/llama-2-a/vllm (previous)")
    assert row.reason.endswith("what came before is kept")


def breaks_before_the_first_byte(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.close_connection = True


@pytest.mark.parametrize("fault", [reset_after(b"first line\n"), reset_after(b""), breaks_before_the_first_byte])
def test_a_log_that_breaks_off_is_read_again(world: FakeApi, cluster: Cluster, fault: Any) -> None:
    world.faults[f"{NS}/pods/llama-2-a/log"] = [fault, normal]
    found = run(cluster, "llama-2-a")
    assert [log.text[:8] for log in found.logs] == ["loading\n"]
    assert found.missing == ()


@pytest.mark.impatient
def test_a_log_that_never_comes_is_cut(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{NS}/pods/llama-2-a/log"] = [silence]
    missing = run(cluster, "llama-2-a").missing
    assert [row.reason for row in missing if row.source == "logs"] == [
        "timed out after 2 s"
    ]  # a busy machine is late with others


def test_an_answer_of_an_unforeseen_shape_costs_its_source_only(world: FakeApi, cluster: Cluster) -> None:
    world.objects[0]["metadata"]["ownerReferences"] = ["no mapping"]
    (row,) = run(cluster, "llama-2-a").missing
    assert row.source == "inferenceservices.serving.kserve.io"
    assert row.reason.startswith("not understood: AttributeError")


def test_a_kind_that_is_not_installed_costs_nothing(world: FakeApi, cluster: Cluster) -> None:
    world.objects[5]["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/name"] = "gone"
    found = run(cluster, "llama-2-a")
    assert found.missing == ()
    assert not any(row.kind == "ScaledObject" for row in found.read)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(pick=st.integers(0, 10**6), junk=JUNK, which=st.sampled_from(range(len(deployment_world()))))
def test_answers_of_any_shape_end_in_a_snapshot_or_in_one_line(
    api: FakeApi, cluster: Cluster, pick: int, junk: Any, which: int
) -> None:
    world = copy.deepcopy(deployment_world())
    target = world[which]
    paths = places(target)[1:]
    *way, last = paths[pick % len(paths)]
    node: Any = target
    for step in way:
        node = node[step]
    node[last] = junk
    listed = [o for o in world if isinstance(o.get("metadata"), dict) and isinstance(o["metadata"].get("name"), str)]
    api.objects = [o for o in listed if all(isinstance(o.get(key), str) for key in ("kind", "apiVersion"))]
    pages = [raw(200, json.dumps({"items": [target]}).encode())]
    api.faults = dict.fromkeys((f"{NS}/pods", f"{NS}/services", "/api/v1/pods"), pages)
    named = Query(names=("llama-2-a",)), Query(names=("deployment/llama",))
    for query in (*named, Query(selector="app=llama"), Query(all_namespaces=True)):
        with contextlib.suppress(AccessError):
            to_json(gather(cluster, query))


# --- the target itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (
            "llama-3-x",
            "there is no Pod 'llama-3-x' in namespace 'serving'; did you mean llama-1-a or llama-2-a or llama-2-b?",
        ),
        ("llama-2", "there is no Pod 'llama-2' in namespace 'serving'; did you mean llama-2-a or llama-2-b?"),
        ("llama", "but a Deployment of that name: try `kubectl llmdoctor diagnose deployment/llama`"),
        ("chat", "try `kubectl llmdoctor diagnose inferenceservice/chat`"),
        ("zzz", "there is no Pod 'zzz' in namespace 'serving'"),
        ("deploy/lama", "there is no Deployment 'lama' in namespace 'serving'; did you mean llama?"),
        (
            "lws/x",
            "this cluster has no LeaderWorkerSet objects (leaderworkersets.leaderworkerset.x-k8s.io is not installed)",
        ),
    ],
)
def test_what_is_not_there_is_said_with_what_is(world: FakeApi, cluster: Cluster, target: str, says: str) -> None:
    assert says in refused(cluster, target)


def test_a_pod_in_another_namespace_is_found(world: FakeApi, cluster: Cluster) -> None:
    world.objects.append(obj("Pod", "away-0", ns="other"))
    assert refused(cluster, "away-0").endswith("there is one in other (-n)")


def test_a_namespace_that_does_not_exist_is_said(world: FakeApi, cluster: Cluster) -> None:
    world.objects = []
    assert refused(cluster, "llama-0") == "the namespace 'serving' does not exist"


def test_a_forbidden_target_ends_the_program(world: FakeApi, cluster: Cluster) -> None:
    world.faults[f"{NS}/pods/llama-2-a"] = [status(403, 'User "x" cannot get')]
    message = refused(cluster, "llama-2-a")
    assert message == (
        'cannot read Pod llama-2-a in namespace serving: forbidden: User "x" cannot get; see `kubectl llmdoctor access`'
    )


@pytest.mark.parametrize("fault", [silence, status(503), raw(200, b"{"), reset_after(b"")])
@pytest.mark.impatient
def test_a_target_that_cannot_be_had_ends_the_program_soon(world: FakeApi, cluster: Cluster, fault: Any) -> None:
    world.faults[f"{NS}/pods/llama-2-a"] = [fault]
    began = time.monotonic()
    refused(cluster, "llama-2-a")
    assert time.monotonic() - began < 6


def test_of_several_names_one_may_be_gone(world: FakeApi, cluster: Cluster) -> None:
    found = run(cluster, "llama-2-a", "pod/gone", "deploy/llama")
    assert [ref.name for ref in found.asked] == ["llama-2-a", "llama"]
    assert [(row.source, row.ref) for row in found.missing] == [("pods", "serving/gone")]
    assert "there is no Pod 'gone'" in refused(cluster, "gone", "pod/gone2")


@pytest.mark.parametrize("target", ["", "/", "pod/", "pod/a/b", "..", "pod/..", "pod/a?b", "a b", "nokind/x"])
def test_what_is_no_name_is_wrong_usage(world: FakeApi, cluster: Cluster, target: str) -> None:
    world.faults["/apis"] = [raw(200, b'{"kind": "APIGroupList", "groups": []}')]
    refused(cluster, target, kind=UsageError)


def test_flags_that_exclude_each_other(world: FakeApi, cluster: Cluster) -> None:
    refused(cluster, "a", kind=UsageError, all_namespaces=True)
    refused(cluster, "a", kind=UsageError, selector="app=x")


# --- workloads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["deployment/llama", "deploy/llama", "deployments.apps/llama", "Deployment.v1.apps/llama"]
)
def test_a_workload_is_explained_by_its_pods(world: FakeApi, cluster: Cluster, target: str) -> None:
    found = run(cluster, target)
    assert found.target == TargetRef(kind="Deployment", name="llama", namespace="serving", api_version="apps/v1")
    assert names(found, "Pod") == ["llama-1-a", "llama-2-a", "llama-2-b"]
    assert names(found, "ReplicaSet") == ["llama-1", "llama-2"]
    assert [log.pod for log in found.logs] == ["llama-1-a", "llama-2-a", "llama-2-b"]
    assert found.missing == ()


def test_logs_of_many_pods_are_bounded_and_the_bound_is_said(
    world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "LOG_PODS", 1)
    monkeypatch.setattr(walk.Walk.explain, "__defaults__", (1,))
    found = run(cluster, "deployment/llama")
    assert [log.pod for log in found.logs] == ["llama-2-a"], "the most broken one"
    assert found.missing == (
        Missing(source="logs", ref="Deployment/serving/llama", reason="read of the 1 most broken of 3 pods only"),
    )


def test_a_workload_without_pods_shows_why_it_has_none(world: FakeApi, cluster: Cluster) -> None:
    world.objects = [o for o in world.objects if o["kind"] != "Pod"]
    world.objects += [event("refused", "ReplicaSet", "llama-2"), obj("ResourceQuota", "gpus")]
    found = run(cluster, "deployment/llama")
    assert names(found, "Pod") == []
    assert "refused" in names(found, "Event")
    assert names(found, "ResourceQuota") == ["gpus"]
    assert names(found, "ReplicaSet") == ["llama-1", "llama-2"]


def test_a_service_stands_for_its_pods(world: FakeApi, cluster: Cluster) -> None:
    found = run(cluster, "svc/llama")
    assert [ref.name for ref in found.asked] == ["llama-1-a", "llama-2-a", "llama-2-b"]
    world.objects.append(obj("Service", "empty", spec={"selector": {"app": "none"}}))
    assert refused(cluster, "svc/empty") == "no pod belongs to Service 'empty' in namespace 'serving'"


@pytest.mark.parametrize(
    "ref",
    [
        {"name": "llama", "port": 80},
        {"kind": "Service", "name": "llama", "namespace": "serving"},
        {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "llama"},
        {"group": "inference.networking.x-k8s.io", "kind": "InferencePool", "name": "llama"},
    ],
)
def test_a_route_stands_for_the_pods_behind_its_backends(world: FakeApi, cluster: Cluster, ref: Json) -> None:
    rules = [
        {"backendRefs": [ref]},
        {"backendRefs": [{"name": "again"}, {"kind": "Other", "name": "x"}]},
        {"filters": []},
    ]
    world.objects += [
        obj("HTTPRoute", "chat", "gateway.networking.k8s.io/v1", spec={"rules": rules}),
        obj("Service", "again", spec={"selector": {"app": "llama"}}),
        obj("InferencePool", "llama", "inference.networking.k8s.io/v1", spec=SELECTOR),
        obj("InferencePool", "llama", "inference.networking.x-k8s.io/v1alpha2", spec={"selector": {"app": "llama"}}),
    ]
    found = run(cluster, "httproute/chat")
    pods = ["llama-1-a", "llama-2-a", "llama-2-b"]
    assert [log.pod for log in found.logs] == pods
    from kubectl_llmdoctor.facts.cluster import Cluster as Facts
    from kubectl_llmdoctor.target import subjects

    assert sorted(p.name for s in subjects(Facts(found)) for p in s.pods) == pods


def test_jobs_of_a_cron_job_are_followed(api: FakeApi, cluster: Cluster) -> None:
    cron = obj("CronJob", "warm", "batch/v1")
    job = obj("Job", "warm-1", "batch/v1", owner=cron, spec={"selector": {"matchLabels": {"job": "warm-1"}}})
    api.objects = [cron, job, pod("warm-1-x", job, labels={"job": "warm-1"}), obj("Job", "foreign", "batch/v1")]
    found = run(cluster, "cj/warm")
    assert names(found, "Job") == ["warm-1"]
    assert names(found, "Pod") == ["warm-1-x"]


def test_revisions_of_a_stateful_set_are_read(api: FakeApi, cluster: Cluster) -> None:
    owner = obj("StatefulSet", "llama", "apps/v1", spec=SELECTOR)
    labels = {"labels": {"app": "llama"}}
    api.objects = [
        owner,
        pod("llama-0", owner),
        obj("ControllerRevision", "llama-1", "apps/v1", owner=owner, meta=labels),
        obj("ControllerRevision", "foreign", "apps/v1", meta=labels),
    ]
    assert names(run(cluster, "llama-0"), "ControllerRevision") == ["llama-1"]


def group_world() -> list[Json]:
    lws = obj("LeaderWorkerSet", "big", "leaderworkerset.x-k8s.io/v1")
    leaders = obj("StatefulSet", "big", "apps/v1", owner=lws, spec=SELECTOR)

    def member(name: str, group: str, owner: Json) -> Json:
        labels = {"leaderworkerset.sigs.k8s.io/name": "big", "leaderworkerset.sigs.k8s.io/group-index": group}
        return pod(name, owner, labels=labels, spec={"nodeName": f"node-of-{name}"})

    leader = member("big-0", "0", leaders)
    workers = obj("StatefulSet", "big-0", "apps/v1", owner=leader, spec=SELECTOR)
    return [lws, leaders, leader, workers, member("big-0-1", "0", workers), member("big-1", "1", leaders)] + [
        obj("Node", f"node-of-{name}", ns="") for name in ("big-0", "big-0-1", "big-1")
    ]


def test_of_a_group_the_logs_of_all_ranks_are_read(api: FakeApi, cluster: Cluster) -> None:
    api.objects = group_world()
    for name in ("big-0", "big-0-1", "big-1"):
        api.logs["serving", name, "vllm", True] = name.encode()
    found = run(cluster, "big-0-1")
    assert [log.pod for log in found.logs] == ["big-0", "big-0-1"]
    assert names(found, "Pod") == ["big-0", "big-0-1", "big-1"]
    assert names(found, "Node") == ["node-of-big-0", "node-of-big-0-1"]
    assert names(found, "StatefulSet") == ["big", "big-0"]
    assert names(found, "LeaderWorkerSet") == ["big"]


def test_of_a_leader_whose_workers_are_not_there_what_should_make_them_is_read(api: FakeApi, cluster: Cluster) -> None:
    api.objects = [item for item in group_world() if item["metadata"]["name"] != "big-0-1"]
    leader = next(item for item in api.objects if (item["kind"], item["metadata"]["name"]) == ("Pod", "big-0"))
    leader["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/worker-index"] = "0"
    assert names(run(cluster, "big-0"), "StatefulSet") == ["big", "big-0"]


def test_a_group_is_explained_by_its_name(api: FakeApi, cluster: Cluster) -> None:
    api.objects = group_world()
    found = run(cluster, "lws/big")
    assert names(found, "Pod") == ["big-0", "big-0-1", "big-1"]
    assert names(found, "StatefulSet") == ["big", "big-0"]


def test_an_owner_of_an_unknown_kind_is_found_by_discovery(api: FakeApi, cluster: Cluster) -> None:
    owner = obj("Engine", "mine", "acme.dev/v1")
    api.objects = [pod("mine-0", owner)]
    resources = [
        {"name": "engines", "singularName": "engine", "kind": "Engine", "namespaced": True, "shortNames": ["eng"]},
        {"name": "engines/status", "kind": "Engine", "namespaced": True},
    ]
    api.faults["/apis/acme.dev/v1"] = [raw(200, json.dumps({"resources": resources}).encode())]
    api.faults["/apis/acme.dev/v1/namespaces/serving/engines/mine"] = [raw(200, json.dumps(owner).encode())]
    assert names(run(cluster, "mine-0"), "Engine") == ["mine"]

    groups = [{"name": "acme.dev", "preferredVersion": {"groupVersion": "acme.dev/v1", "version": "v1"}}]
    api.faults["/apis"] = [raw(200, json.dumps({"kind": "APIGroupList", "groups": groups}).encode())]
    for name in ("engine/mine", "eng/mine", "engines.acme.dev/mine"):
        found = run(cluster, name)
        assert found.target == TargetRef(kind="Engine", name="mine", namespace="serving", api_version="acme.dev/v1")
        assert names(found, "Pod") == ["mine-0"], "found downwards along the ownerReferences"

    row = {
        "resource": "engines",
        "responseKind": {"kind": "Engine"},
        "scope": "Namespaced",
        "singularResource": "engine",
    }
    item = {"metadata": {"name": "acme.dev"}, "versions": [{"version": "v1", "resources": [row]}]}
    whole = {"kind": "APIGroupDiscoveryList", "items": [item]}
    api.faults["/apis"] = [raw(200, json.dumps(whole).encode())]
    assert names(run(cluster, "engine/mine"), "Pod") == ["mine-0"]


# --- pods that wait for a node ----------------------------------------------------------------------------------------


def pending(**spec: Any) -> Json:
    return pod("waiting-0", spec={"nodeName": None, **spec}, status={"phase": "Pending", "containerStatuses": []})


def test_for_a_pending_pod_all_nodes_and_their_pods_are_read(
    api: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PAGE", 2)
    busy = [pod(f"busy-{number}") for number in range(5)]
    for one in busy:
        one["metadata"] |= {"labels": {"app": "busy"}, "namespace": "other"}
        one["spec"]["containers"][0]["ports"] = [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]
        one["spec"]["volumes"] = [
            {"name": "x", "emptyDir": {}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
        ]
    done = pod("done-0", status={"phase": "Succeeded"})
    done["metadata"]["namespace"] = "other"
    node: Json = {
        "spec": {"taints": [{"key": "gpu"}]},
        "status": {"images": [{}], "allocatable": {"nvidia.com/gpu": "8"}},
    }
    api.objects = [pending(), *busy, done, *(obj("Node", f"n{number}", ns="", **node) for number in range(3))]
    found = run(cluster, "waiting-0")
    assert names(found, "Node") == ["n0", "n1", "n2"]
    busy_names = [f"busy-{number}" for number in range(5)]
    assert names(found, "Pod") == [*busy_names, "done-0", "waiting-0"]
    assert ReadList(kind="Node") in found.read
    assert ReadList(kind="Pod") in found.read
    with monkeypatch.context() as patched:
        patched.setattr(capacity, "_MANY_PODS", 3)
        fewer = run(cluster, "waiting-0")
    assert names(fewer, "Pod") == [*busy_names, "waiting-0"], "of very many pods those that have finished are left out"
    assert ReadList(kind="Pod", fields="status.phase!=Succeeded,status.phase!=Failed") in fewer.read
    assert ReadList(kind="Pod") not in fewer.read
    (slim,) = [o for o in found.objects if o["metadata"]["name"] == "busy-0"]
    assert slim["spec"] == {
        "nodeName": "gpu-1",
        "volumes": [{"name": "c", "persistentVolumeClaim": {"claimName": "c"}}],
        "containers": [
            {
                "name": "vllm",
                "image": "vllm/vllm-openai:v0.9.1",
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "ports": [{"hostPort": 81, "containerPort": 81}],
            }
        ],
    }
    (whole,) = [o for o in found.objects if o["metadata"]["name"] == "waiting-0"]
    assert whole["spec"]["containers"][0]["env"], "the pod itself is whole"
    assert [o["status"] for o in found.objects if o["kind"] == "Node"] == [{"allocatable": {"nvidia.com/gpu": "8"}}] * 3
    assert found.logs == ()


def test_a_list_that_breaks_off_is_not_called_complete(
    api: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PAGE", 1)
    api.objects = [pending(), obj("Node", "n0", ns=""), obj("Node", "n1", ns="")]
    api.faults["/api/v1/nodes"] = [normal, status(410, "continue token expired")]
    found = run(cluster, "waiting-0")
    assert names(found, "Node") == ["n0"]
    assert ReadList(kind="Node") not in found.read
    assert [row.source for row in found.missing] == ["nodes"]


def test_for_a_pending_pod_the_device_plugins_are_asked(api: FakeApi, cluster: Cluster) -> None:
    def plugin(name: str, **row: Any) -> Json:
        rows = [{"name": "ctr", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": "x"}}} | row]
        spec = {"containers": [{"name": "ctr", "args": ["--fail-on-init-error=false"]}]}
        more: Json = {"spec": spec, "status": {"phase": "Running", "containerStatuses": rows}}
        return obj("Pod", f"nvidia-device-plugin-{name}", ns="kube-system", **more)

    api.objects = [pending(), *(plugin(str(number)) for number in range(5)), plugin("z", restartCount=3)]
    for one in api.objects[1:]:
        api.logs["kube-system", one["metadata"]["name"], "ctr", False] = b"No devices found. Waiting indefinitely.\n"
    found = run(cluster, "waiting-0")
    assert [log.pod.removeprefix("nvidia-device-plugin-") for log in found.logs] == ["0", "1", "2", "z"]
    (whole,) = [o for o in found.objects if o["metadata"]["name"] == "nvidia-device-plugin-z"]
    assert whole["spec"]["containers"][0]["args"]


def test_for_a_pending_pod_what_the_device_plugin_waits_for_is_asked_where_it_is_broken(
    api: FakeApi, cluster: Cluster
) -> None:
    def operand(name: str, **row: Any) -> Json:
        rows = [{"name": "ctr", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": "x"}}} | row]
        more: Json = {
            "spec": {"containers": [{"name": "ctr"}]},
            "status": {"phase": "Running", "containerStatuses": rows},
        }
        return obj("Pod", name, ns="gpu-operator", **more)

    loops: Json = {
        "ready": False,
        "restartCount": 9,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1}},
    }
    api.objects = [
        pending(),
        operand("nvidia-driver-daemonset-a", **loops),
        operand("nvidia-driver-daemonset-b"),
        operand("nvidia-container-toolkit-daemonset-a", **loops),
    ]
    for one in api.objects[1:]:
        api.logs["gpu-operator", one["metadata"]["name"], "ctr", True] = b"level=error msg=x\n"
    found = run(cluster, "waiting-0")
    assert sorted({log.pod for log in found.logs}) == [
        "nvidia-container-toolkit-daemonset-a",
        "nvidia-driver-daemonset-a",
    ]


def test_other_pods_of_the_namespace_are_whole_while_they_are_few(
    world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"nodeName": "n", "containers": [{"name": "c", "args": ["--port"]}]}
    world.objects.append(obj("Pod", "router-0", spec=spec, status={}))

    def router(found: Snapshot) -> Json:
        (one,) = [o for o in found.objects if o["metadata"]["name"] == "router-0"]
        container: Json = one["spec"]["containers"][0]
        return container

    found = run(cluster, "llama-2-a")
    assert router(found) == {"name": "c", "args": ["--port"]}
    assert ReadList(kind="Pod", namespace="serving") in found.read
    monkeypatch.setattr(walk, "_WHOLE_NEIGHBOURS", 3)
    assert router(run(cluster, "llama-2-a")) == {"name": "c"}
    world.page_size = 2
    found = run(cluster, "llama-2-a")
    assert ReadList(kind="Pod", namespace="serving") not in found.read
    assert Missing(source="pods", ref="serving", reason="only the first 2 were read") in found.missing


def test_device_claims_are_followed_in_the_version_that_there_is(api: FakeApi, cluster: Cluster) -> None:
    claims = [{"name": "gpu", "resourceClaimName": "mine"}, {"name": "t", "resourceClaimTemplateName": "template"}]
    dra = "resource.k8s.io/v1beta1"
    api.objects = [
        pending(resourceClaims=claims),
        obj("ResourceClaim", "mine", dra),
        obj("ResourceClaimTemplate", "template", dra),
        obj("DeviceClass", "gpu.nvidia.com", dra, ns=""),
        obj("ResourceSlice", "slice", dra, ns=""),
    ]
    for version in ("v1", "v1beta2"):
        base = f"/apis/resource.k8s.io/{version}"
        for path in ("deviceclasses", "resourceslices", "resourceclaims"):
            api.faults[f"{base}/{path}"] = [raw(404, b"404 page not found")]
        for path in ("resourceclaims/mine", "resourceclaimtemplates/template"):
            api.faults[f"{base}/namespaces/serving/{path}"] = [raw(404, b"404 page not found")]
    found = run(cluster, "waiting-0")
    for kind in ("ResourceClaim", "ResourceClaimTemplate", "DeviceClass", "ResourceSlice"):
        assert len(names(found, kind)) == 1, kind
    assert found.missing == ()


# --- many pods --------------------------------------------------------------------------------------------------------


def test_a_selector_picks_pods_the_most_broken_first(world: FakeApi, cluster: Cluster) -> None:
    found = gather(cluster, Query(selector="app=llama"))
    assert [ref.name for ref in found.asked] == ["llama-2-a", "llama-2-b", "llama-1-a"]
    with pytest.raises(AccessError, match="no pod of namespace serving has the labels app=x"):
        gather(cluster, Query(selector="app=x"))


def test_of_all_pods_those_that_serve_models_are_explained(world: FakeApi, cluster: Cluster) -> None:
    plain = obj("Pod", "web-0", ns="plain", spec={"containers": [{"name": "c", "image": "nginx"}]}, status={})
    by_image = obj(
        "Pod", "s-0", ns="web", spec={"containers": [{"name": "c", "image": "lmsysorg/sglang:v0.5"}]}, status={}
    )
    command = {"name": "c", "image": "python:3", "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"]}
    by_command = obj("Pod", "c-0", ns="web", spec={"containers": [command]}, status={"phase": "Running"})
    world.objects += [plain, by_image, by_command]
    found = gather(cluster, Query(all_namespaces=True))
    assert [ref.name for ref in found.asked] == ["llama-2-a", "llama-2-b", "s-0", "llama-1-a", "c-0"]
    assert "web-0" in names(found, "Pod"), "a pod waits for a node, so what takes place there is kept"
    assert ReadList(kind="Pod") in found.read

    world.objects.remove(by_image)
    found = gather(cluster, Query(all_namespaces=True))
    assert "web-0" not in names(found, "Pod")
    assert ReadList(kind="Pod") not in found.read


def test_without_a_name_the_models_of_the_namespace_are_explained(world: FakeApi, cluster: Cluster) -> None:
    assert len(gather(cluster, Query()).asked) == 3
    world.objects = []
    with pytest.raises(AccessError, match="no pod of namespace serving asks for a GPU"):
        gather(cluster, Query())


def test_a_forbidden_list_of_all_pods_ends_the_program(world: FakeApi, cluster: Cluster) -> None:
    world.faults["/api/v1/pods"] = [status(403, "cannot list")]
    with pytest.raises(AccessError, match="cannot read the pods of the cluster: forbidden: cannot list"):
        gather(cluster, Query(all_namespaces=True))


# --- access -----------------------------------------------------------------------------------------------------------


def test_access_asks_for_every_rule(api: FakeApi, cluster: Cluster) -> None:
    rows = access(cluster, None)
    assert [row.resource for row in rows] == [*(row.resource for row in RULES), "node agents"]
    assert {row.resource for row in rows if row.allowed is False} == {"nodes", "node agents"}
    assert [row.reason for row in rows if row.resource == "nodes"] == ["no"]
    # agents are looked for in their own namespace, then in all
    assert len(api.requests) == sum(len(row.verbs) for row in RULES) + 2


def test_access_without_an_answer_ends_the_program(api: FakeApi, cluster: Cluster) -> None:
    api.faults["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"] = [status(401)]
    with pytest.raises(AccessError, match="does not accept the credentials"):
        access(cluster, "serving")


def test_access_with_some_answers_says_what_is_unknown(api: FakeApi, cluster: Cluster) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    allowed = raw(201, b'{"status": {"allowed": true}}')
    api.faults[path] = [raw(201, b"[]"), *[allowed] * 3, allowed]
    rows = access(cluster, "serving")
    assert sum(row.allowed is None for row in rows) == 1
    assert sum(row.allowed is True for row in rows) == len(RULES) - 1


# --- start-up ---------------------------------------------------------------------------------------------------------


def test_gathering_loads_neither_the_client_library_nor_the_transport_before_it_is_needed() -> None:
    code = (
        "import sys, kubectl_llmdoctor.gather.cluster, kubectl_llmdoctor.gather.access; "
        "print([m for m in ('kubernetes', 'urllib3', 'yaml', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_whole_gathering_does_not_load_the_client_library(world: FakeApi, kubeconfig: Path) -> None:
    code = (
        "import sys; from kubectl_llmdoctor.gather.cluster import *; "
        f"gather(connect(Connection(kubeconfig={str(kubeconfig)!r})), Query(names=('llama-2-a',))); "
        "print('kubernetes' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_log_of_a_job_that_failed_on_the_claim_of_a_broken_pod_is_read(api: FakeApi, cluster: Cluster) -> None:
    claim = {"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}]}
    bring = obj("Job", "bring", "batch/v1", spec={}, status={"failed": 1})
    ended: Json = {"terminated": {"exitCode": 1, "reason": "Error"}}
    row = {"name": "vllm", "ready": False, "restartCount": 0, "state": ended}
    failed: Json = {"phase": "Failed", "containerStatuses": [row]}
    of_job = pod("bring-x", bring, labels={"job-name": "bring"}, spec=claim, status=failed)
    of_another = pod("other-x", labels={"job-name": "other"}, status=failed)
    api.objects = [pod("llama-0", spec=claim), bring, of_job, of_another]
    api.logs["serving", "bring-x", "vllm", False] = b"No space left on device\n"
    api.logs["serving", "other-x", "vllm", False] = b"of another claim\n"
    found = run(cluster, "llama-0")

    assert "bring" in names(found, "Job")
    assert {log.pod for log in found.logs} - {"llama-0"} == {"bring-x"}

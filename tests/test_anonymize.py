"""`snapshot --anonymize`: no name is left, and the diagnosis is the same."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.anonymize import anonymized
from kubectl_llmdoctor.diagnosis import diagnose, looked_for
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed, texts
from kubectl_llmdoctor.snapshot import LogText, Missing, NodeData, Snapshot, TargetRef, to_json
from kubectl_llmdoctor.testing import find_cases
from tests.program import run
from tests.sampling import some

CASES = Path(__file__).parent.parent / "checks" / "cases"
#: Those that must fire and those that must not.
SAMPLE = some(find_cases(CASES), 60)
#: Where a name stands as nothing but a check of that cause would look for it.
SAMPLE += [
    CASES / f"{name}.yaml"
    for name in (
        "admission-denied/fires_only_the_controller_says_so",  # a pod that was never made
        "engine-args-invalid/fires_lightllm",  # an engine's module
        "admission-denied/fires_node_of_a_guide",  # capitals, which no name has
        "crd-missing/fires_asked_for_by_its_path",  # "namespace/name" of common words
        "disk-full/fires_model_of_arks",  # model: {name: …}
        "gateway-timeout/fires_client_waits_no_longer",  # host='llama'
        "gateway-timeout/fires_gateway_of_its_front_end",  # a Service as the host of a URL
        "gateway-timeout/fires_route_of_another_namespace",  # httproute/namespace/name
        "gateway-timeout/fires_streams_cut_short",  # a host of common words
        "gpu-request-exceeds-node/fires_hami_shares",  # an annotation of a project
        "gpu-runtime-missing/fires_ascend_class_not_named",  # a runtime class that everybody has
        "image-pull-failed/fires_of_the_server_that_an_init_container_awaits",  # nc -z sessions 6379
        "isvc-runtime-missing/fires_protocol_of_mlflow",  # "namespace":"serving","name":"boosted"
        "metrics-not-scraped/fires_picker_goes_by_a_name_that_is_gone",  # an option and its value
        "multinode-discovery/fires_name_of_ready_pods_only",  # pod.subdomain
        "nccl-other/fires_xccl_window",  # a resource of a vendor
        "placeholder-left/fires_token_named_like_its_secret",  # the part that a Secret plays
        "port-mismatch/fires_gateway_asks_another_port",  # llama:8001
        "port-mismatch/fires_note_kserve_service_beside",  # isvc.NAME-predictor
        "port-mismatch/fires_service_of_a_program",  # a Service whose name says that it serves a model
        "queue-growing/fires_picker_sheds",  # a ReplicaSet by the name of a pool
        "service-selects-nothing/fires_pool_beside_it_at_zero",  # NAME-ip-HASH.namespace.svc
        "service-selects-nothing/fires_pool_other_value",  # a label's value made from a name
        "service-selects-nothing/quiet_database_came_later",  # server at "db"
        "served-model-name-mismatch/fires_told_behind_a_router",  # app=llama
        "gateway-timeout/fires_client_of_go",  # and with its namespace
        "gateway-timeout/fires_haproxy",  # namespace_svc_service_port
        "gateway-timeout/fires_openshift_router_log",  # be_http:namespace:route/pod:pod:service:port
        "gateway-timeout/fires_policy_per_retry",  # targetRefs
        "placeholder-left/fires_claim",  # nobody's name
        "pvc-unbound/fires_node_name",  # `PVC namespace/name`
        "service-selects-nothing/fires_pool",  # a picker's pod by the name of its pool
    )
]


@cache
def kept() -> tuple[str, ...]:
    return *looked_for(installed()), *texts()


def found(snapshot: Snapshot) -> list[Any]:
    report = diagnose(snapshot, installed())
    # targets stand in the order of their names, which are others then
    return sorted((t.verdict, sorted((f.id, f.role) for f in t.findings)) for t in report.targets)


@pytest.mark.parametrize("case", SAMPLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_diagnosis_is_the_same(case: Path) -> None:
    snapshot = load(str(case))
    once = anonymized(snapshot, kept())

    assert found(once) == found(snapshot)
    assert to_json(anonymized(snapshot, kept())) == to_json(once)


# --- nothing is left ----------------------------------------------------------------------------------------------------

#: Words that no engine prints.
WORDS = st.from_regex(r"zq[aeiou][bdfgklmnprstvz][aeiou][bdfgklmnprstvz][aeiou]", fullmatch=True)
OCTETS = st.tuples(*[st.integers(2, 250)] * 3).map(lambda rest: "10." + ".".join(map(str, rest)))


def world(words: list[str], addresses: list[str]) -> tuple[Snapshot, list[str]]:
    """A cluster whose every name is made of these seven words, and all that must not be left of it."""
    team, app, node, domain, org, person, claim = words
    namespace, deployment, registry = f"{team}-prod", f"{app}-llm", f"registry.{domain}.io:5000"
    replicaset, pod = f"{deployment}-7c9d8f6b5", f"{deployment}-7c9d8f6b5-x2v4q"
    machine, mail = f"{node}-17.{domain}.corp", f"{person}.x@{domain}.org"
    labels = {
        "app": deployment,
        "team": team,
        f"{domain}.io/cost-centre": f"{org}-4711",
        "app.kubernetes.io/name": "vllm",
    }
    spec = {
        "nodeName": machine,
        "serviceAccountName": f"{app}-runner",
        "imagePullSecrets": [{"name": f"{org}-pull"}],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": f"{claim}-data"}}],
        "containers": [
            {
                "name": f"{app}-server",
                "image": f"{registry}/{org}/vllm-openai:v0.9.1",
                "args": ["--model", f"{org}/{app}-70b", f"--served-model-name={app}-chat", "--max-model-len", "8192"],
                "env": [
                    {"name": f"{app.upper()}_URL", "value": f"https://vault.{domain}.io/v1"},
                    {"name": "OWNER", "value": mail},
                    {"name": "CACHE", "value": f"/mnt/{team}/cache"},
                ],
            }
        ],
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replicaset, "uid": "u"}
    meta = {"namespace": namespace, "labels": labels, "annotations": {f"{domain}.io/owner": f"call {person}"}}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": pod, "ownerReferences": [owner]}, "spec": spec,
            "status": {"podIP": addresses[0], "hostIP": addresses[1]},
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {**meta, "name": deployment},
            "spec": {"selector": {"matchLabels": {"app": deployment}}, "template": {"metadata": {"labels": labels}}},
        },
        {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": machine, "labels": {"kubernetes.io/hostname": machine}},
            "status": {"addresses": [{"type": "InternalIP", "address": addresses[1]}]},
        },
        {
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{pod}.17a", "namespace": namespace},
            "involvedObject": {"kind": "Pod", "name": pod, "namespace": namespace}, "reason": "FailedMount",
            "message": f'secret "{org}-token" not found for {namespace}/{pod} on {machine} ({addresses[1]})',
        },
    ]  # fmt: skip
    text = (
        f"INFO {pod} connects to {app}.{namespace}.svc.cluster.local and http://{addresses[2]}:8000\n"
        f"ERROR {mail} may not read s3://{org}-weights, see https://wiki.{domain}.io/{team}; /srv/{person}/{claim}\n"
        f"{app.upper()}_LLM_SERVICE_HOST={addresses[0]} {node}-17 peer {addresses[1]}\n"
    )
    snapshot = Snapshot(
        taken_at="2026-11-20T10:00:00Z",
        target=TargetRef(kind="Pod", name=pod, namespace=namespace),
        objects=tuple(objects),
        logs=(LogText(text=text, namespace=namespace, pod=pod, container=f"{app}-server"),),
        nodes={machine: NodeData(kernel_log=f"{machine} kernel: oom {pod}")},
        missing=(Missing(source="logs", ref=f"{namespace}/{pod}", reason=f'pods "{pod}" is forbidden: user {mail}'),),
    )
    names = [namespace, deployment, replicaset, pod, machine, registry, mail, *words, *addresses]
    return snapshot, names


@settings(max_examples=20, phases=[Phase.generate])  # a smaller example says no more
@given(st.lists(WORDS, min_size=7, max_size=7, unique=True), st.lists(OCTETS, min_size=3, max_size=3, unique=True))
def test_no_name_is_left_anywhere(words: list[str], addresses: list[str]) -> None:
    snapshot, names = world(words, addresses)
    data = to_json(anonymized(snapshot, kept())).decode().lower()

    left = [name for name in names if re.search(rf"(?<![0-9.]){re.escape(name.lower())}(?![0-9])", data)]
    assert left == []
    assert data == to_json(anonymized(snapshot, kept())).decode().lower()


def test_what_belongs_together_stays_together() -> None:
    words = ["zqabade", "zqebade", "zqibade", "zqobade", "zqubade", "zqafade", "zqagade"]
    snapshot, _ = world(words, ["10.0.0.5", "10.0.0.6", "10.1.0.7"])
    made = anonymized(snapshot, kept())
    namespace, pod, deployment, node, event = made.objects
    log = made.logs[0]

    assert made.target is not None
    assert (log.pod, log.namespace) == (pod["metadata"]["name"], namespace["metadata"]["name"])
    assert (made.target.name, made.target.namespace) == (log.pod, log.namespace)
    assert event["involvedObject"]["name"] == log.pod
    assert log.pod == deployment["metadata"]["name"] + "-7c9d8f6b5-x2v4q"
    assert pod["metadata"]["ownerReferences"][0]["name"] == deployment["metadata"]["name"] + "-7c9d8f6b5"
    assert pod["spec"]["nodeName"] == node["metadata"]["name"] == next(iter(made.nodes))
    assert deployment["spec"]["selector"]["matchLabels"]["app"] == pod["metadata"]["labels"]["app"]
    assert pod["spec"]["containers"][0]["name"] == log.container
    # What says how to diagnose it is as it was.
    assert pod["spec"]["containers"][0]["image"].endswith("/vllm-openai:v0.9.1")
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "vllm"
    assert {"--model", "--max-model-len", "8192"} <= set(pod["spec"]["containers"][0]["args"])
    # Two addresses of one network still are.
    status = pod["status"]
    assert status["podIP"].rpartition(".")[0] == status["hostIP"].rpartition(".")[0]


def test_public_names_are_kept() -> None:
    line = "vllm loads meta-llama/Llama-3.1-8B-Instruct from https://huggingface.co on NVIDIA H100, cudnn 9.1.0.70"
    objects = (
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "vllm", "namespace": "kube-system"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nvidia-device-plugin-daemonset-x2v4q"}},
    )
    made = anonymized(Snapshot(objects=objects, logs=(LogText(text=line),)), kept())

    assert made.logs[0].text == line
    assert made.objects == objects


def test_nothing_is_left_where_only_a_part_is_known() -> None:
    line = (
        "be_http:serving:zeppelin-route/pod:zeppelin-0:zeppelin:10.0.0.1:8000 pods zeppelin-ns/llama ACME_BANK "
        "from ACCOUNT_ID.dkr.acmebank.org/llm"
    )
    labels = {"customer": "ACME_BANK", "team": "zeppelin-crew"}
    container = {"name": "vllm", "image": "ACCOUNT_ID.dkr.acmebank.org/llm/vllm:1"}
    objects = (
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "zeppelin-0", "namespace": "serving", "labels": labels},
            "spec": {"containers": [container]},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llama", "namespace": "serving"}},
    )
    made = to_json(anonymized(Snapshot(objects=objects, logs=(LogText(text=line),)), kept())).lower()

    assert b"zeppelin" not in made
    assert b"acme" not in made


def test_names_of_common_words_go_where_nothing_else_stands() -> None:
    line = (
        'sync "serving/qwen" pod-1.llama.serving.svc tcp://llama:8000 lookup llama on llama-2.llama:5 '
        '{"namespace":"serving","name":"zeppelin"} {\\"name\\":\\"llama\\",\\"namespace\\":\\"serving\\"} httproute/serving/qwen/rule/0'
    )
    labels = {"cloud.google.com/gke-nodepool": "zeppelin-pool", "nvidia.com/gpu.product": "NVIDIA-L4"}
    objects = (
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llama", "namespace": "serving"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "llama-2", "namespace": "serving"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "qwen", "namespace": "serving"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "zeppelin", "namespace": "serving"}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1", "labels": labels}},
    )
    prose = "llama serving: /models/serving/qwen, the host serving llama; vllm/llama.py:8000"
    made = anonymized(Snapshot(objects=objects, logs=(LogText(text=line), LogText(text=prose))), kept())
    text = made.logs[0].text

    assert not re.search(r"serving|qwen|zeppelin|(?<!service-a-)llama", text)
    assert made.logs[1].text == prose
    assert "zeppelin" not in to_json(made).decode()
    assert made.objects[4]["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-L4"


@pytest.mark.parametrize("unit", ["pod.", "a-", "llama.", 'namespace":"serving","name":"', "nc -a ", "outbound|1|"])
def test_a_hostile_log_takes_no_longer_than_another(unit: str) -> None:
    objects = ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llama", "namespace": "serving"}},)
    text = unit * (300_000 // len(unit))

    assert anonymized(Snapshot(objects=objects, logs=(LogText(text=text),)), kept()).logs[0].text


def test_the_program_anonymizes_a_snapshot(tmp_path: Path) -> None:
    case, path = CASES / "oomkilled-host" / "fires_loading.yaml", tmp_path / "shared.json"
    done = run("snapshot", "--from", str(case), "--anonymize", "-f", str(path))
    report = json.loads(run("diagnose", "--from", str(path), "-o", "json").stdout)

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"llama-0" not in path.read_bytes()
    assert report["targets"][0]["findings"][0]["id"] == "oomkilled-host"


def test_an_account_of_aws_and_its_roles_are_nobody_s() -> None:
    said = "User: arn:aws:sts::444455556666:assumed-role/zeppelin-models/session is not authorized to perform: s3:GetObject\n"
    snapshot = Snapshot(
        objects=(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "llama-0", "namespace": "serving"}, "spec": {
                "containers": [{"name": "a", "image": "vllm/vllm-openai:v0.11.0", "env": [
                    {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::444455556666:role/zeppelin-models"}]}]}},
        ),
        logs=(LogText(namespace="serving", pod="llama-0", container="a", text=said),),
    )  # fmt: skip
    text = to_json(anonymized(snapshot, kept())).decode()

    assert "444455556666" not in text
    assert "zeppelin" not in text
    assert text.count(":111100000001:") == 2

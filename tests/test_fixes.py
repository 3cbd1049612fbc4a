"""Fixes that depend on what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from llmdoctor_checks.start._probes import asking_the_same

from kubectl_llmdoctor import fixes, stating
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.engine import Engine, engines_of
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.snapshot import Json, Snapshot
from kubectl_llmdoctor.testing import Case, diagnose_case, load_case
from tests.patching import patched

CASES = Path(__file__).parents[1] / "checks" / "cases"


def _deployment(container: Mapping[str, object]) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llm", "namespace": "prod"},
        "spec": {"template": {"metadata": {"labels": {"app": "llm"}}, "spec": {"containers": [container]}}},
    }


def test_a_pod_in_a_manifest_gets_a_patch_and_no_command() -> None:
    from kubectl_llmdoctor.report import text

    container = {"name": "v", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "x", "-tp", "2"]}
    container |= {"resources": {"limits": {"nvidia.com/gpu": 2}}}  # type: ignore[dict-item]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    report = diagnose(Snapshot(objects=(pod,)), installed())
    finding = next(f for f in report.targets[0].findings if f.id == "shm-too-small")
    patch = finding.fixes[0].patch

    assert patch
    after = patched(Snapshot(objects=(pod,)), patch)
    assert after
    assert after.objects[0]["spec"]["volumes"][0]["name"] == "dshm"
    assert "kubectl patch" not in text.render(report, wide=True)


@pytest.mark.parametrize(("more", "size"), [([], "4"), (["--pipeline-parallel-size", "2"], "2")])
def test_a_size_that_divides_is_first_looked_for_in_the_gpus_that_are_there(more: list[str], size: str) -> None:
    args = ["--model", "Qwen/Qwen3-235B-A22B", "--tensor-parallel-size", "3", *more]
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": args,
        "resources": {"limits": {"nvidia.com/gpu": "4"}},
    }
    (target,) = diagnose(Snapshot(objects=(_deployment(container),)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "tp-not-divisible"]

    assert found.fixes[0].summary.startswith(f"Set --tensor-parallel-size to {size},")


@pytest.mark.parametrize(
    "start",
    [
        {"args": ["--model-id", "Qwen/Qwen3-8B", "--num-shard=6"]},
        {"command": ["text-generation-launcher", "--model-id", "Qwen/Qwen3-8B", "--num-shard", "6"]},
        {"args": ["--model-id", "Qwen/Qwen3-8B"], "env": [{"name": "NUM_SHARD", "value": "6"}]},
    ],
)
def test_a_size_changes_where_it_stands_and_the_gpus_with_it(start: dict[str, object]) -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3.1.0"
    container = {"name": "tgi", "image": image, "resources": {"limits": {"nvidia.com/gpu": "6"}}, **start}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    before = Snapshot(objects=(pod,))
    (found,) = [f for f in diagnose(before, installed()).targets[0].findings if f.id == "tp-not-divisible"]

    assert found.fixes[0].patch
    after = patched(before, found.fixes[0].patch)
    assert after
    assert after.objects[0]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    ids = {f.id for f in diagnose(after, installed()).targets[0].findings}
    assert not ids & {"tp-not-divisible", "gpu-count-mismatch"}


def test_gpus_stay_where_they_serve_more_than_one_stage() -> None:
    args = ["--model", "Qwen/Qwen3-8B", "--tensor-parallel-size", "3", "--pipeline-parallel-size", "2"]
    limits = {"limits": {"nvidia.com/gpu": "6"}}
    container = {"name": "v", "image": "vllm/vllm-openai:v0.11.0", "args": args, "resources": limits}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    (target,) = diagnose(Snapshot(objects=(pod,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "tp-not-divisible"]

    assert "and change the number of GPUs with it" in found.fixes[0].summary
    assert found.fixes[0].patch
    assert [op["value"] for op in found.fixes[0].patch.body] == ["2"]


def test_what_no_patch_can_change_is_told_as_a_person_writes_it() -> None:
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--model", "Qwen/Qwen3-8B", "--max-model-len", "131072"],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    waiting = {"name": "vllm", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "prod"},
        "spec": {"nodeName": "gpu-1", "containers": [container]},
        "status": {
            "phase": "Running",
            "containerStatuses": [waiting | {"lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
        },
    }
    (target,) = diagnose(Snapshot(objects=(pod,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "max-len-exceeds-model"]

    assert found.fixes[0].summary == (
        "Cap the context at 40960 tokens (--max-model-len 40960; in Pod/llama-0, which must be deleted and recreated)"
    )


def test_a_startup_probe_asks_all_that_the_liveness_probe_asks() -> None:
    header = {"name": "Authorization", "value": "Bearer a"}
    http = k8s.HttpGet(path="/health", port="api", scheme="HTTPS", http_headers=(header,))
    asked = {"path": "/health", "port": "api", "scheme": "HTTPS", "httpHeaders": [header]}
    assert asking_the_same(k8s.Probe(http_get=http, timeout_seconds=5)) == {"httpGet": asked, "timeoutSeconds": 5}
    assert asking_the_same(k8s.Probe(tcp_socket=k8s.TcpSocket(port=80))) == {"tcpSocket": {"port": 80}}
    assert asking_the_same(k8s.Probe(grpc=k8s.GrpcAction())) == {}


@pytest.mark.parametrize(
    ("labels", "where"),
    [
        ({}, "Deployment/llama"),
        ({"serving.knative.dev/service": "chat"}, "Service/chat"),
        ({"serving.knative.dev/service": "c", "serving.kserve.io/inferenceservice": "c"}, "InferenceService/c"),
    ],
)
def test_an_owner_that_was_not_read_is_what_a_fix_names(labels: dict[str, str], where: str) -> None:
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--max-model-len=131072", "--model=Qwen/Qwen3-8B"],
    }
    waiting = {"name": "vllm", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-5d9c", "uid": "u1", "controller": True}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "llama-5d9c-x2k4q",
            "namespace": "prod",
            "labels": {"pod-template-hash": "5d9c"} | labels,
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "gpu-1", "containers": [container]},
        "status": {
            "phase": "Running",
            "containerStatuses": [waiting | {"lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
        },
    }
    (target,) = diagnose(Snapshot(objects=(pod,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "max-len-exceeds-model"]

    assert found.fixes[0].summary.endswith(f"(--max-model-len=40960; in {where})")
    assert found.fixes[0].patch is None


def test_a_workload_that_another_makes_gets_no_patch() -> None:
    container = {
        "name": "main",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--max-model-len=131072", "--model=Qwen/Qwen3-8B"],
    }
    owner = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "name": "llama",
        "uid": "u2",
        "controller": True,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llama-predictor", "namespace": "prod", "ownerReferences": [owner]},
        "spec": {"template": {"metadata": {"labels": {"app": "llm"}}, "spec": {"containers": [container]}}},
    }
    (target,) = diagnose(Snapshot(objects=(deployment,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "max-len-exceeds-model"]

    assert found.fixes[0].summary.endswith("in InferenceService/llama)")
    assert found.fixes[0].patch is None


@pytest.mark.parametrize(
    ("policy", "strategy", "deleted"),
    [
        ("OrderedReady", "RollingUpdate", True),
        ("Parallel", "RollingUpdate", False),
        ("Parallel", "OnDelete", True),
    ],
)
def test_a_pod_that_a_stateful_set_would_not_replace_is_deleted(policy: str, strategy: str, deleted: bool) -> None:
    case = load_case(CASES / "node-selector-mismatch" / "fires_host_of_a_stateful_set.yaml")
    (owner,) = (item for item in case.snapshot.objects if item["kind"] == "StatefulSet")
    owner["spec"] |= {"podManagementPolicy": policy, "updateStrategy": {"type": strategy}}

    (target,) = diagnose_case(case).targets

    fix = target.findings[0].fixes[0]
    assert fix.patch is not None
    assert ("kubectl -n llm delete pod llama-0" in fix.commands) == deleted


def test_a_pod_of_a_part_that_keeps_the_old_template_is_not_deleted_for_the_new_one() -> None:
    case = load_case(CASES / "node-selector-mismatch" / "fires_template_was_changed_since.yaml")
    (owner,) = (item for item in case.snapshot.objects if item["kind"] == "StatefulSet")
    owner["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}

    (target,) = diagnose_case(case).targets

    assert not target.findings[0].fixes[0].summary.startswith("Delete pod")


def _of_an_older_revision() -> tuple[Case, Json, Json]:
    """A case with a pod that was made before its StatefulSet was changed, and the specs of both."""
    case = load_case(CASES / "node-selector-mismatch" / "fires_template_was_changed_since.yaml")
    pod, owner = (next(o for o in case.snapshot.objects if o["kind"] == kind) for kind in ("Pod", "StatefulSet"))
    return case, pod["spec"], owner["spec"]


def test_a_pod_below_the_partition_gets_the_new_template_with_the_patch() -> None:
    case, pod, owner = _of_an_older_revision()
    owner["template"]["spec"]["nodeSelector"] = pod["nodeSelector"]
    owner["updateStrategy"]["rollingUpdate"] = {"partition": 2}

    (target,) = diagnose_case(case).targets

    fix = target.findings[0].fixes[0]
    assert fix.patch is not None
    lowered = {"op": "replace", "path": "/spec/updateStrategy/rollingUpdate/partition", "value": 0}
    assert lowered in fix.patch.body
    assert "(and partition 0: " in fix.summary


@pytest.mark.parametrize("changed", [True, False])
def test_what_the_api_server_fills_in_is_no_change_of_the_template(changed: bool) -> None:
    case, pod, owner = _of_an_older_revision()
    del pod["nodeSelector"]
    resources = pod["containers"][0]["resources"]
    resources["limits"] = {"memory": "600Gi", "amd.com/gpu": "8"}
    resources["requests"] = {"cpu": "60", "memory": "600Gi", "amd.com/gpu": "8"}
    if not changed:
        owner["template"]["spec"]["containers"][0]["resources"]["limits"] = dict(resources["limits"])

    (target,) = diagnose_case(case).targets

    assert target.findings[0].id == "gpu-resource-absent"
    assert target.findings[0].fixes[0].summary.startswith("Delete pod") == changed


def test_two_changes_of_a_pod_that_is_waited_for_delete_it_once() -> None:
    case, pod, owner = _of_an_older_revision()
    owner["template"]["spec"]["nodeSelector"] = pod["nodeSelector"]
    cluster = Cluster(case.snapshot)
    item = cluster.item("Pod", "llm", "llama-0")
    assert item
    one_pod = Pod.of(item, cluster)
    at = "/containers/0/resources/limits/memory"

    one = fixes.patch(one_pod, "Raise it", [{"op": "replace", "path": at, "value": "700Gi"}])
    other = fixes.set_env(one_pod.containers[0], "A", "1", "Set it")
    both = fixes.together(one, other)

    assert len(both.commands) == 2
    assert both.commands[1] == "kubectl -n llm delete pod llama-0"
    assert "700Gi" in both.commands[0]
    assert '"A"' in both.commands[0]


def test_a_pod_that_is_to_be_deleted_is_told_so_beside_another_change() -> None:
    gone = Fix(summary="Delete pod a", commands=("kubectl delete pod a",))

    assert fixes.together(gone, Fix(summary="Set it")) == gone


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--rm", "acme/model", "--gpus", "all"], ["acme/model"]),
        (["--rm", "vllm/vllm-openai:v0.11.0", "--gpus", "all", "acme/model"], ["acme/model"]),
        (["-p", "8000:8000", "-p", "9000:9000", "--gpus", "all", "acme/model"], ["acme/model"]),
    ],
)
def test_options_of_docker_run_are_taken_out_and_the_model_stays(words: list[str], left: list[str]) -> None:
    container: Json = {"name": "v", "image": "vllm/vllm-openai:v0.11.0", "command": ["vllm", "serve", *words]}
    container |= {"resources": {"limits": {"nvidia.com/gpu": 2}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    report = diagnose(Snapshot(objects=(pod,)), installed())
    patch = next(f for f in report.targets[0].findings if f.id == "engine-args-invalid").fixes[0].patch

    after = patched(Snapshot(objects=(pod,)), patch) if patch else None

    assert after
    assert after.objects[0]["spec"]["containers"][0]["command"] == ["vllm", "serve", *left]


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [("maintenance", "2026-11", "Remove"), ("hardware", "rma", "Remove"), ("team", "pharma", "Tolerate")],
)
def test_a_taint_of_a_time_is_tolerated_last(key: str, value: str, first: str) -> None:
    case = load_case(CASES / "taint-untolerated" / "fires_maintenance.yaml")
    for node in (item for item in case.snapshot.objects if item["kind"] == "Node"):
        for taint in node["spec"].get("taints", []):
            if taint["key"] == "maintenance":
                taint |= {"key": key, "value": value}

    (target,) = diagnose_case(case).targets

    assert target.findings[0].fixes[0].summary.startswith(f"{first} ")


@pytest.mark.parametrize(("owner", "told"), [("DaemonSet", True), ("Job", False)])
def test_a_taint_of_a_new_node_is_taken_away_by_a_pod_of_a_daemon_set(owner: str, told: bool) -> None:
    case = load_case(CASES / "node-not-ready" / "fires_agent_of_the_network_crashes.yaml")
    for item in case.snapshot.objects:
        for ref in item["metadata"].get("ownerReferences", []):
            ref["kind"] = owner if ref["kind"] == "DaemonSet" else ref["kind"]

    (target,) = diagnose_case(case).targets

    assert ("which is not ready: it takes the taint" in target.findings[0].fixes[0].summary) == told


@pytest.mark.parametrize("paused", [True, False])
def test_a_deployment_that_is_paused_is_resumed_for_a_patch(paused: bool) -> None:
    case = load_case(CASES / "gpu-resource-absent" / "fires_limit_of_another_vendor.yaml")
    (owner,) = (item for item in case.snapshot.objects if item["kind"] == "Deployment")
    owner["spec"]["paused"] = paused

    (target,) = diagnose_case(case).targets

    commands = target.findings[0].fixes[0].commands
    assert ("kubectl -n llm rollout resume deployment/llama" in commands) == paused


@pytest.mark.parametrize(
    ("requests", "removed"),
    [({"cpu": "8"}, []), ({"cpu": "8", "nvidia.com/gpu": "4"}, [{"op": "remove", "path": "requests/nvidia.com~1gpu"}])],
)
def test_a_request_that_the_api_server_made_of_the_limit_is_not_in_the_template(
    requests: dict[str, str], removed: list[dict[str, str]]
) -> None:
    case = load_case(CASES / "gpu-resource-absent" / "fires_limit_of_another_vendor.yaml")
    (deployment,) = (item for item in case.snapshot.objects if item["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] = requests

    (target,) = diagnose_case(case).targets

    patch = target.findings[0].fixes[0].patch
    assert patch is not None
    at = "/spec/template/spec/containers/0/resources/"
    gone = [{**op, "path": op["path"].removeprefix(at)} for op in patch.body if op["op"] == "remove"]
    assert gone == [{"op": "remove", "path": "limits/nvidia.com~1gpu"}, *removed]


@pytest.mark.parametrize(
    ("labels", "patched"),
    [({"ray.io/cluster": "mine"}, True), ({"serving.kserve.io/inferenceservice": "llama"}, False)],
)
def test_a_label_that_people_set_themselves_names_no_maker(labels: dict[str, str], patched: bool) -> None:
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--max-model-len=131072", "--model=Qwen/Qwen3-8B"],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llama", "namespace": "prod", "labels": labels},
        "spec": {"template": {"metadata": {"labels": {"app": "llm"}}, "spec": {"containers": [container]}}},
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-5d9c", "uid": "u1", "controller": True}
    waiting = {"name": "vllm", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "llama-5d9c-x2k4q",
            "namespace": "prod",
            "labels": {"pod-template-hash": "5d9c", "app": "llm"},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "gpu-1", "containers": [container]},
        "status": {
            "phase": "Running",
            "containerStatuses": [waiting | {"lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
        },
    }
    (target,) = diagnose(Snapshot(objects=(deployment, pod)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "max-len-exceeds-model"]

    assert (found.fixes[0].patch is not None) is patched


@pytest.mark.parametrize(
    ("case", "command"),
    [
        ("kai_limit_of_a_known_queue", "kubectl patch queue.scheduling.run.ai/team-b "),
        ("volcano_queue_lacks_cpus", "kubectl patch queue.scheduling.volcano.sh/serving "),
        ("kueue_quota_of_a_known_queue", "kubectl patch clusterqueue.kueue.x-k8s.io/cq "),
    ],
)
def test_a_queue_of_the_whole_cluster_has_no_namespace(case: str, command: str) -> None:
    cases = Path(__file__).parents[1] / "checks" / "cases" / "quota-exceeded"
    report = diagnose_case(load_case(cases / f"fires_{case}.yaml"))
    finding = next(f for f in report.targets[0].findings if f.id == "quota-exceeded")

    assert finding.fixes[0].commands[0].startswith(command)


def test_several_flags_are_words_as_the_parser_takes_them() -> None:
    server = {"name": "s", "image": "ghcr.io/ggml-org/llama.cpp:server", "args": ["-m", "/models/a.gguf"]}
    template = {"spec": {"containers": [server]}}
    item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llm", "namespace": "a"}}
    cluster = Cluster(Snapshot(taken_at="2026-11-20T10:00:00Z", objects=({**item, "spec": {"template": template}},)))
    found = cluster.item("Deployment", "a", "llm")
    assert found is not None
    (engine,) = engines_of(Pod.planned(Workload(found, cluster))[0], Logs([]))
    made = fixes.set_flags(engine, [("x", "--ctx-size", "8192"), ("y", "--no-mmap", "")], "Set both")
    assert made.patch is not None
    assert [one["value"] for one in made.patch.body] == ["--ctx-size", "8192", "--no-mmap"]


def test_options_stand_behind_a_command_that_has_all_words() -> None:
    engine = _made(image="lmsysorg/sglang:v0.5.5", command=["python3", "-m", "sglang.launch_server", "--tp", "1"])
    made = fixes.set_flags(engine, [("tensor_parallel_size", "--tp-size", "2"), ("x", "--x", "3")], "Both", gpus="2")
    assert made.patch is not None
    assert [
        (one["path"].rpartition("server")[2].rpartition("containers/0/")[2], one["value"])
        for one in made.patch.body[:3]
    ] == [
        ("command/4", "2"),
        ("command/-", "--x=3"),
        ("resources/limits/nvidia.com~1gpu", "2"),
    ]


def test_variables_of_two_changes_are_one_list() -> None:
    engine = _made(image="vllm/vllm-openai:v0.11.0", args=["--model", "a/b"])
    one = fixes.set_env(engine.container, "A", "1", "Set A")
    made = fixes.together(one, fixes.set_env(engine.container, "B", "2", "Set both"))
    assert made.patch is not None
    assert [entry["name"] for operation in made.patch.body for entry in operation["value"]] == ["A", "B"]


def _scripted(script: str) -> Engine:
    return _made(image="vllm/vllm-openai:v0.11.0", command=["/bin/bash", "-c"], args=[script])


def _made(**what: object) -> Engine:
    container = {"name": "server", "resources": {"limits": {"nvidia.com/gpu": "1"}}, **what}
    cluster = Cluster(Snapshot(objects=(_deployment(container),)))
    (pod,) = Pod.planned(Workload(next(cluster.items("Deployment")), cluster))
    (engine,) = engines_of(pod, Logs([]))
    return engine


_START = (
    "set -e\nexec python3 -m vllm.entrypoints.openai.api_server \\\n  --model Qwen/Qwen3-8B \\\n  --max-model-len {}"
)


@pytest.mark.parametrize(
    ("name", "flag", "value", "after"),
    [
        ("max_model_len", "--max-model-len", "8192", _START.format("8192 \\\n  --port 8000")),
        (
            "enforce_eager",
            "--enforce-eager",
            "",
            _START.format("65536 \\\n  --port 8000 --enforce-eager"),
        ),
        ("port", "--port", "8080", _START.format("65536 \\\n  --port 8080")),
    ],
)
def test_an_option_in_a_start_script_is_changed_there(name: str, flag: str, value: str, after: str) -> None:
    engine = _scripted(_START.format("65536 \\\n  --port 8000"))
    fix = fixes.set_flag(engine, name, flag, value, "Change it")

    assert fix.patch
    assert [(op["path"], op["value"]) for op in fix.patch.body] == [
        ("/spec/template/spec/containers/0/args/0", after),
    ]


@pytest.mark.parametrize(
    "script",
    [
        # which of the two runs nobody knows
        'if [ "$X" ]; then exec vllm serve Qwen/Qwen3-8B --max-model-len 65536; fi; exec vllm serve Qwen/Qwen3-8B --max-model-len 65536',
        # a variable that the script may use elsewhere
        "LEN=65536; exec vllm serve Qwen/Qwen3-8B --max-model-len ${LEN}",
        # quotation marks that would have to be kept
        "exec bash -c 'vllm serve Qwen/Qwen3-8B --max-model-len 65536'",
        # the snapshot has no token, so that a patch of the script would put the mask in its place
        "hf auth login --token <masked:hf-token>; exec vllm serve Qwen/Qwen3-8B --max-model-len 65536 --port 8000",
        # another engine that may be meant
        "vllm serve A/A --max-model-len 65536 --port 8000 & vllm serve B/B --max-model-len 32768 --port 8001 & wait",
    ],
)
def test_a_script_that_is_not_plain_is_left_to_a_person(script: str) -> None:
    engine = _scripted(script)

    assert fixes.set_flag(engine, "max_model_len", "--max-model-len", "8192", "Change it").patch is None


@pytest.mark.parametrize(
    ("script", "after"),
    [
        (
            "vllm serve Q/Q --port 8000 2>&1 | tee /logs/vllm",
            "vllm serve Q/Q --port 8000 --enforce-eager 2>&1 | tee /logs/vllm",
        ),
        (
            "vllm serve Q/Q --port 8000 > /logs/vllm &\nwait",
            "vllm serve Q/Q --port 8000 --enforce-eager > /logs/vllm &\nwait",
        ),
        # each branch starts an engine, and one of them alone would get it
        ('if [ "$X" ]; then vllm serve Q/Q --port 8000; else vllm serve Q/Q --port 8001; fi', None),
        # more values, or options that only the shell knows
        ("vllm serve Q/Q --served-model-name \\\n q", None),
        ('vllm serve Q/Q --port 8000 "$@"', None),
    ],
)
def test_a_new_option_stands_behind_another_one(script: str, after: str | None) -> None:
    fix = fixes.set_flag(_scripted(script), "enforce_eager", "--enforce-eager", "", "Change it")

    assert (fix.patch.body[0]["value"] if fix.patch else None) == after


def test_a_switch_is_taken_out_without_the_word_behind_it() -> None:
    engine = _scripted("vllm serve --trust-remote-code Qwen/Qwen3-8B --port 8000")
    place = stating.stated(engine.container, "--trust-remote-code", engine)

    assert place
    assert stating.without(engine.container, place, "Remove it").patch is None


def test_the_difference_of_long_texts_is_what_they_have_apart() -> None:
    script = _START.format("65536 \\\n  --port 8000")
    fix = fixes.set_flag(_scripted(script), "max_model_len", "--max-model-len", "8192", "Change it")

    assert fix.patch
    assert [line.partition(": ")[2] for line in fix.patch.diff] == [
        "… \\ --max-model-len 65536 …",
        "… \\ --max-model-len 8192 …",
    ]


def test_an_option_is_taken_out_of_a_start_script() -> None:
    engine = _scripted(_START.format("65536"))
    fix = fixes.remove_flag(engine, "max_model_len", "Remove it")

    assert fix.patch
    assert "--max-model-len" not in fix.patch.body[0]["value"]
    assert fix.patch.body[0]["value"].endswith("--model Qwen/Qwen3-8B \\\n  ")


def test_the_context_of_llama_server_is_no_script_of_a_shell() -> None:
    engine = _made(image="ghcr.io/ggml-org/llama.cpp:server-cuda-b6510", args=["-m", "/m.gguf", "-c", "32768"])
    fix = fixes.set_flag(engine, "max_model_len", "--ctx-size", "8192", "Change it")

    assert fix.patch
    assert [(op["path"], op["value"]) for op in fix.patch.body] == [("/spec/template/spec/containers/0/args/3", "8192")]


@pytest.mark.parametrize("value", ["$(id)", '{"a": 1}', "a;b", "a b"])
def test_what_needs_quotes_stands_in_no_variable_that_a_shell_reads(value: str) -> None:
    case = load_case(Path(__file__).parents[1] / "checks/cases/kv-cache-no-room/fires_arguments_of_a_variable.yaml")
    cluster = Cluster(case.snapshot)
    (service,) = cluster.items("LLMInferenceService")
    (engine,) = engines_of(Pod.planned(Workload(service, cluster))[0], Logs([]))

    assert fixes.set_flag(engine, "max_num_seqs", "--max-num-seqs", "8", "Change it").patch
    assert fixes.set_flag(engine, "max_num_seqs", "--max-num-seqs", value, "Change it").patch is None


def test_an_option_is_added_to_a_command_that_has_all_words() -> None:
    command = ["python3", "-m", "sglang.launch_server", "--model-path", "Qwen/Qwen3-8B"]
    engine = _made(image="lmsysorg/sglang:v0.5.9", command=command)
    fix = fixes.set_flag(engine, "page_size", "--page-size", "64", "Change it")

    assert fix.patch
    assert fix.patch.body[0]["path"] == "/spec/template/spec/containers/0/command/-"


_WORKERS = ["--model=acme/llm", "--nnodes=2", "--node-rank=$(LWS_WORKER_INDEX)", "--tp=16"]


@pytest.mark.parametrize(
    ("worker", "changed"),
    [
        ({"args": _WORKERS}, ["leaderTemplate", "workerTemplate"]),
        ({"args": ["--join"]}, ["leaderTemplate"]),
        ({"args": _WORKERS, "image": "acme/helper:1"}, ["leaderTemplate"]),
        ({"args": ["--model=acme/llm"], "command": ["join"]}, ["leaderTemplate"]),
        ({"args": ["--headless", "--tp=16"], "command": ["join"]}, ["leaderTemplate", "workerTemplate"]),
        ({"args": ["--tp=16", "--tp=16"]}, ["leaderTemplate"]),
    ],
)
def test_all_ranks_of_a_group_are_patched_where_they_are_started_alike(worker: object, changed: list[str]) -> None:
    image = "lmsysorg/sglang:v0.5.3"
    leader = {"name": "leader", "image": image, "args": _WORKERS, "readinessProbe": {"tcpSocket": {"port": 30000}}}
    others = {"name": "worker", "image": image} | worker  # type: ignore[operator]
    of_group = {
        "size": 2,
        "leaderTemplate": {"spec": {"containers": [leader]}},
        "workerTemplate": {"spec": {"containers": [others]}},
    }
    group = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "llm", "namespace": "n"},
        "spec": {"leaderWorkerTemplate": of_group},
    }
    cluster = Cluster(Snapshot(objects=(group,)))
    item = next(cluster.items("LeaderWorkerSet"))
    first = next(pod for pod in Pod.planned(Workload(item, cluster)) if pod.containers[0].name == "leader")
    words = [{"op": "replace", "path": "/containers/0/args/3", "value": "--tp=8"}]
    probe = [{"op": "add", "path": "/containers/0/readinessProbe/tcpSocket/port", "value": 30001}]

    made = fixes.patch(first, "", words).patch
    assert made
    assert [operation["path"].split("/")[3] for operation in made.body] == changed
    alone = fixes.patch(first, "", probe).patch
    assert alone
    assert [operation["path"].split("/")[3] for operation in alone.body] == ["leaderTemplate"]


@pytest.mark.parametrize("listens", [["--host", "::", "--port", "40000"], ["--host=0.0.0.0", "--port=40000"]])
def test_an_option_comes_behind_all_ranks_though_the_first_one_has_the_port(listens: list[str]) -> None:
    pod = _group("LeaderWorkerSet", {"args": [*_WORKERS, *listens]}, {"args": _WORKERS})
    made = fixes.patch(pod, "", [{"op": "add", "path": "/containers/0/args/-", "value": "--context-length=32768"}])

    assert made.patch
    changed = [operation["path"].split("/")[3] for operation in made.patch.body]
    assert changed == ["leaderTemplate", "workerTemplate"]


_SERVE = "vllm serve acme/llm --tensor-parallel-size 8 --max-model-len 65536"


def _group(kind: str, leader: dict[str, Any], worker: dict[str, Any]) -> Pod:
    """The first pod of a server of two nodes, as its object plans it."""
    first, others = (
        {"spec": {"containers": [{"name": "main", "image": "acme/vllm:1", **c}]}} for c in (leader, worker)
    )
    version, spec = {
        "LeaderWorkerSet": (
            "leaderworkerset.x-k8s.io/v1",
            {"leaderWorkerTemplate": {"size": 2, "leaderTemplate": first, "workerTemplate": others}},
        ),
        "LLMInferenceService": (
            "serving.kserve.io/v1alpha1",
            {"template": first["spec"], "worker": others["spec"], "prefill": {"template": first["spec"]}},
        ),
        "ModelServing": (
            "workload.serving.volcano.sh/v1alpha1",
            {
                "template": {
                    "roles": [{"name": n, "entryTemplate": first, "workerTemplate": others} for n in ("large", "small")]
                }
            },
        ),
        "JobSet": (
            "jobset.x-k8s.io/v1alpha2",
            {
                "replicatedJobs": [
                    {"name": name, "template": {"spec": {"template": one}}}
                    for name, one in (("leader", first), ("worker", others))
                ]
            },
        ),
        "PyTorchJob": (
            "kubeflow.org/v1",
            {"pytorchReplicaSpecs": {"Master": {"template": first}, "Worker": {"template": others}}},
        ),
    }[kind]
    raw = {"apiVersion": version, "kind": kind, "metadata": {"name": "llm", "namespace": "n"}, "spec": spec}
    cluster = Cluster(Snapshot(objects=(raw,)))
    return Pod.planned(Workload(next(cluster.items(kind)), cluster))[0]


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("LeaderWorkerSet", ["leaderTemplate", "workerTemplate"]),
        ("LLMInferenceService", ["template", "worker"]),
        ("ModelServing", ["roles/0/entryTemplate", "roles/0/workerTemplate"]),
    ],
)
def test_the_pods_of_one_server_get_what_its_first_one_gets(kind: str, places: list[str]) -> None:
    words = _SERVE.split()
    first = {"command": words[:2], "args": [*words[2:], "--node-rank", "0"]}
    others = {"command": words[:2], "args": [*words[2:], "--node-rank", "1", "--headless"]}
    pod = _group(kind, first, others)
    at = "/containers/0/args"

    def changed(operation: dict[str, object]) -> list[str]:
        made = fixes.patch(pod, "", [operation]).patch
        return [place for place in places for op in (made.body if made else ()) if f"/{place}/" in op["path"]]

    assert changed({"op": "replace", "path": f"{at}/4", "value": "8192"}) == places
    assert changed({"op": "add", "path": f"{at}/-", "value": "--trust-remote-code"}) == places
    assert changed({"op": "add", "path": "/containers/0/env", "value": [{"name": "A", "value": "b"}]}) == places
    assert changed({"op": "replace", "path": f"{at}/6", "value": "3"}) == places[:1]
    made = fixes.patch(pod, "", [{"op": "remove", "path": f"{at}/{n}"} for n in (4, 3)]).patch
    assert made
    assert len(made.body) == 4


@pytest.mark.parametrize(
    ("worker", "after"),
    [
        (
            f"sleep 5; exec {_SERVE} --headless",
            "sleep 5; exec vllm serve acme/llm --tensor-parallel-size 8 --max-model-len 8192 --headless",
        ),
        ("ray start --address $(LWS_LEADER_ADDRESS):6379 --block", ""),
        (f"{_SERVE}; {_SERVE}", ""),
        # the mask would take the place of the real token
        (f"hf auth login --token <masked:hf-token>; {_SERVE} --headless", ""),
    ],
)
def test_a_script_of_another_rank_is_changed_where_it_says_the_same_once(worker: str, after: str) -> None:
    pod = _group(
        "LeaderWorkerSet", {"command": ["sh", "-c"], "args": [_SERVE]}, {"command": ["sh", "-c"], "args": [worker]}
    )
    new = _SERVE.replace("65536", "8192")
    made = fixes.patch(pod, "", [{"op": "replace", "path": "/containers/0/args/0", "value": new}]).patch

    assert made
    assert [op["value"] for op in made.body] == [new, after][: 1 + bool(after)]


def test_all_ranks_get_another_model() -> None:
    shell = ["sh", "-c"]
    pods = (
        _group("LeaderWorkerSet", {"command": shell, "args": [_SERVE]}, {"command": shell, "args": [f"{_SERVE} -x"]}),
        _group(
            "LeaderWorkerSet",
            {"command": ["vllm"], "args": ["serve", "acme/llm"]},
            {"command": ["vllm"], "args": ["serve", "acme/llm", "-x"]},
        ),
    )
    for pod, at, value in zip(pods, (0, 1), (_SERVE.replace("acme/llm", "acme/chat"), "acme/chat"), strict=True):
        made = fixes.patch(pod, "", [{"op": "replace", "path": f"/containers/0/args/{at}", "value": value}]).patch

        assert made
        assert ["acme/chat" in str(op["value"]) for op in made.body] == [True, True]


@pytest.mark.parametrize(
    ("kind", "worker", "where"),
    [
        ("JobSet", {"args": _WORKERS}, "leader and worker of JobSet/llm, which"),
        ("PyTorchJob", {"args": _WORKERS}, "Master and Worker of PyTorchJob/llm, which"),
        ("JobSet", {"args": ["--join"]}, "in JobSet/llm, which"),
    ],
)
def test_the_ranks_of_a_job_are_named_that_say_the_same(kind: str, worker: dict[str, Any], where: str) -> None:
    pod = _group(kind, {"args": _WORKERS}, worker)
    fix = fixes.patch(pod, "Set it", [{"op": "replace", "path": "/containers/0/args/3", "value": "--tp=8"}])

    assert fix.patch is None
    assert where in fix.summary


@pytest.mark.parametrize(
    ("script", "after"),
    [
        ("exec vllm serve Q/Q --port 8000", "exec vllm serve Q/Q --port 8000 --trust-remote-code"),
        ("vllm serve Q/Q", "vllm serve Q/Q --trust-remote-code"),
        ("vllm serve Q/Q $ARGS", None),
        ("vllm serve Q/Q & vllm serve Q/Q", None),
    ],
)
def test_a_switch_that_is_lacking_comes_into_the_start_script(script: str, after: str | None) -> None:
    engine = _scripted(script)
    fix = stating.put(engine.container, engine, "--trust-remote-code", "", "Trust it")

    assert (fix.patch.body[0]["value"] if fix.patch else None) == after


def test_one_more_name_comes_into_the_start_script() -> None:
    fix = stating.serving_as(_scripted("vllm serve Q/Q --served-model-name=one --port 8000"), "two")

    assert fix
    assert fix.patch
    assert fix.patch.body[0]["value"] == "vllm serve Q/Q --served-model-name one two --port 8000"


@pytest.mark.parametrize(("of_head", "changed"), [({}, 1), ({"limits": {"nvidia.com/gpu": 1}}, 2)])
def test_a_head_without_gpus_gets_no_runtime_class_for_them(of_head: object, changed: int) -> None:
    def spec(resources: object) -> dict[str, object]:
        return {"spec": {"containers": [{"name": "ray", "image": "rayproject/ray-llm:2.46.0", "resources": resources}]}}

    worker = {"groupName": "gpu", "template": spec({"limits": {"nvidia.com/gpu": 1}})}
    ray = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "llm", "namespace": "n"},
        "spec": {"headGroupSpec": {"template": spec(of_head)}, "workerGroupSpecs": [worker]},
    }
    cluster = Cluster(Snapshot(objects=(ray,)))
    pods = Pod.planned(Workload(next(cluster.items("RayCluster")), cluster))
    pod = next(pod for pod in pods if pod.template and "worker" in str(pod.template.at("")))

    made = fixes.set_spec(pod, "/runtimeClassName", "nvidia", "").patch
    assert made
    assert len(made.body) == changed
    assert "workerGroupSpecs" in made.body[0]["path"]


def test_a_probe_that_the_object_does_not_state_is_set_as_a_whole() -> None:
    report = diagnose_case(
        load_case(Path(__file__).parents[1] / "checks/cases" / "probe-path-wrong/fires_probe_of_a_runtime.yaml")
    )
    (fix, *_) = next(f for target in report.targets for f in target.findings if f.id == "probe-path-wrong").fixes

    assert fix.patch
    (operation,) = fix.patch.body
    assert operation["path"] == "/spec/predictor/model/readinessProbe"
    whole = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10, "failureThreshold": 4}
    assert operation["value"] == whole


def test_a_probe_with_a_masked_header_is_not_written_over() -> None:
    case = load_case(Path(__file__).parents[1] / "checks/cases" / "probe-path-wrong/fires_probe_of_a_runtime.yaml")
    pod = next(one for one in case.snapshot.objects if one["kind"] == "Pod")
    probe = pod["spec"]["containers"][0]["readinessProbe"]
    probe["httpGet"]["httpHeaders"] = [{"name": "Authorization", "value": "<masked:token>"}]
    report = diagnose_case(case)
    (fix, *_) = next(f for target in report.targets for f in target.findings if f.id == "probe-path-wrong").fixes

    assert fix.patch is None
    assert "readinessProbe.httpGet.path: /health" in fix.summary


def test_a_variable_of_dynamo_is_changed_where_it_stands() -> None:
    main = {"image": "vllm/vllm-openai:v0.11.0", "args": ["--model=m"], "env": [{"name": "OWN", "value": "1"}]}
    service = {
        "componentType": "worker",
        "envs": [{"name": "OWN", "value": "2"}, {"name": "HF_HUB_OFFLINE", "value": "1"}],
        "extraPodSpec": {"mainContainer": main},
    }
    raw = {
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": "llm", "namespace": "n"},
        "spec": {"envs": [{"name": "OF_ALL", "value": "3"}], "services": {"Worker": service}},
    }
    cluster = Cluster(Snapshot(objects=(raw,)))
    container = Pod.planned(Workload(next(cluster.items("DynamoGraphDeployment")), cluster))[0].containers[0]
    paths = {
        name: fix.patch.body[0]["path"]
        for name in ("OWN", "HF_HUB_OFFLINE", "OF_ALL")
        if (fix := fixes.set_env(container, name, "0", "Set it")).patch
    }

    assert paths == {
        "OWN": "/spec/services/Worker/extraPodSpec/mainContainer/env/0",
        "HF_HUB_OFFLINE": "/spec/services/Worker/envs/1",
        "OF_ALL": "/spec/envs/0",
    }

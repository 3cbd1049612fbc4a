"""What a report advises is what would help in this very case: no harm, no word of another engine, nothing that cannot be run."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from kubectl_llmdoctor.advice import situation
from kubectl_llmdoctor.advice.occurrence import Occurrence
from kubectl_llmdoctor.advice.templates import fill
from kubectl_llmdoctor.catalog.models import with_owner
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.engines.names import TITLES
from kubectl_llmdoctor.facts.pulled import released
from kubectl_llmdoctor.packs import installed, signature_of
from kubectl_llmdoctor.report.document import Finding, Fix
from kubectl_llmdoctor.room import enough
from kubectl_llmdoctor.snapshot import LogText, Snapshot
from kubectl_llmdoctor.testing import diagnose_case, load_case

CHECKS = Path(__file__).parent.parent / "checks" / "llmdoctor_checks"
CASES = Path(__file__).parent.parent / "checks" / "cases"
DEAD = {
    "restartCount": 3,
    "ready": False,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T09:59:00Z"}},
}


def _pod(container: dict[str, Any], status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    name = container.setdefault("name", "vllm")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving", "creationTimestamp": "2026-11-20T09:00:00Z"},
        "spec": {"nodeName": "gpu-1", "containers": [container], **spec},
        "status": {"phase": "Running", "containerStatuses": [{"name": name, **(status or DEAD)}]},
    }


def _node(memory: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "gpu-1"},
        "status": {"allocatable": {"memory": memory, "cpu": "32"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _findings(*objects: dict[str, Any], log: str = "") -> dict[str, Finding]:
    container = objects[0]["spec"]["containers"][0]["name"]
    text = LogText(text=log, namespace="serving", pod="llama-0", container=container, previous=True)
    snapshot = Snapshot(objects=objects, logs=(text,) if log else (), taken_at="2026-11-20T10:00:00Z")
    return {f.id: f for target in diagnose(snapshot, installed()).targets for f in target.findings}


def _of_case(id: str, name: str) -> tuple[Fix, ...]:
    report = diagnose_case(load_case(CASES / id / f"{name}.yaml"))
    return next(f.fixes for target in report.targets for f in target.findings if f.id == id)


def _commands(fixes: tuple[Fix, ...]) -> str:
    return "\n".join(command for fix in fixes for command in fix.commands)


@pytest.mark.parametrize(
    ("limit", "allocatable", "said"),
    [
        ("24Gi", "250Gi", "for example to 48Gi"),
        ("24Gi", "", "for example to 48Gi"),
        ("24Gi", "30Gi", "choose a node with more: of gpu-1's 30 GiB vllm may use 24 GiB already"),
        ("200Gi", "500Gi", "for example to 300Gi"),
        ("1536Gi", "", "as far as its node has memory"),
    ],
)
def test_a_memory_limit_is_raised_to_what_the_node_has_at_most(limit: str, allocatable: str, said: str) -> None:
    killed = DEAD | {
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-20T09:59:00Z"}}
    }
    pod = _pod({"image": "vllm/vllm-openai:v0.11.0", "resources": {"limits": {"memory": limit}}}, killed)
    found = _findings(pod, *([_node(allocatable)] if allocatable else []))

    assert said in found["oomkilled-host"].fixes[0].summary


@pytest.mark.parametrize(
    ("case", "summary"),
    [
        ("fires_prompt_cache", "Have the prompt cache keep 2048 MiB at most"),
        ("fires_prompt_cache_of_ollama", "Have the prompt cache keep 768 MiB at most in each runner"),
    ],
)
def test_a_prompt_cache_larger_than_the_memory_is_made_smaller_first(case: str, summary: str) -> None:
    first, second = _of_case("oomkilled-host", case)[:2]

    assert first.summary.startswith(summary)
    assert second.summary.startswith("Raise the memory limit")


@pytest.mark.parametrize("limit", ["16Gi", "64Gi"])
def test_a_prompt_cache_that_fits_is_not_spoken_of(limit: str) -> None:
    killed = DEAD | {
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-20T09:59:00Z"}}
    }
    container = {
        "image": "ghcr.io/ggml-org/llama.cpp:server",
        "args": ["-m", "/m.gguf", "--cache-ram", "2048"],
        "resources": {"limits": {"memory": limit}},
    }
    found = _findings(_pod(container, killed), log="srv prompt_save:  - saving prompt with length 11, total\n")

    assert "prompts" not in found["oomkilled-host"].summary


def test_an_error_after_which_nothing_is_asked_for_takes_no_node_out_of_service() -> None:
    fixes = _of_case("xid-error", "fires_possible_ignored")

    assert len(fixes) == 1
    assert "cordon" not in _commands(fixes)
    assert "nothing after this Xid" in fixes[0].summary


def test_ollama_without_rocm_gets_the_image_that_has_it() -> None:
    (fix,) = _of_case("cpu-only-image", "fires_ollama_image_without_rocm")

    assert "ollama/ollama:0.1.29-rocm" in str(fix)


def test_a_path_of_libraries_keeps_what_else_is_in_it() -> None:
    fixes = _of_case("cuda-compat-mismatch", "fires_library_path_with_others")

    assert "/usr/local/nvidia/lib64:" in fixes[0].summary
    assert ":/opt/amazon/efa/lib:" in fixes[0].summary
    assert "LD_LIBRARY_PATH=/usr/local/cuda/compat" not in fixes[0].summary
    assert all("branch 580" not in fix.summary for fix in fixes)  # the node's driver is of that branch


@pytest.mark.parametrize(
    ("id", "name", "words", "first"),
    [
        ("shm-too-small", "fires_offload_larger_than_the_volume", "Mount a memory-backed emptyDir", True),
        ("shm-too-small", "fires_offload_beside_what_is_left", "Mount a memory-backed emptyDir", False),
        ("oomkilled-shm", "fires_offload_of_a_hybrid_model", "Offload less", True),
        ("oomkilled-shm", "fires_beside_a_small_offload", "Offload less", False),
        ("illegal-memory-access", "fires_large_physical_batch", "Take the physical batch back", True),
        ("illegal-memory-access", "fires_usual_physical_batch", "Take the physical batch back", False),
        ("kv-transfer-failed", "fires_nixl_without_telemetry", "Set NIXL_TELEMETRY_ENABLE", True),
        ("kv-transfer-failed", "fires_nixl_fails_for_another_reason", "Set NIXL_TELEMETRY_ENABLE", False),
        ("kv-transfer-failed", "fires_memory_in_pieces", "Remove expandable_segments:True", True),
        ("kv-transfer-failed", "fires_memory_in_one_piece", "Remove expandable_segments:True", False),
        ("oomkilled-host", "fires_kuberay_waits_for_the_head", "Have KubeRay add no wait-gcs-ready", True),
        ("oomkilled-host", "fires_waits_by_a_container_of_its_own", "Have KubeRay add no wait-gcs-ready", False),
        ("nccl-ib", "fires_last_error_without_efa", "Give vllm the EFA devices", True),
        ("nccl-ib", "fires_last_error_of_the_plugin", "Give server the EFA devices", False),
        ("multinode-discovery", "fires_side_channel_of_the_head", "Set VLLM_NIXL_SIDE_CHANNEL_HOST", True),
        ("multinode-discovery", "fires_foreign_address", "Set VLLM_NIXL_SIDE_CHANNEL_HOST", False),
        ("port-in-use", "fires_port_of_a_kv_connector", "Give kv_port", True),
        ("port-in-use", "fires_side_channel_of_nixl", "Give kv_port", False),
        ("scheduling-gated", "fires_release_of_grove_that_keeps_the_gate", "Take Grove back", True),
        ("scheduling-gated", "fires_first_pods_of_that_release_of_grove", "Take Grove back", False),
        ("kv-cache-saturated", "fires_weights_leave_room_for_one", "Give server 2 GPUs", True),
        ("kv-cache-saturated", "fires_cache_holds_several_requests", "Give server 2 GPUs", False),
        ("nccl-timeout", "fires_first_operation", "Try it without peer-to-peer", True),
        ("nccl-timeout", "fires_first_operation_of_all_but_one", "Try it without peer-to-peer", False),
    ],
)
def test_what_the_line_or_the_settings_single_out_comes_first(id: str, name: str, words: str, first: bool) -> None:
    fixes = _of_case(id, name)

    assert fixes[0].summary.startswith(words) is first
    assert any(words in fix.summary for fix in fixes) is first


def test_a_node_that_was_rebooted_is_not_deleted() -> None:
    (rebooted,) = _of_case("node-lost", "fires_rebooted")
    (silent,) = _of_case("node-lost", "fires_unreachable")

    assert "Find out what rebooted" in rebooted.summary
    assert "delete its Node object" in silent.summary
    assert "delete" not in _commands((rebooted, silent))


def test_a_disruption_budget_is_no_help_against_what_takes_the_machine() -> None:
    (spot,) = _of_case("node-drained", "fires_spot")
    (shutdown,) = _of_case("node-drained", "fires_shutdown")
    (descheduled,) = _of_case("node-drained", "fires_descheduler_again_and_again")

    assert "no PodDisruptionBudget holds a spot machine" in spot.summary
    assert "DisruptionBudget" not in shutdown.summary
    assert "protect it with a PodDisruptionBudget" in descheduled.summary


def _case(id: str, name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((CASES / id / f"{name}.yaml").read_text())
    return tree


def test_a_label_that_is_measured_is_not_written_by_hand() -> None:
    tree = _case("node-selector-mismatch", "fires_product_misspelt")
    objects = tree["objects"]
    node = next(o for o in objects if o["kind"] == "Node")
    pod = next(o for o in objects if o["kind"] == "Pod" and o["spec"].get("nodeSelector"))
    node["metadata"]["labels"]["kubernetes.io/arch"] = "arm64"
    pod["spec"]["nodeSelector"] = {"kubernetes.io/arch": "amd64"}
    report = diagnose(Snapshot(objects=tuple(objects), taken_at=tree["takenAt"]), installed())
    found = next(f for t in report.targets for f in t.findings if f.id == "node-selector-mismatch")

    assert "the image must have a variant for it" in found.fixes[0].summary
    assert "kubectl label" not in _commands(found.fixes)


def test_another_kind_of_device_is_no_device_class_to_name_instead() -> None:
    tree = _case("dra-claim-pending", "fires_class_missing")
    text = yaml.safe_dump(tree["objects"])
    missing = next(
        r["deviceClassName"]
        for o in tree["objects"]
        if o["kind"] == "ResourceClaimTemplate"
        for r in (x.get("exactly", x) for x in o["spec"]["spec"]["devices"]["requests"])
    )
    text = text.replace(missing, "gpu.nvidia.com.wanted").replace(
        "gpu.nvidia.com\n", "compute-domain-daemon.nvidia.com\n"
    )
    objects = yaml.safe_load(text.replace("gpu.nvidia.com.wanted", "gpu.nvidia.com"))
    report = diagnose(Snapshot(objects=tuple(objects), taken_at=tree["takenAt"]), installed())
    found = next(f for t in report.targets for f in t.findings if f.id == "dra-claim-pending")

    assert "resources.gpus.enabled=true" in found.fixes[0].summary
    assert not any("Name compute-domain" in fix.summary for fix in found.fixes)


@pytest.mark.parametrize(
    ("image", "args", "said"),
    [
        ("vllm/vllm-openai:v0.11.0", ["--help"], None),
        ("ghcr.io/ggml-org/llama.cpp:server", ["--version"], None),
        ("vllm/vllm-openai:v0.19.0", ["--enable-metrics"], "no option --enable-metrics, which is SGLang's."),
        (
            "lmsysorg/sglang:v0.5.5",
            ["--model-path=m", "--max-model-len=8192"],
            "no option --max-model-len, which is vLLM's name for --context-length.",
        ),
        ("vllm/vllm-openai:v0.11.0", ["--max-model-le=8192", "--max-nun-seqs=8"], "the nearest is --max-num-seqs."),
    ],
)
def test_an_option_that_is_refused_is_explained(image: str, args: list[str], said: str | None) -> None:
    found = _findings(_pod({"image": image, "args": args})).get("engine-args-invalid")

    assert (found is None) == (said is None)
    assert found is None or said is None or found.summary.endswith(said)


@pytest.mark.parametrize(
    ("image", "command", "said"),
    [
        (
            "vllm/vllm-openai:v0.11.0",
            ["vllm", "serve", "m", "--max-model-len=4096"],
            "Raise --max-model-len from 4096 to 12288",
        ),
        (
            "lmsysorg/sglang:v0.5.5",
            ["python3", "-m", "sglang.launch_server", "--model-path", "m", "--context-length", "4096"],
            "Raise --context-length from 4096 to 12288",
        ),
        ("ghcr.io/huggingface/text-generation-inference:3.3.4", [], "Raise --max-total-tokens from 4096 to 12288"),
        # it takes all that the model does
        (
            "vllm/vllm-openai:v0.11.0",
            ["vllm", "serve", "m"],
            "4904 tokens less: prompt and answer (max_tokens) have 4096",
        ),
    ],
)
def test_advice_names_the_option_of_the_engine_that_runs(image: str, command: list[str], said: str) -> None:
    serving = {"restartCount": 0, "ready": True, "state": {"running": {"startedAt": "2026-11-20T09:00:00Z"}}}
    pod = _pod({"image": image, "command": command}, serving)
    log = LogText(
        text="ValueError: This model's maximum context length is 4096 tokens. However, you requested 9000 tokens\n",
        namespace="serving",
        pod="llama-0",
        container="vllm",
    )
    report = diagnose(Snapshot(objects=(pod,), logs=(log,), taken_at="2026-11-20T10:00:00Z"), installed())
    found = next(f for t in report.targets for f in t.findings if f.id == "request-too-long")

    assert said in found.fixes[0].summary


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("get_repo_files: error: GET failed (429): Too Many Requests", "Give vllm a token"),
        ("get_repo_files: error: GET failed (502): Bad Gateway", "see whether the hub has an outage"),
        ("curl: (6) Could not resolve host: huggingface.co", "Have the cluster's DNS find huggingface.co"),
    ],
)
def test_what_the_hub_answers_decides_what_helps(line: str, said: str) -> None:
    found = _findings(_pod({"image": "ghcr.io/ggml-org/llama.cpp:server"}), log=line + "\n")

    assert said in found["hf-unreachable"].fixes[0].summary


def test_kserves_initializer_takes_its_token_from_the_service_account() -> None:
    line = "Cannot access gated repo for url https://huggingface.co/google/gemma-2-9b-it/resolve/main/config.json."
    pod = _pod(
        {"name": "storage-initializer", "image": "kserve/storage-initializer:v0.17"}, serviceAccountName="models"
    )
    (fix, _) = _findings(pod, log=line + "\n")["hf-unauthorized"].fixes

    assert "Secret of the service account models" in fix.summary
    assert "patch serviceaccount models" in _commands((fix,))


def test_a_bucket_without_its_sidecar_is_no_fault_of_the_storage() -> None:
    pod = _pod(
        {"image": "vllm/vllm-openai:v0.11.0"}, {"ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}
    )
    pod["status"]["phase"] = "Pending"
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "serving"},
        "involvedObject": {"kind": "Pod", "namespace": "serving", "name": "llama-0"},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "bucket" : rpc error: code = FailedPrecondition desc = failed to '
        "find the sidecar container in Pod spec",
        "lastTimestamp": "2026-11-20T09:59:00Z",
    }

    found = _findings(pod, event)

    assert "gke-gcsfuse/volumes" in found["webhook-not-injected"].fixes[0].summary
    assert "volume-mount-failed" not in found or found["volume-mount-failed"].role == "symptom"


OF_JOB = "ownerReferences: [{apiVersion: batch/v1, kind: Job, name: llama, uid: u-j, controller: true}]"


def _altered(id: str, name: str, *changes: tuple[str, str]) -> Finding:
    """What a case finds when pieces of its text are others."""
    text = (CASES / id / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    tree = yaml.safe_load(text)
    report = diagnose(Snapshot(objects=tuple(tree["objects"]), taken_at=tree["takenAt"]), installed())
    return next(f for t in report.targets for f in t.findings if f.id == id)


def test_a_claim_for_other_devices_is_not_said_to_keep_these() -> None:
    case = "dra-claim-pending", "fires_deleted_claims_keep_devices"
    found = _altered(*case, ("driver: gpu.nvidia.com", "driver: rdma.example.com"))

    assert "deleted" in _altered(*case).summary
    assert "deleted" not in found.summary
    assert "let go of the claim" not in found.fixes[0].summary


@pytest.mark.parametrize(
    "changes",
    [
        [("name: kueue.x-k8s.io/admission", "name: grove.io/podgang-pending-creation")],
        [
            ("name: kueue.x-k8s.io/admission", "name: kueue.x-k8s.io/topology"),
            ("kueue.x-k8s.io/pod-group-name: leaderworkerset-llama-0}", f"a: b}}, {OF_JOB}"),
            ("leaderworkerset-llama-0, namespace: serving", f"job-llama, namespace: serving, {OF_JOB}"),
        ],
    ],
)
def test_the_label_of_a_queue_is_missed_only_by_kueue_in_a_group(changes: list[tuple[str, str]]) -> None:
    case = "scheduling-gated", "fires_pod_without_the_queues_label"

    assert "lacks the label" in _altered(*case).summary
    assert "lacks the label" not in _altered(*case, *changes).summary


def test_zones_without_gpus_are_told_only_where_the_spread_keeps_it_off() -> None:
    anti = "requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, labelSelector: {}}]"
    found = _altered(
        "pod-spread-unsatisfied",
        "fires_zone_without_gpus_counts",
        ("maxSkew: 1", "maxSkew: 5"),
        ("pod topology spread constraints", "pod anti-affinity rules"),
        ("      topologySpread", f"      affinity: {{podAntiAffinity: {{{anti}}}}}\n      topologySpread"),
    )

    assert "without a node with GPUs" not in found.summary
    assert not any("Select the nodes with GPUs" in fix.summary for fix in found.fixes)


def test_a_volume_where_karpenter_makes_no_node_is_mended_at_the_pool() -> None:
    (fix,) = _of_case("pvc-unbound", "fires_no_pool_in_its_zone")

    assert "nodepool" in fix.summary
    assert "describe pvc" not in _commands((fix,))


def test_of_two_autoscalers_of_the_same_pods_one_is_left() -> None:
    (fix,) = _of_case("hpa-wrong-metric", "fires_two_of_them")

    assert fix.summary.startswith("Leave one autoscaler")


@pytest.mark.parametrize(
    ("id", "log"),
    [("tp-not-divisible", ""), ("open-files-limit", "OSError: [Errno 24] Too many open files: '/x'")],
)
def test_a_number_of_gpus_that_no_node_has_does_no_harm(id: str, log: str) -> None:
    container = {
        "image": "vllm/vllm-openai:v0.10.2",
        "args": ["--model=Qwen/Qwen3-8B", "--tensor-parallel-size=100000000000"],
        "resources": {"limits": {"nvidia.com/gpu": "100000000000"}},
    }
    assert id in _findings(_pod(container), log=log)


@pytest.mark.parametrize(
    ("field", "summary"),
    [("limits", "Move limits to resources in Pod/llm"), ("resource", "Write resources for resource in Pod/llm")],
)
def test_a_field_is_moved_unless_it_is_misspelt(field: str, summary: str) -> None:
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.10.2", field: {"nvidia.com/gpu": 1}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "llm"}, "spec": {"containers": [container]}}
    (target,) = diagnose(Snapshot(objects=(pod,)), installed()).targets
    assert next(f.fixes[0].summary for f in target.findings if f.id == "field-misplaced") == summary


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("permission-denied/fires_mounted_read_only", "Mount the volume models at /models without readOnly"),
        (
            "permission-denied/fires_may_not_read_what_is_read_only",
            "Let the container's user read /models/llm-8b/config.json",
        ),
        ("permission-denied/fires_volume_of_a_config_map", "Have an init container copy the folder of /config/x.yaml"),
        ("hf-unreachable/fires_hub_itself_beside_a_mirror", "Let pods of serving reach huggingface.co"),
        ("gpu-count-mismatch/fires_three_of_four_hidden", "Take CUDA_VISIBLE_DEVICES away"),
        ("gpu-count-mismatch/fires_model_on_one_of_three", "must divide its attention heads"),
        ("permission-denied/fires_fsgroup_without_effect", "fsGroup has no effect"),
        ("permission-denied/fires_busybox", "Mount an emptyDir at /models/abc"),
        ("permission-denied/fires_ptxas", "TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas"),
        ("permission-denied/fires_program_of_a_start_script", "Make /app/bin/fetch-model executable"),
        ("disk-full/fires_volume_in_memory", "Give the volume tmp, which lies in memory"),
        ("disk-full/fires_cache", "Mount a volume with room at /root/.cache"),
        ("hf-unreachable/fires_mirror_does_not_answer", "See whether https://hub-mirror.example.net answers"),
        ("hf-unreachable/fires_connection_words_alone", "Let pods of serving reach huggingface.co"),
        ("multinode-discovery/fires_dynamo_picker_wants_prefill", "where there should be none, let it do without"),
        ("compiler-missing/fires_cuda_home_with_a_colon", "Set CUDA_HOME to one path, /usr/local/cuda-12.8"),
        ("probe-too-short/fires_calls_are_traced", "Leave VLLM_TRACE_FUNCTION out"),
        ("import-broken/fires_serve_import_path", "Correct import_path"),
        ("port-mismatch/fires_tls_to_llamacpp_by_apache", "(--ssl-cert-file and --ssl-key-file)"),
        (
            "hf-unauthorized/fires_token_misnamed",
            "Give vllm the token as HF_TOKEN: the hub's libraries do not read HUGGINGFACE_TOKEN",
        ),
        ("model-registry-failed/fires_role_beside_another_key", "Give vllm the keys of an account"),
        ("model-registry-failed/fires_half_of_the_keys", "Give vllm the key as AWS_SECRET_ACCESS_KEY"),
        ("model-registry-failed/fires_streamer_key_misnamed", "Give vllm the key as AWS_ACCESS_KEY_ID"),
        ("model-registry-failed/fires_streamer_keys_refused", "Check the address, endpoint, region and credentials"),
        ("hf-unauthorized/fires_token_invalid_whatever_its_name", "Give vllm a valid token in HF_TOKEN"),
        ("hf-unauthorized/fires_token_handed_on", "Give vllm a valid token in HF_TOKEN"),
        ("nccl-other/fires_ranks_of_different_releases", "ddp-worker-1 has NCCL 2.19.3, ddp-worker-0 has NCCL 2.20.5"),
        ("nccl-ib/fires_gids_of_other_namespaces", "Take an image with NCCL 2.26 or newer"),
        ("nccl-ib/fires_gid_that_this_pod_lacks", "Take the one NCCL_IB_GID_INDEX for all pods away"),
        ("nccl-ib/fires_gid_that_nobody_set", "See that the interface of the RDMA network is in the pod"),
        ("nccl-ib/fires_gids_of_uccl", "Name in NCCL_IB_GID_INDEX (of UCCL UCCL_IB_GID_INDEX)"),
        ("nccl-ib/fires_efa_of_another_release", "Take an image whose libfabric and aws-ofi-nccl are of one release"),
        ("worker-lost/fires_efa_ends_the_process", "Find the rank that ended first"),
        ("ray-cluster/fires_raylet_not_up", "--node-ip-address=$POD_IP"),
        ("multinode-discovery/fires_no_resolver_for_nats", "let main wait until the host resolves"),
        ("kv-transfer-failed/fires_prefill_of_dynamo_is_down", "Fix prefill-0 first (CrashLoopBackOff, exit code 1)"),
        ("probe-path-wrong/fires_two_probes_of_one_path", "Ask for /health in the liveness and readiness probes"),
        ("gpu-runtime-missing/fires_node_image_without_driver", "Give the nodes of EC2NodeClass gpu an image"),
        ("hf-unreachable/fires_offline_with_its_cache_on_a_claim", "Start it once without HF_HUB_OFFLINE"),
        ("hf-unreachable/fires_offline_without_cache", "Where the cluster reaches the hub"),
        ("hf-unreachable/fires_download_pauses", "HF_HUB_DOWNLOAD_TIMEOUT=120"),
        ("model-not-found/fires_store_without_the_file", "Point storageUri of Pod/heron-predictor"),
        ("model-not-found/fires_empty_dir_that_an_init_container_fills", "Point --model at the folder or file that"),
        ("model-not-found/fires_name_without_its_owner", "at Qwen/Qwen3-8B"),
        ("entrypoint-missing/fires_ollama_of_another_image", "Take ollama/ollama:0.30.5"),
        ("import-broken/fires_ops_of_a_rebuilt_image", "Take vllm/vllm-openai:v0.11.0"),
        ("probe-path-wrong/fires_probe_without_the_key_of_the_other", "Ask for /health (livenessProbe"),
    ],
)
def test_what_the_pod_says_of_a_path_or_a_variable_decides_what_helps(case: str, said: str) -> None:
    found = diagnose_case(load_case(CASES / f"{case}.yaml"))
    first = next(f for target in found.targets for f in target.findings if f.id == case.partition("/")[0])
    assert said in first.fixes[0].summary


def test_what_deletes_a_pod_that_nothing_makes_again_says_so() -> None:
    container = {"image": "vllm/vllm-openai:v0.11.0", "args": ["--model=Qwen/Qwen3-8B"]}
    line = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    alone = _pod(dict(container))
    owned = _pod(dict(container))
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-5d8f", "uid": "1"}
    ]

    (_, again) = _findings(alone, log=line)["ecc-uncorrectable"].fixes
    assert again.summary.endswith("(no controller recreates the pod: apply its manifest afterwards)")
    (_, again) = _findings(owned, log=line)["ecc-uncorrectable"].fixes
    assert again.summary == "Recreate the pod on another node"


@pytest.mark.parametrize(
    ("id", "name", "harm"),
    [
        ("permission-denied", "fires_tool_among_programs", "Mount an emptyDir"),
        ("permission-denied", "fires_link_as_another_user_than_the_images", "Mount an emptyDir"),
        ("driver-libs-not-on-path", "fires_triton_though_on_the_path", "name that folder in LD_LIBRARY_PATH"),
        ("gpu-arch-unsupported", "fires_flash_attention_of_tgi", "backend"),
        ("engine-args-invalid", "fires_llamacpp_v_cache_before_it_took_a_value", "--flash-attn on"),
        ("engine-args-invalid", "fires_ollama_v_cache", "--cache-type-v"),
        ("served-model-name-mismatch", "fires_of_a_nim", "--served-model-name"),
        ("served-model-name-mismatch", "fires_of_a_nim_by_nobody_known", "agent"),
    ],
)
def test_what_this_engine_or_place_does_not_take_is_not_advised(id: str, name: str, harm: str) -> None:
    assert all(harm not in fix.summary for fix in _of_case(id, name))


def test_every_engine_is_offered_a_fix() -> None:
    engines = {"", *TITLES}
    for path in CHECKS.rglob("*.yaml"):
        signature = None if path.name.startswith("_") else signature_of(path)
        for pattern in signature.patterns if signature else ():
            fixes = pattern.fixes or (signature.fixes if signature else ())
            some = [set(fix.engines) or engines for fix in fixes if not fix.needs]
            met = engines if not pattern.engines else {*pattern.engines, ""}
            assert met & engines <= set().union(*some) <= engines, (path.name, pattern.literal)


def _edited(id: str, name: str, edit: Callable[[list[dict[str, Any]]], None]) -> Finding:
    snapshot = load_case(CASES / id / f"{name}.yaml").snapshot
    objects = deepcopy(list(snapshot.objects))
    edit(objects)
    report = diagnose(replace(snapshot, objects=tuple(objects)), installed())
    return next(f for target in report.targets for f in target.findings if f.id == id)


def test_a_gang_that_its_queue_cannot_hold_is_not_laid_to_what_the_queue_does_not_name() -> None:
    def grow(members: int) -> Callable[[list[dict[str, Any]]], None]:
        def edit(objects: list[dict[str, Any]]) -> None:
            next(o for o in objects if o["kind"] == "PodGroup")["spec"]["minMember"] = members

        return edit

    few, many = (_edited("quota-exceeded", "fires_volcano_queue_without_pods", grow(n)) for n in (4, 5))
    assert "names no pods" in few.summary
    assert "names no pods" not in many.summary


def test_what_a_plugin_of_another_vendor_found_is_not_told() -> None:
    def ask(objects: list[dict[str, Any]]) -> None:
        objects[0]["spec"]["containers"][0]["resources"]["limits"] = {"amd.com/gpu": "1"}

    found = _edited("gpu-resource-absent", "fires_plugin_found_nothing", ask)
    assert "device plugin" not in found.summary


def test_of_a_shortened_option_all_that_may_be_meant_are_named() -> None:
    fix = _of_case("engine-args-invalid", "fires_shortened_of_latest")[0]
    assert len(re.findall(r"--[\w-]+", fix.summary)) > 2
    assert fix.patch is None


def test_a_token_is_written_into_the_secret_that_it_is_from() -> None:
    container = {"image": "vllm/vllm-openai:v0.11.0", "args": ["--model=Qwen/Qwen3-8B"]}
    taken = {"valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    line = 'User Access Token "serving" is expired'
    (fix,) = _findings(_pod(container | {"env": [{"name": "HF_TOKEN", **taken}]}), log=line)["hf-unauthorized"].fixes
    assert " create secret generic hub --from-literal=token=" in fix.commands[0]
    (fix,) = _findings(_pod(container), log=line)["hf-unauthorized"].fixes
    assert " create secret generic hf-token --from-literal=HF_TOKEN=" in fix.commands[0]


def test_a_headless_service_is_asked_at_the_port_of_its_pods() -> None:
    found = diagnose_case(load_case(CASES / "port-mismatch" / "fires_risk_client_asks_a_headless_service.yaml"))
    (fix,) = next(f for t in found.targets for f in t.findings if f.id == "port-mismatch").fixes
    assert fix.summary.startswith("Write llama:8000 in place of llama:80 (LLM_ENDPOINT: whom app asks)")


def test_a_volume_grows_to_what_ray_keeps_in_it() -> None:
    found = diagnose_case(load_case(CASES / "shm-too-small" / "fires_note_ray_store_beside_a_volume.yaml"))
    (fix,) = next(f for t in found.targets for f in t.findings if f.id == "shm-too-small").fixes
    assert fix.summary.startswith("Mount 39Gi of memory at /dev/shm")


@pytest.mark.parametrize(("case", "level"), [("beyond_baseline", "privileged"), ("within_baseline", "baseline")])
def test_a_wider_level_is_one_that_allows_the_pod(case: str, level: str) -> None:
    found = diagnose_case(load_case(CASES / "admission-denied" / f"fires_restricted_{case}.yaml"))
    denied = next(f for t in found.targets for f in t.findings if f.id == "admission-denied")
    assert denied.fixes[-1].commands == (
        f"kubectl label namespace serving pod-security.kubernetes.io/enforce={level} --overwrite",
    )


def test_fewer_gpus_come_with_the_parallel_size_that_fits_them() -> None:
    for fix in _of_case("gpu-request-exceeds-node", "fires_three_of_four_are_free")[:2]:
        assert "--tensor-parallel-size=" in _commands((fix,))


#: What is a name that the API allows, a number, or a device of the kernel, and stands inside the quotes of a command.
PLAIN = {"namespace", "account", "late_rank", "dev", "data_field", "key"}


def test_a_command_has_no_text_of_the_cluster_inside_quotes() -> None:
    """Each value is quoted as a whole where it needs to be: quotes around it would end where its own begin."""
    inside: set[str] = set()
    for path in CHECKS.rglob("*.yaml"):
        for command in _commands_of(yaml.load(path.read_bytes(), yaml.CSafeLoader)):
            text, quote = command.replace("{{", "").replace("}}", ""), ""
            for found in re.finditer(r"(?P<quote>['\"])|\{(?P<name>\w+)\}", text):
                if mark := found["quote"]:
                    quote = mark if not quote else "" if quote == mark else quote
                elif quote and found["name"] not in PLAIN:
                    inside.add(f"{path.name}: {command}")
    assert not inside


def _commands_of(tree: Any) -> list[str]:
    if isinstance(tree, list):
        return [command for item in tree for command in _commands_of(item)]
    if not isinstance(tree, dict):
        return []
    own = [str(command) for command in tree.get("commands") or ()]
    return own + [command for name, item in tree.items() if name != "commands" for command in _commands_of(item)]


@pytest.mark.parametrize("own", ["MODEL_ENDPOINT", "OTHER"])
def test_only_the_variable_of_the_mirror_is_left_out(own: str) -> None:
    env = [{"name": "HF_ENDPOINT", "value": "http://m.svc:80"}, {"name": own, "value": "mine"}]
    pod = _pod({"image": "vllm/vllm-openai:v0.10.2", "args": ["Qwen/Qwen3-8B"], "env": env})
    pod["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "llama", "controller": True}]
    workload = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "llama", "namespace": "serving"},
        "spec": {"template": {"spec": pod["spec"]}},
    }
    log = (
        "HTTPConnectionPool(host='m.svc', port=80): Max retries exceeded with url: /api/models/x (Caused by "
        "NewConnectionError('<urllib3.connection.HTTPConnection object at 0x7>: Failed to establish a new connection'))\n"
    )
    fixes = _findings(pod, workload, log=log)["hf-unreachable"].fixes
    patch = next(fix.patch for fix in fixes if "leave HF_ENDPOINT out" in fix.summary)
    assert patch is not None
    assert "HF_ENDPOINT" in str(patch.body) or "/env/0" in str(patch.body)
    assert own not in str(patch.body)
    assert "/env/1" not in str(patch.body)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("node-selector-mismatch/fires_other_gpus_than_it_selects", "tolerate their taint"),
        ("pvc-unbound/fires_volume_for_nodes_of_a_role", "Delete claim"),
        ("node-not-ready/fires_budget_of_other_pods", "PodDisruptionBudget"),
        ("gpu-resource-absent/fires_discovery_does_not_work", "Label the nodes"),
        ("gang-incomplete/fires_two_groups_that_fit_no_domain", "instead of 2 groups"),
        ("cpu-memory-insufficient/fires_sidecar_asks_for_little", "gke-gcsfuse-sidecar"),
        ("gang-incomplete/fires_volcano_queue_counts_its_own_members", "Raise the capability"),
        ("pvc-unbound/fires_helper_of_another_claim", "tolerate"),
        ("gang-incomplete/fires_volcano_group_may_try_again", "job-b"),
        ("cpu-memory-insufficient/fires_refused_and_no_other_node_fits", "cp-1"),
        ("nccl-timeout/fires_all_reduce_beside_a_naive_exchange", "exchange of tokens"),
        ("nccl-other/fires_two_ranks_on_one_of_four_gpus", "has one"),
        ("gpu-memory-shared/fires_page_cache", "are lacking"),
        ("gpu-throttled/fires_power_brake", "Cool"),
        ("cpu-starved/fires_threads_told_and_still_throttled", "Let it compute"),
        ("illegal-memory-access/fires_amd_page_fault_of_llama_server", "AITER"),
        ("cuda-oom-weights/fires_sycl_beneath_ollama", "--n-gpu-layers"),
        ("cuda-oom-profile/fires_tgi_prefill_of_one_prompt", "from 4096"),
        ("cuda-oom-profile/fires_trtllm_model", "free_gpu_memory_fraction"),
    ],
)
def test_what_would_not_help_there_is_not_advised(case: str, words: str) -> None:
    report = diagnose_case(load_case(CASES / f"{case}.yaml"))
    said = [fix.summary for target in report.targets for finding in target.findings for fix in finding.fixes]
    assert said
    assert not [text for text in said if words in text]


_FILLED = {"name": "git-sync", "image": "git-sync:4", "volumeMounts": [{"name": "code", "mountPath": "/git"}]}


@pytest.mark.parametrize(
    ("case", "of_server", "of_pod", "hidden"),
    [
        ("fires_volume_over_a_path", {}, {}, True),
        ("fires_volume_over_a_path", {}, {"containers": _FILLED}, False),
        ("fires_volume_over_a_path", {"workingDir": "/app"}, {}, False),
        ("fires_volume_over_a_path", {"env": [{"name": "PYTHONPATH", "value": "/lib:/app/"}]}, {}, False),
        ("fires_volume_over_a_path", {}, {"volumes": {"name": "code", "image": {"reference": "acme/code:1"}}}, False),
        ("fires_volume_over_the_program", {}, {}, True),
        ("fires_volume_over_the_program", {"image": "python:3.12"}, {}, False),
        ("fires_name_beside_a_volume", {"volumeMounts": [{"name": "code", "mountPath": "/usr/local/bin"}]}, {}, True),
        ("fires_name_beside_a_volume", {"volumeMounts": [{"name": "code", "mountPath": "/usr/src/app"}]}, {}, False),
        ("fires_name_beside_a_volume", {"volumeMounts": [{"name": "code", "mountPath": "/opt/nvidia"}]}, {}, False),
    ],
)
def test_a_volume_hides_what_the_image_has_and_not_what_it_brings(
    case: str, of_server: dict[str, Any], of_pod: dict[str, Any], hidden: bool
) -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        spec = objects[0]["spec"]
        spec["containers"][0].update(of_server)
        spec["containers"] += [one for key, one in of_pod.items() if key == "containers"]
        spec["volumes"] = [one for key, one in of_pod.items() if key == "volumes"] or spec["volumes"]

    said = [fix.summary for fix in _edited("entrypoint-missing", case, edit).fixes]

    assert said[0].startswith("Mount volume ") == hidden


@pytest.mark.parametrize(
    ("args", "at", "value"),
    [
        (["-m", "/m.gguf", "--flash-attn", "--ctx-size", "16000"], "args/3", "on"),
        (
            ["-c", "exec llama-server --flash-attn --ctx-size 8"],
            "args/1",
            "exec llama-server --flash-attn on --ctx-size 8",
        ),
    ],
)
def test_an_option_that_stands_alone_gets_its_value_there(args: list[str], at: str, value: str) -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        server = objects[0]["spec"]["containers"][0]
        server.update(args=args, **({"command": ["sh"]} if args[0] == "-c" else {}))
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llama"}
        objects[0]["metadata"]["ownerReferences"] = [{**owner, "uid": "1", "controller": True}]
        template = {"metadata": {}, "spec": {"containers": [deepcopy(server)]}}
        own = {"name": "llama", "namespace": "serving", "uid": "1"}
        objects.append(
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": own, "spec": {"template": template}}
        )

    patch = _edited("engine-args-invalid", "fires_flash_attn_alone", edit).fixes[0].patch

    assert patch is not None
    assert [(one["path"].partition("/containers/0/")[2], one["value"]) for one in patch.body] == [(at, value)]


def test_ranks_are_given_what_divides_their_heads() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        server = objects[0]["spec"]["containers"][0]
        server["args"] = ["--model", "mistralai/Mistral-7B-Instruct-v0.3", "-tp", "8", "--data-parallel-size", "2"]
        server["resources"] = {"limits": {"nvidia.com/gpu": "6"}}

    found = _edited("gpu-count-mismatch", "fires_each_rank_takes_all", edit)

    assert not any("ranks 3 GPUs" in fix.summary for fix in found.fixes)


def test_a_script_of_another_image_is_not_said_to_take_the_port() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        for one in objects:
            one["spec"]["containers"][0]["command"] = ["/bin/sh", "-c", "./start.sh"]

    first = _edited("port-in-use", "fires_sshd", edit).fixes[0].summary

    assert "Pod/bench-worker-0" not in first


def test_an_image_for_gpus_keeps_its_runtime_class() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[0]["spec"]["containers"][0]["image"] = "nvidia/cuda:12.4.1-runtime"

    found = _edited("gpu-runtime-missing", "fires_class_of_a_pod_without_gpu", edit)

    assert not any("runtimeClassName out" in fix.summary for fix in found.fixes)


@pytest.mark.parametrize(
    "change",
    [
        {"image": "vllm/vllm-openai:v0.11.0"},
        {"image": "mirror.example.com/vllm/vllm-openai:v0.11.0"},
        {"image": "acme/vllm-rocm:v0.11.0"},
        {"image": "acme/vllm:v0.11.0", "args": ["vllm", "serve", "Qwen/Qwen3-8B"]},
        {"resources": {"limits": {"amd.com/gpu": "1"}}},
        {"image": "registry.example.com/ml/vllm-openai:v0.11.0"},
        {"image": "registry.example.com/ml/vllm-openai:v0.11.0-cu118"},
        {"args": ["--model", "Qwen/Qwen3-8B", "--logits-processors", "acme.limits:Short"]},
        {"env": [{"name": "VLLM_PLUGINS", "value": "acme"}]},
        {"command": ["/opt/acme/start.sh"]},
        {"command": ["python3", "-m", "acme.server"]},
        {"args": ["--model", "/opt/models/qwen3"]},
        {"args": ["--model=Qwen/Qwen3-8B", "--chat-template=/opt/acme/chat.jinja"]},
    ],
)
def test_the_published_image_is_named_where_it_takes_the_place(change: dict[str, Any]) -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[0]["spec"]["containers"][0].update(change)

    found = _edited("import-broken", "fires_ops_of_a_rebuilt_image", edit)

    assert not any("the engine's own image of this release" in fix.summary for fix in found.fixes)


def test_a_folder_below_what_is_fetched_may_be_told_wrongly() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        server = objects[0]["spec"]["containers"][0]
        server["args"] = ["--model_name=heron", "--model_dir=/mnt/models/model.joblib"]

    found = _edited("model-not-found", "fires_store_without_the_file", edit)

    assert not any("storageUri" in fix.summary for fix in found.fixes)


def test_a_name_that_several_owners_have_is_not_guessed() -> None:
    assert with_owner("qwen3-8b") == "Qwen/Qwen3-8B"
    assert with_owner("Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert not with_owner("an-unheard-of-model")
    # of one that only publishes it again
    assert not with_owner("Llama-3.1-70B-Instruct-NVFP4")


def test_a_cache_that_goes_with_the_pod_is_not_filled_by_one_start() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[0]["spec"]["volumes"] = [{"name": "cache", "emptyDir": {}}]

    found = _edited("hf-unreachable", "fires_offline_with_its_cache_on_a_claim", edit)

    assert not any("Start it once" in fix.summary for fix in found.fixes)


def test_a_node_class_that_names_an_image_with_the_driver_too_is_not_blamed() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[-1]["status"]["amis"].append({"name": "amazon-eks-node-al2023-x86_64-nvidia-1.33-v20260505"})

    found = _edited("gpu-runtime-missing", "fires_node_image_without_driver", edit)

    assert not any("EC2NodeClass" in fix.summary for fix in found.fixes)


@pytest.mark.parametrize("image", ["acme/transformers-inference:1", "semitechnologies/weaviate-playground:1"])
def test_the_path_of_another_image_is_not_guessed(image: str) -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[0]["spec"]["containers"][0]["image"] = image

    found = _edited("probe-path-wrong", "fires_weaviates_vectorizer", edit)

    assert "ask for a path that this image serves" in found.fixes[0].summary


def test_what_a_fix_says_already_is_not_advised_again() -> None:
    """A general text has words of its own for where a fix with this case's numbers stands before it, or is left out then."""
    log = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."
    args = ["serve", "Qwen/Qwen3-8B", "--gpu-memory-utilization", "0.2"]
    told = _findings(_pod({"image": "vllm/vllm-openai:v0.11.0", "args": args}), log=log)["kv-cache-no-room"].fixes

    assert [fix.summary for fix in told if "--gpu-memory-utilization" in fix.summary] == [told[0].summary]
    assert told[-1].summary.startswith("Take more GPUs (--tensor-parallel-size), a GPU with more memory")


@pytest.mark.parametrize(
    ("first", "port", "other"),
    [("5500", "5600", "5600"), ("9" * 6000, "9" * 6000, "1"), ("40043", "40043", "0.0.0.0:40043")],
    ids=["a side channel", "no ports", "an address"],
)
def test_a_port_that_somebody_chose_is_none_of_those_that_vllm_looks_for(first: str, port: str, other: str) -> None:
    told = [{"name": "VLLM_PORT", "value": first}, {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": other}]
    server = {"image": "vllm/vllm-openai:v0.25.1", "args": ["--model=Qwen/Qwen3-8B"], "env": told}
    log = f"zmq.error.ZMQError: Address already in use (addr='tcp://10.0.0.58:{port}')"

    found = _findings(_pod(server, hostNetwork=True), log=log)

    assert not any("VLLM_PORT" in fix.summary for fix in found["port-in-use"].fixes)


def test_more_gpus_are_no_help_for_who_keeps_to_one() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[0]["spec"]["containers"][0]["args"] += ["--split-mode", "none"]

    found = _edited("cuda-oom-weights", "fires_llama_server_on_one_gpu_of_two", edit)

    assert not any("2 GPUs" in fix.summary for fix in found.fixes)


def test_switches_that_are_no_devices_of_the_server_want_none_of_its_modules() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[1]["metadata"]["labels"]["nvidia.com/gpu.product"] = "NVIDIA-GB200"

    found = _edited("fabric-manager-down", "fires_hgx_b200", edit)

    assert not any("ib_umad" in fix.summary for fix in found.fixes)


def _first(id: str, name: str, edit: Callable[[list[dict[str, Any]]], None]) -> Fix:
    return _edited(id, name, edit).fixes[0]


def _container(change: dict[str, Any], at: int = 0) -> Callable[[list[dict[str, Any]]], None]:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[at]["spec"]["containers"][0].update(change)

    return edit


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"),
        (
            {"env": [{"name": "PYTORCH_ALLOC_CONF", "value": "max_split_size_mb:512,expandable_segments:False"}]},
            "PYTORCH_ALLOC_CONF=max_split_size_mb:512,expandable_segments:True",
        ),
        ({"env": [{"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "backend:cudaMallocAsync"}]}, ""),
        ({"env": [{"name": "PYTORCH_CUDA_ALLOC_CONF", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}, ""),
        ({"resources": {"limits": {"amd.com/gpu": "1"}}}, ""),
    ],
)
def test_what_the_allocator_is_told_already_stays(change: dict[str, Any], says: str) -> None:
    found = _edited("cuda-oom-runtime", "fires_long_prompt", _container(change))
    said = [fix.summary for fix in found.fixes if "expandable_segments" in fix.summary]

    assert len(said) == bool(says)
    assert says in "".join(said)


def test_the_published_image_has_nothing_for_gpus_of_amd() -> None:
    change = _container({"resources": {"limits": {"amd.com/gpu": "1"}}})

    assert "ollama/ollama" not in _first("entrypoint-missing", "fires_ollama_of_another_image", change).summary


@pytest.mark.parametrize(("told", "set_to"), [("600", ""), ("30", "120"), ("soon", "120")])
def test_a_download_that_waits_longer_already_is_not_cut_short(told: str, set_to: str) -> None:
    change = _container({"env": [{"name": "HF_HUB_DOWNLOAD_TIMEOUT", "value": told}]})
    summary = _first("hf-unreachable", "fires_download_pauses", change).summary

    assert ("HF_HUB_DOWNLOAD_TIMEOUT=120" in summary) is bool(set_to)


def _read_only(objects: list[dict[str, Any]]) -> None:
    objects[0]["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] = True


def _ephemeral(objects: list[dict[str, Any]]) -> None:
    objects[0]["spec"]["volumes"] = [{"name": "cache", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]


@pytest.mark.parametrize(
    "edit",
    [
        _read_only,
        _ephemeral,
        _container({"args": ["--model-path", "Qwen/Qwen3-8B", "--download-dir", "/models"]}),
        _container({"env": [{"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "HOME", "value": "/home/sgl"}]}),
    ],
)
def test_a_cache_that_lies_elsewhere_or_takes_nothing_is_not_filled(
    edit: Callable[[list[dict[str, Any]]], None],
) -> None:
    assert "Start it once" not in _first("hf-unreachable", "fires_offline_with_its_cache_on_a_claim", edit).summary


def test_a_liveness_probe_does_not_wait_for_what_a_server_waits_for() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        container = objects[0]["spec"]["containers"][0]
        container["image"] = "ghcr.io/berriai/litellm:main-v1.60.0"
        container["livenessProbe"] = container["readinessProbe"]

    summary = _first("probe-path-wrong", "fires_weaviates_vectorizer", edit).summary
    assert summary.startswith(
        "Ask for /health/liveliness in the liveness probe and /health/readiness in the readiness probe"
    )


def test_a_deadline_is_not_made_shorter() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[0]["metadata"]["annotations"] = {"serving.knative.dev/progress-deadline": "3600s"}

    assert "wait 3 h" in _first("progress-deadline", "fires_kserve_never_scaled", edit).summary


def test_a_server_on_the_cpu_is_no_sidecar() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        server = objects[0]["spec"]["template"]["spec"]["containers"][0]
        server.update(image="ollama/ollama:0.12.0", resources={})

    (fix,) = _edited("quota-exceeded", "fires_must_specify_of_no_container", edit).fixes
    assert fix.patch is not None
    said = {o["path"].partition("/containers/")[2]: o["value"] for o in fix.patch.body}
    assert (said["0/resources/limits/memory"], said["1/resources/limits/memory"]) == ("64Gi", "1Gi")


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"name": "BACKEND_ADDR", "value": "backend.example:8080"}, "Take hostNetwork: true out"),
        ({"name": "BACKEND_ADDR", "value": "0.0.0.0:8080"}, "Pod/chat-a-0 has it"),
        ({"name": "APP_BIND", "value": "10.0.0.7:8080"}, "Pod/chat-a-0 has it"),
    ],
)
def test_the_address_of_another_program_is_no_port_of_ones_own(env: dict[str, Any], says: str) -> None:
    assert says in _first("port-in-use", "fires_told_by_a_variable", _container({"env": [env]}, at=1)).summary


def test_a_port_that_an_engine_has_by_default_is_not_free() -> None:
    def edit(objects: list[dict[str, Any]]) -> None:
        objects[1]["spec"]["containers"].append({"name": "vllm", "image": "vllm/vllm-openai:v0.11.0"})
        for one in objects:
            one["spec"]["containers"][0]["env"] = [{"name": "LISTEN_ADDR", "value": ":7999"}]

    snapshot = load_case(CASES / "port-in-use" / "fires_told_by_a_variable.yaml").snapshot
    objects = deepcopy(list(snapshot.objects))
    edit(objects)
    logs = tuple(replace(log, text=log.text.replace("8080", "7999")) for log in snapshot.logs)
    report = diagnose(replace(snapshot, objects=tuple(objects), logs=logs), installed())
    found = next(f for target in report.targets for f in target.findings if f.id == "port-in-use")
    assert "than 7999, such as 8001" in found.fixes[0].summary


def test_what_later_releases_do_not_have_is_not_blamed() -> None:
    change = _container({"image": "vllm/vllm-openai:v0.22.0"})

    assert "Take another exchange" not in _first("nccl-timeout", "fires_naive_exchange", change).summary


def test_a_rank_whose_leader_is_another_pod_is_not_alone() -> None:
    change = _container({"env": [{"name": "MASTER_ADDR", "value": "train-0.train"}]})

    assert "Give every rank a GPU" in _first("nccl-other", "fires_more_processes_than_gpus", change).summary


@pytest.mark.parametrize(
    ("id", "name", "words"),
    [
        ("model-not-found", "fires_name_without_its_owner", "a repository that the hub has"),
        ("hf-unreachable", "fires_offline_with_its_cache_on_a_claim", "HF_HUB_CACHE"),
        ("gpu-memory-shared", "fires_little_lacks_of_the_machines_memory", "Take what is free now"),
        ("illegal-memory-access", "fires_rocm_takes_it_for_another_gpu", "flash attention"),
        ("cuda-oom-profile", "fires_tgi_prefill", "below 4096"),
        ("cuda-oom-weights", "fires_sycl_calls_it_the_hosts", "Offload fewer layers"),
        ("entrypoint-missing", "fires_ollama_of_another_image", "the engine's own image"),
    ],
)
def test_what_a_fix_says_with_the_names_of_the_case_is_not_said_again_without_them(
    id: str, name: str, words: str
) -> None:
    assert not any(words in fix.summary for fix in _of_case(id, name))


@pytest.mark.parametrize(("layers", "said"), [("99", True), ("all", True), ("auto", False), ("-1", False)])
def test_layers_that_llama_cpp_counts_itself_are_not_lowered(layers: str, said: bool) -> None:
    change = _container({"args": ["-m", "/models/m.gguf", "-ngl", layers]})

    assert _first("cuda-oom-weights", "fires_sycl_calls_it_the_hosts", change).summary.startswith("Lower -ngl") is said


def test_a_mirror_that_pauses_may_be_left_out() -> None:
    snapshot = load_case(CASES / "hf-unreachable" / "fires_download_pauses.yaml").snapshot
    objects = deepcopy(list(snapshot.objects))
    _container({"env": [{"name": "HF_ENDPOINT", "value": "https://hf-mirror.com"}]})(objects)
    logs = tuple(
        replace(log, text=log.text.replace("cdn-lfs.huggingface.co", "hf-mirror.com")) for log in snapshot.logs
    )
    report = diagnose(replace(snapshot, objects=tuple(objects), logs=logs), installed())
    found = next(f for target in report.targets for f in target.findings if f.id == "hf-unreachable")

    assert found.fixes[1].summary.startswith("If the pod can reach huggingface.co, leave HF_ENDPOINT out")


def _named_by(text: Any) -> set[str]:
    """The names in braces of a fix, and those that it needs."""
    if isinstance(text, dict):
        known = {*text.get("needs", ()), *text.get("unless", ())}
        return known.union(
            *(_named_by(one) for key, one in text.items() if key not in ("needs", "unless", "when", "reach"))
        )
    if isinstance(text, list | tuple):
        return set().union(*map(_named_by, text))
    return {name for _, name, _, _ in Formatter().parse(text) if name} if isinstance(text, str) else set()


def _fix_texts(tree: Any) -> list[dict[str, Any]]:
    if isinstance(tree, dict):
        own = [one for one in tree.get("fixes") or () if isinstance(one, dict)]
        return own + [one for value in tree.values() for one in _fix_texts(value)]
    return [one for part in tree for one in _fix_texts(part)] if isinstance(tree, list) else []


def test_each_name_in_a_fix_stands_for_something(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[situation.Situation] = []

    class Kept(situation.Situation):
        def __init__(self, here: Occurrence) -> None:
            super().__init__(here)
            made.append(self)

    monkeypatch.setattr(situation, "Situation", Kept)
    diagnose_case(load_case(CASES / "disk-full" / "fires_claim_is_full.yaml"))
    given = {*made[0].values, *enough(made[0]._case)}
    given |= {"between", "divisor", "multiple"}  # of the line between two, and of two sizes that were captured
    unknown = {}
    for path in sorted(CHECKS.rglob("*.yaml")):
        whole = path.read_text(encoding="utf-8")
        named = _named_by(_fix_texts(yaml.safe_load(whole)))
        if nobody := named - given - set(re.findall(r"\(\?P<(\w+)>", whole)):
            unknown[path.stem] = nobody

    assert unknown == {}


@pytest.mark.parametrize(
    ("image", "there"),
    [
        ("vllm/vllm-openai:v0.11.9", "vllm/vllm-openai:v0.11.0"),
        ("docker.io/vllm/vllm-openai:v0.10.7", "docker.io/vllm/vllm-openai:v0.10.2"),
        ("ghcr.io/huggingface/text-generation-inference:3.3.99", "ghcr.io/huggingface/text-generation-inference:3.3.7"),
        ("lmsysorg/sglang:v0.5.5", "lmsysorg/sglang:v0.5.5.post3"),
        ("lmsysorg/sglang:v0.5.11", "lmsysorg/sglang:v0.5.12.post1"),
        # a release that is there, one of no minor release that is known, a variant, tags with a CUDA, a copy, another publisher
        ("vllm/vllm-openai:v0.11.0", ""),
        ("vllm/vllm-openai:v0.99.0", ""),
        ("vllm/vllm-openai:v0.11.9-cu129", ""),
        ("lmsysorg/sglang:v0.4.9", ""),
        ("mirror.example.com/vllm/vllm-openai:v0.10.7", ""),
        ("acme/vllm-openai:v0.11.9", ""),
    ],
)
def test_a_release_that_is_not_there_has_one_beside_it(image: str, there: str) -> None:
    assert released(image) == there


def test_no_cap_on_prompts_is_advised_to_a_scheduler_that_takes_none() -> None:
    told = [fix.summary for fix in _of_case("head-of-line-blocking", "fires_measured_without_v1")]

    assert told
    assert not any("--long-prefill-token-threshold" in one for one in told)


@pytest.mark.parametrize(("have", "said"), [("1", "1 GPU"), ("8", "8 GPUs"), ("0", "0 GPUs"), (None, "? GPUs")])
def test_a_template_counts(have: str | None, said: str) -> None:
    assert fill("It has {have:GPU} of {have}.", {"have": have} if have else {}) == f"It has {said} of {have or '?'}."


def test_a_volume_that_the_pod_describes_itself_has_no_object() -> None:
    own = _of_case("volume-mount-failed", "fires_volume_of_the_pod_itself")
    assert own
    assert not any("get pv" in command for fix in own for command in fix.commands)
    claimed = _of_case("volume-mount-failed", "fires_earlier_mount_still_waits")
    assert any("get pv" in command for fix in claimed for command in fix.commands)

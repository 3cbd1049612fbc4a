"""What Helm, Argo CD or Flux writes again: a fix says so, and names the value of the chart where it is known."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.managed import Value, keeper
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.target import subjects

RELEASE = {"meta.helm.sh/release-name": "chat", "meta.helm.sh/release-namespace": "serving"}
OLLAMA = {"helm.sh/chart": "ollama-1.77.0", "app.kubernetes.io/managed-by": "Helm"}


def _deployment(labels: dict[str, str], annotations: dict[str, str], **pod: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "vllm/vllm-openai:v0.10.0", "args": ["--model=Qwen/Qwen3-8B"]}
    container |= {"resources": {"limits": {"nvidia.com/gpu": "1"}}} | pod.pop("container", {})
    spec = {"containers": [container], **pod}
    template = {"metadata": {"labels": {"app": "a", **{k: labels[k] for k in labels if k in _OF_PODS}}}, "spec": spec}
    metadata = {"name": "llm", "namespace": "serving", "labels": labels, "annotations": annotations}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}}


_OF_PODS = ("model", "llm-d.ai/role")


def _fix(raw: dict[str, Any], what: str) -> Fix:
    (subject,) = subjects(Cluster(Snapshot(objects=(raw,))))
    pod = subject.pods[0]
    container = pod.containers[0]
    if what == "flag":
        (engine,) = subject.engines(pod)
        return fixes.set_flag(engine, "max_model_len", "--max-model-len", "4096", "Cap the context")
    if what == "probe":
        path = f"{container.pointer}/readinessProbe/failureThreshold"
        return fixes.patch(pod, "Wait longer", [{"op": "add", "path": path, "value": 30}])
    return {
        "memory": lambda: fixes.set_resource(container, "limits", "memory", "64Gi", "Raise the limit"),
        "gpu": lambda: fixes.set_resource(container, "limits", "nvidia.com/gpu", "2", "Ask for two GPUs"),
        "shm": lambda: fixes.mount_shm(container, "8Gi", "Mount memory"),
        "env": lambda: fixes.set_env(container, "NCCL_DEBUG", "INFO", "Say more"),
        "grace": lambda: fixes.set_spec(pod, "/terminationGracePeriodSeconds", 300, "Wait"),
    }[what]()


@pytest.mark.parametrize(
    ("what", "path", "set_"),
    [
        ("memory", "resources.limits.memory", 'resources.limits.memory="64Gi"'),
        ("gpu", "resources.limits[nvidia.com/gpu]", r'resources.limits.nvidia\.com/gpu="2"'),
        ("grace", "terminationGracePeriodSeconds", "terminationGracePeriodSeconds=300"),
        ("probe", "readinessProbe.failureThreshold", "readinessProbe.failureThreshold=30"),
    ],
)
def test_a_value_of_a_known_chart_is_set_by_an_upgrade_of_the_release(what: str, path: str, set_: str) -> None:
    probe = {"readinessProbe": {"httpGet": {"path": "/", "port": 11434}}}
    fix = _fix(_deployment(OLLAMA, RELEASE, container=probe), what)

    assert fix.summary.endswith(
        f"(Helm manages it: set {path} in the values of chart ollama in release chat too, or the next upgrade may undo this)"
    )
    assert fix.commands[0].startswith("kubectl -n serving patch deployment/llm ")
    guard, upgrade = fix.commands[1].split(" && ")
    # a release of another chart that has this one inside is left alone
    assert guard == """helm list -n serving -f '^chat$' -o json | grep -qF '"chart":"ollama-1.77.0"'"""
    assert shlex.split(upgrade) == [
        *("helm", "upgrade", "chat", "ollama", "--repo", "https://helm.otwld.com", "--version", "1.77.0"),
        *("-n", "serving", "--reuse-values", "--set-json", set_),
    ]


@pytest.mark.parametrize(("what", "path"), [("env", "extraEnv"), ("shm", "volumes and volumeMounts")])
def test_a_list_of_values_is_named_and_not_replaced(what: str, path: str) -> None:
    fix = _fix(_deployment(OLLAMA, RELEASE), what)

    assert f"set {path} in the values" in fix.summary
    assert len(fix.commands) == 1


def test_what_a_chart_has_no_value_for_gets_the_sentence_alone() -> None:
    fix = _fix(_deployment({"helm.sh/chart": "nim-llm-1.7.0"} | {"app.kubernetes.io/managed-by": "Helm"}, {}), "grace")

    assert "change the release's values too" in fix.summary
    assert len(fix.commands) == 1


@pytest.mark.parametrize(
    ("what", "path"),
    [
        ("memory", "servingEngineSpec.modelSpec[qwen].limitMemory (or resources)"),
        ("gpu", "servingEngineSpec.modelSpec[qwen].requestGPU (or resources)"),
        ("shm", "servingEngineSpec.modelSpec[qwen].shmSize"),
        ("flag", "servingEngineSpec.modelSpec[qwen].vllmConfig.maxModelLen of its chart"),
    ],
)
def test_the_stacks_models_are_a_list(what: str, path: str) -> None:
    labels = {"app.kubernetes.io/part-of": "vllm-stack", "app.kubernetes.io/managed-by": "helm", "model": "qwen"}
    shm = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}
    container = {
        "command": ["vllm", "serve", "Qwen/Qwen3-8B"],
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    raw = _deployment(labels, RELEASE, container=container, volumes=[shm])
    del raw["spec"]["template"]["spec"]["containers"][0]["args"]
    fix = _fix(raw, what)

    assert path in fix.summary
    assert len(fix.commands) == (0 if what == "flag" else 1)


def test_a_role_and_a_worker_group_stand_in_the_path() -> None:
    labels = {"helm.sh/chart": "llm-d-modelservice-v0.4.12", "llm-d.ai/role": "prefill"}
    labels |= {"app.kubernetes.io/managed-by": "Helm"}
    assert "set prefill.containers[0].env in" in _fix(_deployment(labels, RELEASE), "env").summary

    groups = [{"groupName": "workergroup", "template": {}}, {"groupName": "big", "template": {}}]
    labels = {"helm.sh/chart": "ray-cluster-1.6.0", "app.kubernetes.io/managed-by": "Helm"}
    raw = {"kind": "RayCluster", "metadata": {"labels": labels, "annotations": RELEASE}}
    kept = keeper(raw | {"spec": {"workerGroupSpecs": groups}})
    assert kept
    for index, path in enumerate(("worker.runtimeClassName", "additionalWorkerGroups.big.runtimeClassName")):
        at = f"/spec/workerGroupSpecs/{index}/template/spec/runtimeClassName"
        values = kept.values([{"op": "add", "path": at, "value": "nvidia"}])
        assert values == [Value(path=path, key=path, value="nvidia")]


@pytest.mark.parametrize(
    ("labels", "annotations", "said"),
    [
        ({"app.kubernetes.io/managed-by": "Helm"}, {}, "Helm manages it: change the release's values too, or"),
        (
            OLLAMA,
            {"argocd.argoproj.io/tracking-id": "chat:apps/Deployment:serving/llm"},
            "Argo CD application chat manages it: set resources.limits.memory in the values of chart ollama there too",
        ),
        ({"argocd.argoproj.io/instance": "chat"}, {}, "Argo CD application chat manages it: change it there too, or"),
        (
            {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
            {},
            "Flux Kustomization flux-system/apps manages it: change it there too, or its next run undoes this",
        ),
        (
            OLLAMA | {"helm.toolkit.fluxcd.io/name": "chat", "helm.toolkit.fluxcd.io/namespace": "serving"},
            RELEASE,
            "Flux HelmRelease serving/chat manages it: set resources.limits.memory in the values of chart ollama there",
        ),
        ({"app.kubernetes.io/instance": "llm"}, {}, None),
    ],
)
def test_who_writes_an_object_again(labels: dict[str, str], annotations: dict[str, str], said: str | None) -> None:
    fix = _fix(_deployment(labels, annotations), "memory")

    assert (said in fix.summary) if said else fix.summary == "Raise the limit"
    assert len(fix.commands) == 1, "an upgrade of the release would be undone, or there is none"


def test_a_hostile_release_stays_one_word() -> None:
    annotations = RELEASE | {"meta.helm.sh/release-name": "a; rm -rf /"}
    fix = _fix(_deployment(OLLAMA, annotations), "memory")
    words = shlex.split(fix.commands[1])
    assert words[words.index("upgrade") + 1] == "a; rm -rf /"
    assert words[words.index("-f") + 1] == "^a; rm -rf /$"


@pytest.mark.parametrize(
    ("chart", "what", "path"),
    [
        ("triton-inference-server-1.0.0", "gpu", "image.numGpus"),
        ("triton-inference-server-2.71.0", "probe", "deployment.readinessProbe.failureThreshold"),
        ("triton-inference-server-1.4.0", "probe", ""),
        ("nim-llm-1.7.0", "env", "env"),
        ("nim-llm-1.7.0", "memory", "resources.limits.memory"),
        ("ollama-1.20.0", "grace", ""),
        ("ollama-1.60.0", "grace", "terminationGracePeriodSeconds"),
    ],
)
def test_a_value_that_this_release_of_the_chart_lacks_is_not_named(chart: str, what: str, path: str) -> None:
    labels = {"chart": chart, "heritage": "Helm"} if "triton" in chart else {"helm.sh/chart": chart}
    probe = {"readinessProbe": {"httpGet": {"path": "/", "port": 8000}}}
    fix = _fix(_deployment(labels, RELEASE, container=probe), what)

    assert (f"set {path} in the values of chart" if path else "change the values of release chat too") in fix.summary


def test_a_volume_that_the_chart_adds_by_itself_has_no_value() -> None:
    shm = {"name": "dshm", "emptyDir": {"medium": "Memory"}}
    container = {"volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}]}
    raw = _deployment({"helm.sh/chart": "nim-llm-1.1.2"}, RELEASE, container=container, volumes=[shm])
    assert "change the values of release chat too" in _fix(raw, "shm").summary

    own = _deployment({"helm.sh/chart": "nim-llm-1.1.2"}, RELEASE)
    assert "set extraVolumes and extraVolumeMounts in the values of chart nim-llm" in _fix(own, "shm").summary


@pytest.mark.parametrize(
    ("raw", "at", "path"),
    [
        (
            {"kind": "Deployment", "metadata": {"name": "chat-deployment-vllm", "annotations": RELEASE}},
            "/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu",
            "resources.limits[nvidia.com/gpu]",
        ),
        (
            {"kind": "ClusterServingRuntime", "metadata": {"name": "kserve-huggingfaceserver", "annotations": RELEASE}},
            "/spec/hostIPC",
            "kserve.servingruntime.huggingfaceserver.hostIPC.enabled",
        ),
        (
            {
                "kind": "LeaderWorkerSet",
                "metadata": {"labels": {"helm.sh/chart": "nim-llm-1.1.2"}, "annotations": RELEASE},
            },
            "/spec/leaderWorkerTemplate/leaderTemplate/spec/containers/0/startupProbe/failureThreshold",
            "startupProbe.failureThreshold",
        ),
        (
            {
                "kind": "LeaderWorkerSet",
                "metadata": {"labels": {"helm.sh/chart": "nim-llm-1.1.2"}, "annotations": RELEASE},
            },
            "/spec/leaderWorkerTemplate/workerTemplate/spec/containers/0/startupProbe/failureThreshold",
            None,
        ),
    ],
)
def test_charts_that_are_known_by_the_names_of_their_objects(raw: dict[str, Any], at: str, path: str | None) -> None:
    kept = keeper(raw)
    assert kept
    values = kept.values([{"op": "add", "path": at, "value": 1}])
    assert (values[0].path if values else None) == path

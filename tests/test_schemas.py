"""Patches of custom resources have the fields and types that the definitions of their kinds have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.report.document import Fix, Patch
from tests import schemas
from tests.test_platforms import CASES as PLATFORMS
from tests.test_platforms import load, subject_of

_GET = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10, "failureThreshold": 60}
_PREFERENCE = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
_OF_POD: dict[str, Any] = {
    "/nodeSelector": {"a": "b"},
    "/enableServiceLinks": False,
    "/runtimeClassName": "nvidia",
    "/terminationGracePeriodSeconds": 600,
    "/tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}],
    "/hostIPC": False,
    "/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": _PREFERENCE}
    ],
    "/topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway"}],
    "/securityContext/fsGroup": 1000,
    "/priorityClassName": "high",
    "/schedulerName": "kai",
    "/serviceAccountName": "reader",
    "/automountServiceAccountToken": False,
    "/imagePullSecrets/-": {"name": "registry"},
    "/volumes/-": {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
}
_OF_CONTAINER: dict[str, Any] = {
    "/lifecycle": {"preStop": {"exec": {"command": ["sleep", "10"]}}},
    "/securityContext/privileged": False,
    "/securityContext/allowPrivilegeEscalation": False,
    "/securityContext/runAsNonRoot": True,
    "/securityContext/capabilities/drop": ["ALL"],
    "/securityContext/seccompProfile": {"type": "RuntimeDefault"},
    "/volumeMounts/-": {"name": "models", "mountPath": "/models", "readOnly": True},
    "/ports/-": {"name": "http", "containerPort": 8000},
    "/env/-": {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    "/command": ["vllm", "serve"],
    "/args": ["--port=8000"],
}


def _every_fix(pod: Pod, container: Container, engine: Engine | None) -> Iterator[Fix]:
    """Each thing that a fix may do to a container and its pod."""
    if engine:
        yield fixes.set_flag(engine, "max_model_len", "--max-model-len", "4321", "Cap the context")
    for kind, resource, value in (
        ("limits", "nvidia.com/gpu", "16"),
        ("limits", "memory", "64Gi"),
        ("limits", "ephemeral-storage", "64Gi"),
        ("requests", "cpu", "8"),
    ):
        yield fixes.set_resource(container, kind, resource, value, "Ask for it")
    yield fixes.mount_shm(container, "3Gi", "Mount memory")
    yield fixes.set_env(container, "NCCL_DEBUG", "INFO", "Say more")
    yield fixes.set_image(container, "vllm/vllm-openai:v0.10.0", "Take another")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield fixes.set_probe(container, probe, _GET, "Probe it")
        for field, number in (("timeoutSeconds", 5), ("initialDelaySeconds", 60), ("failureThreshold", 9)):
            operation = {"op": "add", "path": f"{container.pointer}/{probe}/{field}", "value": number}
            yield fixes.patch(pod, "Wait longer", [operation])
    for path, value in _OF_POD.items():
        yield fixes.set_spec(pod, path, value, "Set it")
    for path, value in _OF_CONTAINER.items():
        yield fixes.patch(pod, "Set it", [{"op": "add", "path": container.pointer + path, "value": value}])


def of_platform(path: Path) -> list[schemas.Found]:
    """Every patch that a fix may make of a platform's object, each with the object."""
    objects, expect = load(path)
    found = []
    subject = subject_of(objects, expect["kind"])
    for pod in subject.pods:
        engines = {engine.container.name: engine for engine in subject.engines(pod)}
        for container in pod.containers:
            for fix in _every_fix(pod, container, engines.get(container.name)):
                found += schemas.with_object(objects, fix)
    return found


#: Of these no fix is a patch of an object whose schema is here: kinds of Kubernetes, or objects that have no field for it.
_NOTHING_TO_HOLD = frozenset({
    "argo_application_text", "deployment", "deployment_config", "helm_chart", "inference_set", "job_set", "knative_revision",
    "kubeai_model_ollama", "mpi_job", "pytorch_job", "volcano_job", "workspace_config", "workspace_preset",
})  # fmt: skip


@pytest.mark.parametrize("path", PLATFORMS, ids=lambda p: p.stem)
def test_every_fix_of_a_platform_fits_its_schema(path: Path) -> None:
    made = of_platform(path)
    assert bool(made) == (path.stem not in _NOTHING_TO_HOLD)
    for raw, patch in made:
        assert schemas.misfits(raw, patch) == [], patch


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("/spec/template/spec/terminationGracePeriodSeconds", 600, "no such field"),
        ("/spec/template/spec/containers/0/lifecycle", {}, "no such field"),
        ("/spec/template/spec/timeoutSeconds", "600", "is no integer"),
        ("/spec/template/spec/nodeSelector", {"a": 1}, "is no string"),
        ("/spec/template/spec/containers/0/args", "--a", "is no array"),
    ],
)
def test_a_schema_refuses_what_its_kind_refuses(path: str, value: object, said: str) -> None:
    raw = next(o for o in load(next(p for p in PLATFORMS if p.stem == "knative_service"))[0] if "spec" in o)
    patch = Patch(target="", type="json", body=[{"op": "add", "path": path, "value": value}], diff=())
    (problem,) = schemas.misfits(raw, patch)
    assert said in problem


def _advice(golden: str, fix: str) -> str:
    objects, expect = load(next(p for p in PLATFORMS if p.stem == golden))
    subject = subject_of(objects, expect["kind"])
    container = subject.pods[0].containers[0]
    made = {
        "image": lambda: fixes.set_image(container, "nvcr.io/nim/meta/llama:1.13.0", "Take another"),
        "grace": lambda: fixes.set_spec(subject.pods[0], "/terminationGracePeriodSeconds", 600, "Wait"),
        "secret": lambda: fixes.patch(
            subject.pods[0],
            "Take it from a Secret",
            [{"op": "add", "path": f"{container.pointer}/env/-", "value": _OF_CONTAINER["/env/-"]}],
        ),
        "shm": lambda: fixes.mount_shm(container, "8Gi", "Mount memory"),
    }[fix]()
    assert made.patch is None
    assert made.commands == ()
    return made.summary


def test_what_a_kind_has_no_field_for_is_advice() -> None:
    told = "terminationGracePeriodSeconds: 600"
    assert _advice("knative_service", "grace") == f"Wait ({told}; Service/llama has no field for it)"
    assert _advice("serving_runtime", "grace").endswith("has no field for it)")
    assert _advice("model_service", "shm").endswith("has no field for it)")
    assert _advice("helm_chart", "grace") == f"Wait ({told}; in spec.valuesContent of HelmChart/llama)"
    assert "NIMService/llama" in _advice("nim_service", "image")
    assert "VLLMRuntime/llama" in _advice("vllm_runtime", "secret")

"""Which value of a Helm chart sets which field of the objects that it makes.

Sources, read in 2026-11: otwld/ollama-helm templates/deployment.yaml (1.77.0); vllm-project/production-stack
helm/templates/deployment-vllm-multi.yaml and _helpers.tpl (0.1.12); llm-d-incubation/llm-d-modelservice
charts/llm-d-modelservice/templates (0.4.12); ray-project/kuberay helm-chart/ray-cluster/templates (1.7);
substratusai/helm charts/text-generation-inference/templates/deployment.yaml (0.1.1); NVIDIA/nim-deploy
helm/nim-llm/templates/deployment.yaml (1.x). What a chart sets itself, or puts together from several values, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Chart(msgspec.Struct, frozen=True):
    """A chart, and its values by the fields that they set.

    `places` leads from a pointer inside the object to a values path; what stands below the one stands below the other.
    In a pointer `*` is any index, `[x]` the element of that name, `T` the pod spec. In a values path `[*]` is the index
    and `{}` the name of the model, the role or the worker group. `flags` are arguments of the engine that have values of
    their own. `repo` is empty where it cannot be read without an account.
    """

    repo: str
    places: Mapping[str, str]
    flags: Mapping[str, str] = {}


_POD = ("nodeSelector", "affinity", "tolerations")


def _same(*fields: str, at: str = "T/", under: str = "") -> dict[str, str]:
    """Values that are called like the field that they set."""
    return {at + field: under + field for field in fields}


def _probe(name: str, *fields: str) -> dict[str, str]:
    """A probe whose numbers are values, and whose path is one beside them."""
    numbers = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold")
    at = f"T/containers/0/{name}"
    return {f"{at}/httpGet/path": f"{name}.path"} | {f"{at}/{n}": f"{name}.{n}" for n in (*numbers, *fields)}


def _ray(at: str, under: str) -> dict[str, str]:
    pod = "volumes nodeSelector affinity tolerations priorityClassName topologySpreadConstraints runtimeClassName"
    container = "command args envFrom volumeMounts ports resources lifecycle securityContext"
    spec = f"{at}/template/spec/"
    return {
        **_same(*pod.split(), "serviceAccountName", "resourceClaims", "initContainers", at=spec, under=under),
        **_same(*container.split(), at=f"{spec}containers/0/", under=under),
        f"{spec}containers/0/env": f"{under}containerEnv",
        f"{spec}securityContext": f"{under}podSecurityContext",
        f"{at}/rayStartParams": f"{under}rayStartParams",
    }


def _stack() -> Chart:
    model, engine = "servingEngineSpec.modelSpec[{}].", "servingEngineSpec."
    resources = "T/containers/0/resources/"
    return Chart(
        repo="https://vllm-project.github.io/production-stack",
        places={
            "/spec/replicas": f"{model}replicaCount",
            "/spec/strategy": f"{engine}strategy",
            # a model with `resources` of its own ignores these
            f"{resources}limits/memory": f"{model}limitMemory (or resources)",
            f"{resources}limits/cpu": f"{model}limitCPU (or resources)",
            f"{resources}limits/nvidia.com~1gpu": f"{model}requestGPU (or resources)",
            f"{resources}requests/memory": f"{model}requestMemory (or resources)",
            f"{resources}requests/cpu": f"{model}requestCPU (or resources)",
            f"{resources}requests/nvidia.com~1gpu": f"{model}requestGPU (or resources)",
            "T/containers/0/env": f"{model}env",
            "T/containers/0/volumeMounts": f"{model}extraVolumeMounts",
            "T/containers/0/securityContext": f"{engine}containerSecurityContext",
            **_same("startupProbe", "livenessProbe", "readinessProbe", at="T/containers/0/", under=engine),
            "T/volumes": f"{model}extraVolumes",
            "T/volumes/[shm]/emptyDir/sizeLimit": f"{model}shmSize",
            "T/tolerations": f"{engine}tolerations",
            "T/affinity": f"{model}affinity",
            "T/priorityClassName": f"{model}priorityClassName",
            "T/runtimeClassName": f"{engine}runtimeClassName",
            "T/serviceAccountName": f"{model}serviceAccountName",
            "T/securityContext": f"{engine}securityContext",
            "T/schedulerName": f"{engine}schedulerName",
        },
        flags={
            "--max-model-len": f"{model}vllmConfig.maxModelLen",
            "--tensor-parallel-size": f"{model}vllmConfig.tensorParallelSize",
            "--gpu-memory-utilization": f"{model}vllmConfig.gpuMemoryUtilization",
            "--max-num-seqs": f"{model}vllmConfig.maxNumSeqs",
            "--dtype": f"{model}vllmConfig.dtype",
            "": f"{model}vllmConfig.extraArgs",
        },
    )


CHARTS: Mapping[str, Chart] = {
    "ollama": Chart(
        repo="https://helm.otwld.com",
        places={
            "/spec/replicas": "replicaCount",
            "/spec/strategy": "updateStrategy",
            **_same("resources", "volumeMounts", "lifecycle", "securityContext", at="T/containers/0/"),
            **_same(*_POD, "volumes", "topologySpreadConstraints", "runtimeClassName", "priorityClassName"),
            **_same("terminationGracePeriodSeconds", "hostIPC", "imagePullSecrets", "initContainers"),
            "T/containers/0/env": "extraEnv",
            "T/containers/0/envFrom": "extraEnvFrom",
            "T/containers/0/args": "extraArgs",
            "T/schedulerName": "podSchedulerName",
            "T/securityContext": "podSecurityContext",
            **_probe("livenessProbe"),
            **_probe("readinessProbe"),
        },
    ),
    "vllm-stack": _stack(),
    "llm-d-modelservice": Chart(
        repo="https://llm-d-incubation.github.io/llm-d-modelservice",
        places={
            **_same("replicas", "strategy", at="/spec/", under="{}."),
            **_same("nodeSelector", "tolerations", "volumes", "enableServiceLinks", under="{}."),
            **_same("terminationGracePeriodSeconds", "schedulerName", "priorityClassName", under="{}."),
            **_same("runtimeClassName", "topologySpreadConstraints", "hostIPC", under="{}.extraConfig."),
            **_same(
                *("image", "args", "env", "resources", "volumeMounts", "ports"),
                *("startupProbe", "livenessProbe", "readinessProbe", "securityContext"),
                at="T/containers/*/",
                under="{}.containers[*].",
            ),
            "T/containers/*/lifecycle": "{}.containers[*].extraConfig.lifecycle",
        },
    ),
    "ray-cluster": Chart(
        repo="https://ray-project.github.io/kuberay-helm",
        places={
            **_ray("/spec/headGroupSpec", "head."),
            **_ray("/spec/workerGroupSpecs/[workergroup]", "worker."),
            **_ray("/spec/workerGroupSpecs/*", "additionalWorkerGroups.{}."),
        },
    ),
    "text-generation-inference": Chart(
        repo="https://substratusai.github.io/helm",
        places={
            "/spec/replicas": "replicaCount",
            **_same("resources", "env", "securityContext", at="T/containers/0/"),
            **_same(*_POD, "imagePullSecrets"),
            "T/securityContext": "podSecurityContext",
        },
    ),
    "nim-llm": Chart(
        repo="",
        places={
            "/spec/replicas": "replicaCount",
            **_same("resources", "env", at="T/containers/0/"),
            **_same(*_POD, "imagePullSecrets"),
            "T/containers/0/args": "customArgs",
            "T/containers/0/command": "customCommand",
            "T/containers/0/securityContext": "containerSecurityContext",
            "T/securityContext": "podSecurityContext",
            **_probe("startupProbe"),
            **_probe("livenessProbe"),
            **_probe("readinessProbe"),
        },
    ),
}

"""Which value of a Helm chart sets which field of the objects that it makes.

Sources, read in 2026-11: otwld/ollama-helm templates/deployment.yaml (0.1 to 1.77); vllm-project/production-stack
helm/templates/deployment-vllm-multi.yaml and _helpers.tpl (0.0.2 to 0.1.12); llm-d-incubation/llm-d-modelservice
charts/llm-d-modelservice/templates (0.2.5 to 0.4.12); ray-project/kuberay helm-chart/ray-cluster/templates (1.0 to 1.7);
substratusai/helm charts/text-generation-inference/templates/deployment.yaml (0.1.1); NVIDIA/nim-deploy
helm/nim-llm/templates (1.1.2); triton-inference-server/server deploy/{aws,gcp,oci,k8s-onprem,fleetcommand,
gke-marketplace-app} (26.07); vllm-project/vllm examples/online_serving/chart-helm/templates; kserve/kserve
charts/kserve-runtime-configs (0.20) and charts/kserve-resources (0.16); NVIDIA/gpu-operator deployments/gpu-operator
(26.7). Every place was tried with `helm template`, but those of vLLM's example: the value set, the field looked at; `since`
is the first release for which that works. What a chart puts together from several values is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Chart(msgspec.Struct, frozen=True):
    """A chart, and its values by the fields that they set.

    `places` leads from a pointer inside the object to a values path; what stands below the one stands below the other.
    In a pointer `*` is any index, `[x]` the element of that name, `T` the pod spec. In a values path `[*]` is the index
    and `{}` the name of the model, the role, the worker group or the runtime; it is empty for what the chart sets itself,
    whatever its values. `flags` are arguments of the engine that have values of their own. `since` names the releases of
    the chart before which it has no such value, by the ends of pointers. `repo` is empty where it cannot be read without
    an account, or where the chart is a folder of a repository.
    """

    repo: str
    places: Mapping[str, str]
    flags: Mapping[str, str] = {}
    since: Mapping[str, str] = {}
    #: the places of its LeaderWorkerSet, where the values mean something else there
    nodes: Mapping[str, str] | None = None

    def born(self, place: str) -> str:
        """The first release that has the value of a place, as far as that is known; else empty."""
        return next((release for end, release in self.since.items() if place.endswith(end)), "")


_POD = ("nodeSelector", "affinity", "tolerations")
_NUMBERS = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold")
_AMOUNTS = ("limits.cpu", "limits.memory", "requests.cpu", "requests.memory")


def _same(*fields: str, at: str = "T/", under: str = "") -> dict[str, str]:
    """Values that are called like the field that they set."""
    return {at + field: under + field for field in fields}


def _probe(name: str) -> dict[str, str]:
    """A probe whose numbers are values, and whose path is one beside them."""
    at = f"T/containers/0/{name}"
    return {f"{at}/httpGet/path": f"{name}.path"} | {f"{at}/{n}": f"{name}.{n}" for n in _NUMBERS}


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


def _own(*volumes: str) -> dict[str, str]:
    """Volumes that a chart adds by itself."""
    lists = ("T/volumes/", "T/containers/0/volumeMounts/")
    return {f"{at}[{name}]": "" for at in lists for name in volumes}


def _nim_nodes() -> dict[str, str]:
    """The NIM chart's LeaderWorkerSet: only the leader serves, and what both run is the chart's."""
    found = {"/spec/replicas": "replicaCount", "/spec/leaderWorkerTemplate/size": "multiNode.workers"}
    places = {
        **_same(*_POD, "imagePullSecrets"),
        **_same("resources", "env", at="T/containers/0/"),
        "T/securityContext": "podSecurityContext",
        "T/initContainers": "initContainers.extraInit",
    }
    probes = _probe("startupProbe") | _probe("livenessProbe") | _probe("readinessProbe")
    for template, some in (("leaderTemplate", places | probes), ("workerTemplate", places)):
        at = f"/spec/leaderWorkerTemplate/{template}/spec/"
        found |= {place.replace("T/", at, 1): value for place, value in some.items()}
    return found


def _runtimes() -> Chart:
    """KServe's runtimes: their names stand for the charts, which set no labels."""
    runtime = "kserve.servingruntime.{}."
    shm = "/spec/volumes/[devshm]/emptyDir/sizeLimit"
    return Chart(
        repo="",
        places={
            "/spec/containers/0/securityContext": f"{runtime}securityContext",
            "/spec/containers/0/imagePullPolicy": f"{runtime}imagePullPolicy",
            "/spec/imagePullSecrets": f"{runtime}imagePullSecrets",
            "/spec/disabled": f"{runtime}disabled",
            "/spec/hostIPC": f"{runtime}hostIPC.enabled",
            shm: f"{runtime}devShm.sizeLimit",
        },
    )


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
            **_own("vllm-templates"),
        },
        since={
            "/spec/strategy": "0.0.6",
            "T/runtimeClassName": "0.0.3",
            "T/volumes/[shm]/emptyDir/sizeLimit": "0.0.4",
            **dict.fromkeys(("limits/memory", "limits/cpu", "volumeMounts", "T/volumes"), "0.1.1"),
            **dict.fromkeys(("securityContext", "T/schedulerName"), "0.1.1"),
            "T/serviceAccountName": "0.1.5",
            "T/priorityClassName": "0.1.7",
            **dict.fromkeys(("readinessProbe", "T/affinity"), "0.1.8"),
        },
        flags={
            "--max-model-len": f"{model}vllmConfig.maxModelLen",
            "--tensor-parallel-size": f"{model}vllmConfig.tensorParallelSize",
            "--gpu-memory-utilization": f"{model}vllmConfig.gpuMemoryUtilization",
            "--max-num-seqs": f"{model}vllmConfig.maxNumSeqs",
            "--dtype": f"{model}vllmConfig.dtype",
            "--revision": f"{model}modelRevision",
            "--tool-call-parser": f"{model}toolCallParser",
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
            **_own("ollama-data"),
        },
        since={
            "T/volumes": "0.3.1",
            **dict.fromkeys(("runtimeClassName", "containers/0/args"), "0.10.2"),
            "containers/0/env": "0.20",
            "/spec/strategy": "0.28.1",
            "initContainers": "0.29.1",
            "hostIPC": "0.44",
            "topologySpreadConstraints": "0.51",
            "lifecycle": "0.56",
            "envFrom": "0.65",
            "priorityClassName": "1.22",
            "terminationGracePeriodSeconds": "1.23",
            "schedulerName": "1.55",
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
            "T/volumes/[model-storage]": "",
        },
        since={
            **dict.fromkeys(("enableServiceLinks", "terminationGracePeriodSeconds"), "0.3.11"),
            "nodeSelector": "0.3.12",
            "priorityClassName": "0.4.8",
            "/spec/strategy": "0.4.11",
        },
    ),
    "ray-cluster": Chart(
        repo="https://ray-project.github.io/kuberay-helm",
        places={
            **_ray("/spec/headGroupSpec", "head."),
            **_ray("/spec/workerGroupSpecs/[workergroup]", "worker."),
            **_ray("/spec/workerGroupSpecs/*", "additionalWorkerGroups.{}."),
        },
        since={
            **dict.fromkeys(("priorityClassName", "spec/securityContext"), "1.2"),
            "topologySpreadConstraints": "1.4",
            **dict.fromkeys(("runtimeClassName", "resourceClaims"), "1.6"),
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
            "T/initContainers": "initContainers.extraInit",
            "T/volumes": "extraVolumes",
            "T/containers/0/volumeMounts": "extraVolumeMounts",
            **_own("dshm", "scripts-volume", "model-store"),
            "T/volumes/[model-store]/persistentVolumeClaim/claimName": "persistence.existingClaim",
            "T/containers/0/env/[NIM_SERVER_PORT]/value": "model.openaiPort",
            "T/containers/0/env/[NIM_CACHE_PATH]/value": "model.nimCache",
            "T/containers/0/env/[NIM_LOG_LEVEL]/value": "model.logLevel",
            **_probe("startupProbe"),
            **_probe("livenessProbe"),
            **_probe("readinessProbe"),
        },
        nodes=_nim_nodes(),
    ),
    "triton-inference-server": Chart(
        repo="",
        places={
            "T/containers/0/resources/limits/nvidia.com~1gpu": "image.numGpus",
            # the chart of Google's marketplace, which is numbered after Triton
            **{
                f"T/containers/0/{probe}/{number}": f"deployment.{probe}.{number}"
                for probe in ("livenessProbe", "readinessProbe")
                for number in _NUMBERS
            },
            "/spec/replicas": "initReplicaCount",
        },
        since={**dict.fromkeys(_NUMBERS, "2"), "/spec/replicas": "2"},
    ),
    "chart-vllm": Chart(
        repo="",
        places={
            "/spec/replicas": "replicaCount",
            "/spec/strategy": "deploymentStrategy",
            **_same("livenessProbe", "readinessProbe", "startupProbe", at="T/containers/0/"),
            **{f"T/containers/0/resources/{path.replace('.', '/')}": f"resources.{path}" for path in _AMOUNTS},
            "T/containers/0/resources/limits/nvidia.com~1gpu": "resources.limits[nvidia.com/gpu]",
            "T/containers/0/command": "image.command",
            "T/containers/0/env": "image.env",
            "T/containers/0/securityContext": "image.securityContext",
            **_same("nodeSelector", "tolerations"),
        },
    ),
    "kserve-runtime-configs": _runtimes(),
}

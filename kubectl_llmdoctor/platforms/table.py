"""Which kinds lead to pods, and how.

Kinds that hold pod templates as they are stand here as data, each with the source of the path. The others have a reader
of their own: their operator builds the pod from fields. Sources are the API types of each project, read in 2026-08.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import msgspec

from kubectl_llmdoctor.platforms.labels import WORKER_INDEX
from kubectl_llmdoctor.tree import rows, table

from .pointer import Json, show
from .template import Finder, Template, expand

Reader = Callable[[Json, Finder], list[Template]]


class Row(msgspec.Struct, frozen=True):
    """Where pod templates stand in a kind.

    `path` leads to them; `*` is each element of a list, each value of a mapping. `labels` of the pods may hold `{}` for
    the name of the part, which is the element's `name` or the mapping's key, and `{1}` for that in small letters.
    """

    path: str
    labels: tuple[tuple[str, str], ...] = ()
    #: pods of one replica: a dotted path to their number, from the element on where it begins with a dot; empty for one, `?` where it is
    #: not known
    nodes: str = ""
    #: a pod spec stands there without metadata
    bare: bool = False
    context: bool = False
    immutable: bool = False
    #: another object may say more about the pod
    partial: bool = False
    #: the name of the part; `{}` is the name of the element that `*` stands for
    part: str = "{}"
    #: the fields of a pod spec that the kind has, where it has not all
    only: tuple[str, ...] = ()
    #: the fields of a container that it has not
    lacks: tuple[str, ...] = ()


_LWS_SIZE = "spec.leaderWorkerTemplate.size"
_LLMAZ_SIZE = "spec.workloadTemplate.size"

# knative/serving config/core/300-resources/service.yaml: the grace period follows from `timeoutSeconds`.
_KNATIVE = (
    "affinity automountServiceAccountToken containerConcurrency containers dnsConfig dnsPolicy enableServiceLinks"
    " hostAliases hostIPC hostNetwork hostPID idleTimeoutSeconds imagePullSecrets initContainers nodeSelector"
    " priorityClassName responseStartTimeoutSeconds runtimeClassName schedulerName securityContext serviceAccountName"
    " shareProcessNamespace timeoutSeconds tolerations topologySpreadConstraints volumes"
)
_KNATIVE_LACKS = ("lifecycle", "restartPolicy", "resizePolicy", "stdin", "tty", "volumeDevices")

_MODEL_SERVICE_LACKS = (
    "imagePullPolicy lifecycle livenessProbe ports readinessProbe resizePolicy restartPolicy securityContext startupProbe"
    " stdin tty volumeDevices volumeMounts workingDir"
)

# kserve/kserve config/crd/full/serving.kserve.io_servingruntimes.yaml
_RUNTIME = "affinity containers hostIPC imagePullSecrets nodeSelector resourceClaims schedulerName tolerations volumes"

#: sgl-project/rbg api/workloads/v1alpha1 and v1alpha2: the roles with templates of their own
ROLES = (
    Row("spec.roles.*.template", (("rbg.workloads.x-k8s.io/role-name", "{}"),), nodes="?"),
    Row("spec.roles.*.standalonePattern.template", (("rbg.workloads.x-k8s.io/role-name", "{}"),)),
    Row("spec.roles.*.leaderWorkerPattern.template", (("rbg.workloads.x-k8s.io/role-name", "{}"),), nodes="?"),
)

ROWS: dict[tuple[str, str], tuple[Row, ...]] = {
    ("apps", "Deployment"): (Row("spec.template"),),
    ("apps", "ReplicaSet"): (Row("spec.template"),),
    ("apps", "StatefulSet"): (Row("spec.template"),),
    ("apps", "DaemonSet"): (Row("spec.template"),),
    ("", "ReplicationController"): (Row("spec.template"),),
    # The API server refuses a change of a Job's template.
    ("batch", "Job"): (Row("spec.template", immutable=True),),
    ("batch", "CronJob"): (Row("spec.jobTemplate.spec.template"),),
    # openshift/api apps/v1, openkruise/kruise-api apps/v1alpha1, kedacore/keda apis/keda/v1alpha1
    ("apps.openshift.io", "DeploymentConfig"): (Row("spec.template"),),
    ("apps.kruise.io", "CloneSet"): (Row("spec.template"),),
    ("keda.sh", "ScaledJob"): (Row("spec.jobTargetRef.template"),),
    # argoproj/argo-rollouts pkg/apis/rollouts/v1alpha1/types.go
    ("argoproj.io", "Rollout"): (Row("spec.template"),),
    # knative/serving pkg/apis/serving/v1
    ("serving.knative.dev", "Service"): (Row("spec.template", only=tuple(_KNATIVE.split()), lacks=_KNATIVE_LACKS),),
    ("serving.knative.dev", "Configuration"): (
        Row("spec.template", only=tuple(_KNATIVE.split()), lacks=_KNATIVE_LACKS),
    ),
    ("serving.knative.dev", "Revision"): (Row("spec", bare=True, immutable=True),),
    # kubernetes-sigs/lws api/leaderworkerset/v1: without a leader template the worker's is used for all
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"): (
        Row("spec.leaderWorkerTemplate.leaderTemplate", ((WORKER_INDEX, "0"),), nodes=_LWS_SIZE, part="leader"),
        Row("spec.leaderWorkerTemplate.workerTemplate", nodes=_LWS_SIZE, part="worker"),
    ),
    # InftyAI/llmaz api/inference/v1alpha1/service_types.go: it becomes a LeaderWorkerSet, to which the model adds its loader and GPUs
    ("inference.llmaz.io", "Service"): (
        Row(
            "spec.workloadTemplate.leaderTemplate",
            ((WORKER_INDEX, "0"),),
            nodes=_LLMAZ_SIZE,
            partial=True,
            part="leader",
        ),
        Row("spec.workloadTemplate.workerTemplate", nodes=_LLMAZ_SIZE, partial=True, part="worker"),
    ),
    # kubernetes-sigs/jobset api/jobset/v1alpha2
    ("jobset.x-k8s.io", "JobSet"): (
        Row(
            "spec.replicatedJobs.*.template.spec.template",
            (("jobset.sigs.k8s.io/replicatedjob-name", "{}"),),
            nodes="?",
            immutable=True,
        ),
    ),
    # ai-dynamo/grove operator/api/core/v1alpha1: a PodClique is named <set>-<replica>-<clique>
    ("grove.io", "PodCliqueSet"): (
        Row("spec.template.cliques.*.spec.podSpec", (("grove.io/podclique", "*-{}"),), nodes="?", bare=True),
    ),
    ("grove.io", "PodClique"): (Row("spec.podSpec", nodes="?", bare=True),),
    # vllm-project/aibrix api/orchestration/v1alpha1, pkg/controller/constants/stormservice.go
    ("orchestration.aibrix.ai", "StormService"): (
        Row("spec.template.spec.roles.*.template", (("role-name", "{}"),), nodes=".podGroupSize"),
    ),
    ("orchestration.aibrix.ai", "RoleSet"): (
        Row("spec.roles.*.template", (("role-name", "{}"),), nodes=".podGroupSize"),
    ),
    ("orchestration.aibrix.ai", "PodSet"): (Row("spec.template", nodes="spec.podGroupSize"),),
    # volcano-sh/kthena pkg/apis/workload/v1alpha1/servinggroup_types.go, labels.go
    ("workload.serving.volcano.sh", "ModelServing"): (
        Row(
            "spec.template.roles.*.entryTemplate",
            (("modelserving.volcano.sh/role", "{}"), ("modelserving.volcano.sh/entry", "true")),
            nodes="?",
        ),
        Row(
            "spec.template.roles.*.workerTemplate",
            (("modelserving.volcano.sh/role", "{}"),),
            nodes="?",
            part="{} worker",
        ),
    ),
    # kubeflow/training-operator pkg/apis/kubeflow.org/v1
    ("kubeflow.org", "PyTorchJob"): (
        Row(
            "spec.pytorchReplicaSpecs.*.template",
            (("training.kubeflow.org/replica-type", "{1}"),),
            nodes="?",
            immutable=True,
        ),
    ),
    ("kubeflow.org", "MPIJob"): (Row("spec.mpiReplicaSpecs.*.template", nodes="?", immutable=True),),
    # volcano-sh/apis pkg/apis/batch/v1alpha1
    ("batch.volcano.sh", "Job"): (Row("spec.tasks.*.template", nodes="?", immutable=True),),
    # llm-d/llm-d-model-service api/v1alpha1/modelservice_types.go: completed by a ConfigMap of presets
    ("llm-d.ai", "ModelService"): (
        *(
            Row(
                f"spec.{role}",
                (("llm-d.ai/role", role),),
                bare=True,
                partial=True,
                part=role,
                only=("containers", "initContainers"),
                lacks=tuple(_MODEL_SERVICE_LACKS.split()),
            )
            for role in ("decode", "prefill")
        ),
    ),
    # kserve/kserve pkg/apis/serving/v1alpha1/servingruntime_types.go: what InferenceServices are made from
    ("serving.kserve.io", "ServingRuntime"): (Row("spec", bare=True, context=True, only=tuple(_RUNTIME.split())),),
    ("serving.kserve.io", "ClusterServingRuntime"): (
        Row("spec", bare=True, context=True, only=tuple(_RUNTIME.split())),
    ),
}

#: Kinds whose operator builds the pod from fields: the module here, and its function.
_BUILT: dict[tuple[str, str], tuple[str, str]] = {
    ("serving.kserve.io", "InferenceService"): ("kserve", "inference_service"),
    ("serving.kserve.io", "LLMInferenceService"): ("kserve", "llm_inference_service"),
    ("serving.kubeflow.org", "InferenceService"): ("kserve", "inference_service"),  # its name until KServe 0.7
    ("ray.io", "RayCluster"): ("ray", "ray_cluster"),
    ("ray.io", "RayService"): ("ray", "ray_service"),
    ("ray.io", "RayJob"): ("ray", "ray_job"),
    ("orchestration.aibrix.ai", "RayClusterFleet"): ("ray", "ray_cluster_fleet"),
    ("orchestration.aibrix.ai", "RayClusterReplicaSet"): ("ray", "ray_cluster_fleet"),
    ("apps.nvidia.com", "NIMService"): ("nim", "nim_service"),
    ("apps.nvidia.com", "NIMPipeline"): ("nim", "nim_pipeline"),
    ("nvidia.com", "DynamoGraphDeployment"): ("dynamo", "graph"),
    ("nvidia.com", "DynamoComponentDeployment"): ("dynamo", "component"),
    ("production-stack.vllm.ai", "VLLMRuntime"): ("production_stack", "vllm_runtime"),
    ("kubeai.org", "Model"): ("kubeai", "kubeai_model"),
    ("inference.llmkube.dev", "InferenceService"): ("llmkube", "llmkube_service"),
    ("workload.serving.volcano.sh", "ModelBooster"): ("kthena", "model_booster"),
    ("ome.io", "InferenceService"): ("ome", "ome_service"),
    ("ome.io", "ServingRuntime"): ("ome", "ome_runtime"),
    ("ome.io", "ClusterServingRuntime"): ("ome", "ome_runtime"),
    ("kaito.sh", "Workspace"): ("kaito", "workspace"),
    ("kaito.sh", "InferenceSet"): ("kaito", "inference_set"),
    ("workloads.x-k8s.io", "RoleBasedGroup"): ("rbg", "role_based_group"),
    ("arks.ai", "ArksApplication"): ("arks", "application"),
    ("arks.ai", "ArksDisaggregatedApplication"): ("arks", "disaggregated"),
    ("inference.llmaz.io", "Playground"): ("llmaz", "playground"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"): ("helm", "release"),
    ("argoproj.io", "Application"): ("helm", "application"),
    ("helm.cattle.io", "HelmChart"): ("helm", "chart"),
}


def is_release(api_version: str, kind: str) -> bool:
    """Whether objects of this kind are releases: the pods are those of the objects that a chart is rendered to, if any."""
    return _BUILT.get((api_version.rpartition("/")[0], kind), ("", ""))[0] == "helm"


def reader_of(api_version: str, kind: str) -> Reader | None:
    """What reads this kind; None for one that leads to no pods. The version does not matter."""
    key = api_version.rpartition("/")[0], kind
    if key in ROWS:
        return _read_rows
    if key in _BUILT:
        module, function = _BUILT[key]
        found: Reader = getattr(import_module(f".{module}", __package__), function)
        return found
    return None


def _read_rows(raw: Json, _find: Finder) -> list[Template]:
    key = str(raw.get("apiVersion") or "").rpartition("/")[0], str(raw.get("kind") or "")
    return [template for row in ROWS[key] for template in of_row(raw, row)]


def of_row(raw: Json, row: Row) -> list[Template]:
    """The templates of an object that stand where a row says."""
    found = []
    for pointer, tree, stars in expand(raw, row.path):
        if not isinstance(tree, dict):
            continue
        pod = {"metadata": {}, "spec": tree} if row.bare else tree
        if row.bare and row.path == "spec.podSpec":  # a PodClique has its labels on itself
            pod = {"metadata": table(raw.get("metadata")), "spec": tree}
        at = pointer if row.bare else f"{pointer}/spec"
        name, element = "", None
        if stars:
            key, element = stars[-1]
            name = str(element.get("name") or key) if isinstance(element, dict) else key
        found.append(
            Template(
                raw=raw,
                pod=pod,
                places=_places(row, at, pod.get("spec")),
                base=show(raw, at),
                part=row.part.format(name),
                labels={key: value.format(name, name.lower()) for key, value in row.labels},
                nodes=_of_element(table(element), row.nodes[1:])
                if row.nodes.startswith(".")
                else _nodes(raw, row.nodes),
                context=row.context,
                partial=row.partial,
                immutable=row.immutable,
            )
        )
    return found


def _places(row: Row, at: str, spec: object) -> tuple[tuple[str, str], ...]:
    if not row.only:
        return (("", at),)
    lacking = [
        (f"/{kind}/{index}/{field}", "")
        for kind in ("containers", "initContainers")
        for index in range(len(rows(table(spec).get(kind))))
        for field in row.lacks
    ]
    return (("", ""), *((f"/{field}", f"{at}/{field}") for field in row.only), *lacking)


def _nodes(raw: Json, path: str) -> int | None:
    if not path:
        return 1
    if path == "?":
        return None
    sizes = [tree for _, tree, _ in expand(raw, path) if isinstance(tree, int)]
    return sizes[0] if sizes else 1


def _of_element(element: Json, field: str) -> int | None:
    """The pods of one replica by a field of the part, which is one without it; ranks may also be counted as replicas of the part."""
    size = element.get(field)
    if isinstance(size, int):
        return max(size, 1)
    return 1 if size is None and element.get("replicas") in (None, 1) else None

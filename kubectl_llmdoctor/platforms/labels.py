"""The labels of pods that name the object behind them, and those that pods of one replica have in common.

Sources: KServe pkg/constants, KubeRay controllers/ray/utils/constant.go, LeaderWorkerSet and JobSet API, Dynamo
internal/consts, the NIM operator's nimservice_types.go, Grove api/common/labels.go, AIBrix pkg/controller/constants,
kthena pkg/apis/workload/v1alpha1/labels.go, rbg api/workloads/constants/label.go, Volcano and training-operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

#: Keys by which operators name the object behind a pod, or what a pod is in it.
RAY_CLUSTER, RAY_NODE_TYPE = "ray.io/cluster", "ray.io/node-type"
WORKER_SET = "leaderworkerset.sigs.k8s.io/name"
WORKER_GROUP, WORKER_INDEX = "leaderworkerset.sigs.k8s.io/group-index", "leaderworkerset.sigs.k8s.io/worker-index"
INFERENCE_SERVICE = "serving.kserve.io/inferenceservice"
KNATIVE_SERVICE, KNATIVE_REVISION = "serving.knative.dev/service", "serving.knative.dev/revision"
DYNAMO_GRAPH = "nvidia.com/dynamo-graph-deployment-name"
#: The recommended ones, which operators and Helm charts use.
APP_NAME, PART_OF, MANAGED_BY = "app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/managed-by"
#: By which a workload names its LocalQueue of Kueue.
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"


class OwnerLabel(msgspec.Struct, frozen=True):
    """A label or annotation whose value names the object behind a pod, where ownerReferences do not lead there."""

    key: str
    group: str
    kind: str
    #: further labels that must have these values
    only: tuple[tuple[str, str], ...] = ()

    def name_in(self, labels: Mapping[str, object]) -> str:
        """The name that labels give; empty where they name no such object."""
        name = labels.get(self.key)
        return str(name) if name and all(labels.get(key) == value for key, value in self.only) else ""


#: The nearest objects first.
OWNERS = (
    OwnerLabel(WORKER_SET, "leaderworkerset.x-k8s.io", "LeaderWorkerSet"),
    OwnerLabel(RAY_CLUSTER, "ray.io", "RayCluster"),
    OwnerLabel("jobset.sigs.k8s.io/jobset-name", "jobset.x-k8s.io", "JobSet"),
    OwnerLabel(KNATIVE_SERVICE, "serving.knative.dev", "Service"),
    OwnerLabel(PART_OF, "grove.io", "PodCliqueSet", ((MANAGED_BY, "grove-operator"),)),
    OwnerLabel(
        "ray.io/originated-from-cr-name", "ray.io", "RayService", (("ray.io/originated-from-crd", "RayService"),)
    ),
    OwnerLabel("ray.io/originated-from-cr-name", "ray.io", "RayJob", (("ray.io/originated-from-crd", "RayJob"),)),
    OwnerLabel(INFERENCE_SERVICE, "serving.kserve.io", "InferenceService"),
    OwnerLabel(
        APP_NAME,
        "serving.kserve.io",
        "LLMInferenceService",
        ((PART_OF, "llminferenceservice"),),
    ),
    OwnerLabel(DYNAMO_GRAPH, "nvidia.com", "DynamoGraphDeployment"),
    OwnerLabel(APP_NAME, "apps.nvidia.com", "NIMService", ((PART_OF, "nim-service"),)),
    OwnerLabel("storm-service-name", "orchestration.aibrix.ai", "StormService"),
    OwnerLabel("modelserving.volcano.sh/name", "workload.serving.volcano.sh", "ModelServing"),
    OwnerLabel("rbg.workloads.x-k8s.io/group-name", "workloads.x-k8s.io", "RoleBasedGroup"),
    OwnerLabel("inference.llmkube.dev/service", "inference.llmkube.dev", "InferenceService"),
    OwnerLabel("model", "kubeai.org", "Model", ((MANAGED_BY, "kubeai"),)),
)

_KEYS = frozenset(row.key for row in OWNERS)

#: API groups whose objects serve models, whatever their pods look like.
_SERVING_GROUPS = frozenset({
    "serving.kserve.io", "apps.nvidia.com", "nvidia.com", "orchestration.aibrix.ai",
    "workload.serving.volcano.sh", "workloads.x-k8s.io", "inference.llmkube.dev", "kubeai.org",
})  # fmt: skip

#: Labels that all pods of one replica have in common when they live and die together.
GROUPS = (
    (WORKER_SET, WORKER_GROUP),
    (RAY_CLUSTER,),
    ("jobset.sigs.k8s.io/jobset-name", "jobset.sigs.k8s.io/restart-attempt"),
    ("grove.io/podcliquescalinggroup", "grove.io/podcliquescalinggroup-replica-index"),
    ("modelserving.volcano.sh/group-name", "modelserving.volcano.sh/role", "modelserving.volcano.sh/role-id"),
    ("stormservice.orchestration.aibrix.ai/podset-name",),
    ("rbg.workloads.x-k8s.io/role-instance-name",),
    ("training.kubeflow.org/job-name",),
    ("volcano.sh/job-name",),
)

#: Labels that tell which part of a replica a pod is: the key, and the words before its value.
_RANKS = (
    (WORKER_INDEX, "worker"),
    ("grove.io/podclique-pod-index", "pod"),
    ("training.kubeflow.org/replica-index", "worker"),
    ("batch.kubernetes.io/job-completion-index", "worker"),
)


def owners_named(labels: Mapping[str, object]) -> Iterator[tuple[OwnerLabel, str]]:
    """The objects that labels name behind a pod, the nearest first, each with its name."""
    if _KEYS.isdisjoint(labels):  # most pods of a cluster
        return
    for row in OWNERS:
        if name := row.name_in(labels):
            yield row, name


def of_served_model(labels: Mapping[str, object]) -> bool:
    """Whether labels name an object of an operator that serves models."""
    return any(row.group in _SERVING_GROUPS for row, _ in owners_named(labels))


def named_by(labels: Mapping[str, object]) -> tuple[str, str]:
    """Kind and name of the farthest object that labels name behind a pod; empty where they name none."""
    named = [(row.kind, name) for row, name in owners_named(labels)]
    return named[-1] if named else ("", "")


def group_key(namespace: str, labels: Mapping[str, object]) -> tuple[str, ...]:
    """What all pods share that live and die together; empty for a pod that stands alone."""
    for keys in GROUPS:
        if labels.get(keys[0]):
            return (namespace, keys[0], *(str(labels.get(key, "")) for key in keys))
    return ()


def rank_of(labels: Mapping[str, object]) -> str:
    """Which part of its replica a pod is: `leader`, `worker 3`, `head`; empty where no label tells."""
    if labels.get(RAY_NODE_TYPE):
        return "head" if labels[RAY_NODE_TYPE] == "head" else f"worker of {labels.get('ray.io/group', 'Ray')}"
    for key, word in _RANKS:
        if key in labels:
            leads = key == WORKER_INDEX and str(labels[key]) == "0"
            return "leader" if leads else f"{word} {labels[key]}"
    return ""

"""How many GPUs the pods of one replica have together, as far as a manifest says."""

from typing import Any

from kubectl_llmdoctor.api import Engine, Pod, Subject, count_of, dig, rows

#: Where a kind of KubeRay's holds its cluster.
_RAY = {"RayCluster": "spec", "RayService": "spec.rayClusterConfig", "RayJob": "spec.rayClusterSpec"}

#: How many pods a group of a LeaderWorkerSet has, on each of them (api/leaderworkerset/v1).
_GROUP_SIZE = "leaderworkerset.sigs.k8s.io/size"

_DYNAMO = ("DynamoGraphDeployment", "DynamoComponentDeployment")


def gpus_of_group(pod: Pod, engine: Engine, subject: Subject) -> tuple[int, str] | None:
    """The GPUs of all pods over which the engine's workers may stand, and in words whose they are; None where unknown."""
    if pod.exists:
        total = _of_whole_group(pod, subject)
        return (total, f"the {count_of(len(subject.pods), 'pod')} of its group have") if total is not None else None
    kind = pod.template_of.kind if pod.template_of else ""
    own, name, nodes = engine.container.devices, engine.container.name, engine.value("nnodes", 1)
    if kind == "LeaderWorkerSet":
        total = _leader_and_workers(pod, subject)
        return (total, f"the {count_of(pod.nodes or 1, 'pod')} of a group have") if total is not None else None
    if kind in _RAY:
        total = _ray(pod, subject, _RAY[kind])
        return (total, "all pods of the Ray cluster together have at most") if total is not None else None
    if kind in _DYNAMO and own is not None and pod.nodes:
        return own * pod.nodes, f"container {name} has" if pod.nodes == 1 else f"its {pod.nodes} pods have"
    if kind == "LLMInferenceService" and own and nodes == 1 and pod.nodes == 1:
        return own, f"container {name} has"
    if kind == "InferenceService" and own and nodes == 1:
        raw = pod.template_of.raw if pod.template_of else {}
        whole = str(raw.get("apiVersion", "")).startswith("serving.kserve.io/")
        return (own, f"container {name} has") if whole and dig(raw, "spec.predictor.workerSpec") is None else None
    if kind in ("Deployment", "StatefulSet", "Job", "Pod") and own and isinstance(nodes, int) and nodes > 1:
        return own * nodes, f"{nodes} pods like this one have"
    return None


def _devices(pod: Pod) -> int | None:
    """The GPUs of a pod; None where claims or other accelerators make the number unknown."""
    if pod.spec.resource_claims:
        return None
    counts = [container.devices for container in pod.containers if container.role != "init"]
    return None if None in counts else sum(count or 0 for count in counts)


def _of_whole_group(pod: Pod, subject: Subject) -> int | None:
    """Of pods that exist those of a LeaderWorkerSet's group, where all of them are there."""
    size, counts = pod.annotations.get(_GROUP_SIZE, ""), [_devices(member) for member in subject.pods]
    whole = size.isdecimal() and len(size) < 6 and int(size) == len([p for p in subject.pods if p.exists])
    return sum(count or 0 for count in counts) if whole and None not in counts else None


def _leader_and_workers(pod: Pod, subject: Subject) -> int | None:
    """A LeaderWorkerSet without a template for leaders makes them of the one for workers."""
    size = pod.nodes
    counts = {member.template.part if member.template else "": _devices(member) for member in subject.pods}
    workers = counts.get("worker")
    leader = counts.get("leader", workers)
    return leader + (size - 1) * workers if size and workers is not None and leader is not None else None


def _ray(pod: Pod, subject: Subject, at: str) -> int | None:
    """The head's and all workers' GPUs, with the autoscaler as many of them as it may start."""
    spec = dig(pod.template_of.raw, at) if pod.template_of else None
    if not isinstance(spec, dict):
        return None
    groups = {
        f"workers {group.get('groupName') or index}": group
        for index, group in enumerate(rows(spec, "workerGroupSpecs"))
    }
    groups["head"] = dig(spec, "headGroupSpec") or {}
    total = 0
    for member in subject.pods:
        group = groups.get(member.template.part if member.template else "")
        gpus, count = _devices(member), 1 if group is groups["head"] else _started(group or {}, spec)
        # what KubeRay is told of a group's resources itself goes before the parameters of its `ray start`
        stated = str(dig(group, "resources.GPU") or dig(group, "rayStartParams.num-gpus") or "0")
        if group is None or gpus is None or count is None or not stated.isdecimal():
            return None
        total += max(gpus, int(stated)) * count
    return total


def _started(group: dict[str, Any], spec: dict[str, Any]) -> int | None:
    """How many pods a group of workers may have; None where nothing caps it."""
    stated = [group.get("replicas", 1), group.get("minReplicas", 0)]
    if spec.get("enableInTreeAutoscaling"):
        stated.append(group.get("maxReplicas"))
    counts, hosts = [count for count in stated if isinstance(count, int)], group.get("numOfHosts", 1)
    return max(counts) * hosts if len(counts) == len(stated) and isinstance(hosts, int) else None

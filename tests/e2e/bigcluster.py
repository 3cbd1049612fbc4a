"""A large cluster in which models are served: most of its workloads are well, some are broken in ways that are recorded.

The broken ones are cases of the checks, put into a Deployment of their own; what they say and how they fare is untouched.
"""

import copy
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .play import _moved, read_snapshot
from .test_scale import BEGAN, _node, _pod

Object = dict[str, Any]

CASES = Path(__file__).parents[2] / "checks" / "cases"
#: Each way to be broken: the id of the check that must name it, and the recorded case.
WAYS = (
    ("image-pull-failed", "fires_no_such_tag"),
    ("secret-missing", "fires_key"),
    ("cuda-oom-weights", "fires_by_phase"),
    ("engine-args-invalid", "fires_log_batch_below_length"),
    ("port-in-use", "fires_second_server"),
    ("weights-corrupt", "fires_git_lfs_pointer"),
    ("hf-unauthorized", "fires_gated_line"),
    ("probe-too-short", "fires_by_time"),
    ("oomkilled-host", "fires_loading"),
    ("kv-cache-below-max-len", "fires_estimated"),
)
NAMESPACES = 40
TAKEN = "2026-11-20T10:00:00Z"


def cluster(nodes: int, pods: int, models: int, broken: int) -> tuple[Object, dict[str, str]]:
    """A snapshot to play, and the id that must be found by the workload that is broken, `team-3/model-00003`.

    Of `pods` so many are `models`, each with a Deployment of its own, and of these so many are `broken`; the others
    belong to Deployments of thirty.
    """
    gpu_nodes = -(-models // 8)
    objects: list[Object] = [_any_node(number, gpu=number < gpu_nodes) for number in range(nodes)]
    expected: dict[str, str] = {}
    logs: list[Object] = []
    for number in range(models):
        pod = _pod(0)
        pod["spec"]["nodeName"] = objects[number // 8]["metadata"]["name"]
        name, namespace = f"model-{number:05}", f"team-{number % NAMESPACES}"
        pod["metadata"] |= {"name": f"{name}-5c9f7b6d8-x{number % 97:02}", "namespace": namespace}
        if number < broken:
            id, case = WAYS[number % len(WAYS)]
            expected[f"{namespace}/{name}"] = id
            events, said = _broken(pod, CASES / id / f"{case}.yaml")
            objects += events
            logs += said
        objects += _workload(name, [pod])
    others = [_pod(10**6 + number) for number in range(pods - models)]
    for start in range(0, len(others), 30):
        number = start // 30
        some = others[start : start + 30]
        for place, pod in enumerate(some):
            pod["metadata"] |= {
                "name": f"app-{number:04}-7d8f9c-{place:02}",
                "namespace": f"team-{number % NAMESPACES}",
            }
            pod["spec"]["nodeName"] = objects[gpu_nodes + (start + place) % (nodes - gpu_nodes)]["metadata"]["name"]
        objects += _workload(f"app-{number:04}", some)
    return {"takenAt": TAKEN, "objects": objects, "logs": logs}, expected


def _any_node(number: int, *, gpu: bool) -> Object:
    node = _node(number % 3 if gpu else 1000 + number % 3)
    node["metadata"]["name"] = node["metadata"]["labels"]["kubernetes.io/hostname"] = f"node-{number:04}"
    node["metadata"]["uid"] = f"node-{number}"
    return node


def _broken(pod: Object, path: Path) -> tuple[list[Object], list[Object]]:
    """Makes a pod fare as the recorded one; returns the events and logs that belong to it."""
    case = read_snapshot(path)
    shift = datetime.datetime.fromisoformat(TAKEN) - datetime.datetime.fromisoformat(case["takenAt"])
    recorded = next(item for item in case["objects"] if item["kind"] == "Pod")
    node = pod["spec"]["nodeName"]
    pod["spec"] = copy.deepcopy(recorded["spec"])
    if recorded["spec"].get("nodeName"):
        pod["spec"]["nodeName"] = node
    pod["status"] = _moved(copy.deepcopy(recorded["status"]), shift)
    pod["metadata"]["creationTimestamp"] = _moved(recorded["metadata"]["creationTimestamp"], shift)
    own = {"namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"]}
    events: list[Object] = []
    for item in case["objects"]:
        if item["kind"] == "Event":
            event: Object = _moved(copy.deepcopy(item), shift)
            event["metadata"] |= {
                "name": f"{own['name']}.{len(events)}",
                "namespace": own["namespace"],
            }
            event["involvedObject"] |= own
            event["involvedObject"].pop("uid", None)
            events.append(event)
    logs = [log | {"namespace": own["namespace"], "pod": own["name"]} for log in case.get("logs", [])]
    return events, logs


def _workload(name: str, pods: list[Object]) -> Iterator[Object]:
    """The pods with the Deployment that they belong to, a Service, and what the kubelet said when they started."""
    namespace, labels = pods[0]["metadata"]["namespace"], {"app": name}
    template = {"metadata": {"labels": labels}, "spec": copy.deepcopy(pods[0]["spec"])}
    template["spec"].pop("nodeName", None)
    meta = {"namespace": namespace, "labels": labels, "creationTimestamp": BEGAN}
    deployment = {"name": name, "uid": f"deployment-{namespace}-{name}"}
    replica_set = {"name": f"{name}-5c9f7b6d8", "uid": f"replicaset-{namespace}-{name}"}
    ready = sum(all(row.get("ready") for row in pod["status"].get("containerStatuses", [{}])) for pod in pods)
    spec = {"replicas": len(pods), "selector": {"matchLabels": labels}, "template": template}
    status = {"replicas": len(pods), "readyReplicas": ready, "updatedReplicas": len(pods)}

    def owned(api_version: str, kind: str, by: Object) -> list[Object]:
        return [{"apiVersion": api_version, "kind": kind, "controller": True, **by}]

    yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta | deployment, "spec": spec, "status": status}
    yield {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta
        | replica_set
        | {
            "annotations": {"deployment.kubernetes.io/revision": "1"},
            "ownerReferences": owned("apps/v1", "Deployment", deployment),
        },
        "spec": spec,
        "status": {"replicas": len(pods), "readyReplicas": ready},
    }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta | {"name": name},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    for pod in pods:
        pod["metadata"] |= {
            "uid": f"pod-{namespace}-{pod['metadata']['name']}",
            "labels": labels,
            "ownerReferences": owned("apps/v1", "ReplicaSet", replica_set),
        }
        yield pod
        about = {"kind": "Pod", "namespace": namespace, "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        for reason in ("Pulled", "Started"):
            yield {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{pod['metadata']['name']}.{reason.lower()}", "namespace": namespace},
                "involvedObject": about,
                "reason": reason,
                "message": f"{reason} container main",
                "type": "Normal",
                "count": 1,
                "firstTimestamp": BEGAN,
                "lastTimestamp": BEGAN,
                "source": {"component": "kubelet", "host": pod["spec"].get("nodeName", "")},
            }

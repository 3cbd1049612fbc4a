"""The real side: a cluster of the generator in a real API server, and what the real scheduler makes of a pod.

Everything goes through the API, so that it is defaulted and validated. What the scheduler changed is put back into the
store afterwards byte by byte, so that each pod meets the same cluster. No controller manager runs: what its controllers
would do for a pod (claims of its templates, the binding of a volume to the claim that the scheduler chose it for) is
done here, at a known moment.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.controlplane import ApiError, ControlPlane
from tests.e2e.play import KINDS, PREFIXES

from .generate import NAMESPACES
from .model import Case, Object, Part, World

#: What is read of a cluster, as a complete list each: kind, path, its key in the store.
LISTS = {
    "Node": "/api/v1/nodes",
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/pods",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
    "CSINode": "/apis/storage.k8s.io/v1/csinodes",
    "CSIDriver": "/apis/storage.k8s.io/v1/csidrivers",
    "CSIStorageCapacity": "/apis/storage.k8s.io/v1/csistoragecapacities",
    "VolumeAttachment": "/apis/storage.k8s.io/v1/volumeattachments",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "RuntimeClass": "/apis/node.k8s.io/v1/runtimeclasses",
    "DeviceClass": "/apis/resource.k8s.io/v1/deviceclasses",
    "ResourceSlice": "/apis/resource.k8s.io/v1/resourceslices",
    "ResourceClaim": "/apis/resource.k8s.io/v1/resourceclaims",
    "ResourceClaimTemplate": "/apis/resource.k8s.io/v1/resourceclaimtemplates",
}
#: What a cluster of the generator consists of; the other lists stay as they are between two clusters.
_LASTING = ("Namespace", "PriorityClass", "RuntimeClass")
#: Kinds that are created before those that need them to be admitted.
_FIRST = ("PriorityClass", "RuntimeClass", "StorageClass")
_SECONDS = 8.0
_SILENCE = 2.0
_GATE = "example.com/not-yet"


@dataclass
class Outcome:
    """What the scheduler did with a pod."""

    #: `bound`, `unschedulable`, `gated`, `error`, `silent`, or `refused` by the API server
    what: str
    node: str = ""
    message: str = ""
    #: the pod as it stood before a node was chosen, with the condition where none was
    pod: Object = field(default_factory=dict)
    #: the objects as the scheduler met them, without the pod
    objects: list[Object] = field(default_factory=list)
    #: the same after the scheduler took claims away from devices where they could not be used, and then tried again
    #: at once: what it said may belong to either
    after: list[Object] | None = None


class Arena:
    """One API server with its scheduler, and the cluster that is in it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.api = plane.api
        self.admin = plane.admin
        self._workers = ThreadPoolExecutor(8)
        self._number = itertools.count()
        self._prefixes = [_prefix(path) for kind, path in LISTS.items() if kind not in _LASTING]
        self._prefixes += ["/registry/deployments/", "/registry/replicasets/"]
        self._found = self.stored([_prefix(LISTS[kind]) for kind in _LASTING])
        for space, labels in NAMESPACES.items():
            body = {"metadata": {"name": space, "labels": labels}}
            try:
                self.api.create("/api/v1/namespaces", body)
            except ApiError:  # kube-system exists
                self.api.patch(f"/api/v1/namespaces/{space}", body)
        self._empty = self.stored()
        self._base: dict[str, bytes] = {}
        self.objects: list[Object] = []
        #: what the API server did not take of the cluster
        self.refused: list[str] = []

    def close(self) -> None:
        """Leaves everything as it was found."""
        self._restore(self._empty)
        self._restore(self._found, [_prefix(LISTS[kind]) for kind in _LASTING])
        self._workers.shutdown()

    # --- the cluster ---------------------------------------------------------------------------------------------------

    def enter(self, world: World) -> None:
        """Makes this the cluster; returns when the scheduler has seen it."""
        self._restore(self._empty)
        self.refused = []
        self._create_all([part for part in world.parts if part.object["kind"] in _FIRST])
        rest = [part for part in world.parts if part.object["kind"] not in _FIRST]
        self._create_all([part for part in rest if part.object["kind"] != "Pod"])
        self._create_all([part for part in rest if part.object["kind"] == "Pod"])
        self.settle(len(self.api.get(LISTS["Node"])["items"]))
        if world.preemptor:
            self._preempt(world.preemptor)
        self._base = self.stored()
        self.objects = self.read()

    def _preempt(self, pod: Object) -> None:
        """Lets a pod take its place from others; their nodes do not answer, so it keeps waiting for them."""
        space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        path = f"/api/v1/namespaces/{space}/pods"
        try:
            self.api.create(path, pod)
        except ApiError as error:
            self.refused.append(_words(error))
            return
        seen, node = self._watch(space, name, ())
        for _ in range(20):  # the victims are deleted aside, after the first verdict
            if node or seen["status"].get("nominatedNodeName"):
                time.sleep(0.3)
                return
            time.sleep(0.02)
            seen = self.api.get(f"{path}/{name}")
        self.api.delete(f"{path}/{name}")

    def settle(self, nodes: int) -> None:
        """Waits until the scheduler counts as many nodes as there are, in what it says of a pod that fits nowhere."""
        for _ in range(40):
            name = f"canary-{next(self._number)}"
            pod: Object = {"metadata": {"name": name, "namespace": "web"}, "spec": _canary()}
            self.api.create("/api/v1/namespaces/web/pods", pod)
            seen, _ = self._watch("web", name, ())
            self.api.delete(f"/api/v1/namespaces/web/pods/{name}")
            if _message(seen).startswith(f"0/{nodes} nodes"):
                break
        else:
            raise RuntimeError(f"the scheduler does not see {nodes} nodes: {_message(seen)}")
        time.sleep(0.05)

    def restart(self) -> None:
        """Another scheduler, which remembers nothing."""
        self._plane.stop_scheduler()
        self._plane.start_scheduler()
        self.settle(len(self.api.get(LISTS["Node"])["items"]))
        time.sleep(0.5)

    def read(self) -> list[Object]:
        """All objects of the cluster, as the API gives them."""
        found: list[Object] = []
        for (kind, _), listed in zip(LISTS.items(), self._workers.map(self.api.get, LISTS.values()), strict=True):
            for item in listed["items"]:
                item["metadata"].pop("managedFields", None)
                found.append({"apiVersion": listed["apiVersion"], "kind": kind, **_without_nulls(item)})
        return found

    def _create_all(self, parts: Iterable[Part]) -> None:
        list(self._workers.map(self._create, parts))

    def _create(self, part: Part) -> None:
        item = part.object
        where, path = paths(item)
        try:
            self.api.create(where, item)
            if part.status is not None:
                self.api.patch(f"{path}/status", {"status": part.status})
            if part.deleted is not None:
                self.api.call("DELETE", f"{path}?gracePeriodSeconds={part.deleted}")
        except ApiError as error:
            if error.code != 409 or item["kind"] not in _LASTING:
                self.refused.append(f"{item['kind']}: {_words(error)}")

    def stored(self, prefixes: list[str] | None = None) -> dict[str, bytes]:
        """Everything in the store that a cluster or a pod of the generator can change."""
        found: dict[str, bytes] = {}
        for values in self._workers.map(self._plane.etcd.read, prefixes or self._prefixes):
            found |= values
        return found

    def _restore(self, wanted: dict[str, bytes], prefixes: list[str] | None = None) -> None:
        now = self.stored(prefixes)
        changes: dict[str, bytes | None] = dict.fromkeys(now.keys() - wanted.keys())
        changes |= {key: value for key, value in wanted.items() if now.get(key) != value}
        if changes:
            self._plane.etcd.write(changes)

    # --- a pod ---------------------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Outcome:
        """Creates the pod, waits for the scheduler's verdict, takes everything back."""
        try:
            return self.attempt(case)
        finally:
            self.restore()

    def restore(self, wanted: dict[str, bytes] | None = None) -> None:
        """Takes back what was done to the cluster, or all since ``stored`` gave this."""
        self._restore(self._base if wanted is None else wanted)

    def attempt(self, case: Case) -> Outcome:
        """The same, and leaves everything as it then is."""
        body = copy.deepcopy(case.pod)
        space, name = body["metadata"]["namespace"], body["metadata"]["name"]
        path = f"/api/v1/namespaces/{space}/pods"
        gates = body["spec"].get("schedulingGates", [])
        if case.made:
            body["spec"]["schedulingGates"] = [*gates, {"name": _GATE}]
        try:
            pod = self.api.create(path, body)
            objects = self.objects
            if case.made:
                pod = self._make(case, pod)
                objects = [item for item in self.read() if not _is(item, pod)]
                pod = self.api.patch(f"{path}/{name}", {"spec": {"schedulingGates": gates or None}})
        except ApiError as error:
            return Outcome("refused", message=_words(error), pod=body)
        seen, node = self._watch(space, name, _claims(pod))
        outcome = Outcome("silent", pod={"apiVersion": "v1", "kind": "Pod", **pod}, objects=objects)
        if not gates and _condition(outcome.pod):
            outcome.pod["status"]["conditions"] = []  # what is left of the gate that held it until its claims were made
        if node:
            outcome.what, outcome.node = "bound", node
        elif (condition := _condition(seen)) and (gates or condition["reason"] != "SchedulingGated"):
            words = {"Unschedulable": "unschedulable", "SchedulingGated": "gated"}
            outcome.what = words.get(condition["reason"], "error")
            outcome.message = condition.get("message", "")
            outcome.pod = {"apiVersion": "v1", "kind": "Pod", **seen}
        outcome.pod["metadata"].pop("managedFields", None)
        if outcome.what == "unschedulable" and pod["spec"].get("resourceClaims"):
            outcome.after = self._after(objects)
        return outcome

    def _after(self, objects: list[Object]) -> list[Object] | None:
        now = {item["metadata"]["uid"]: item for item in self.api.get(LISTS["ResourceClaim"])["items"]}
        found, changed = [], False
        for item in objects:
            current = now.get(item["metadata"]["uid"])
            if current and current.get("status") != item.get("status"):
                item, changed = {**item, "status": current.get("status", {})}, True
            found.append(item)
        return found if changed else None

    def _make(self, case: Case, pod: Object) -> Object:
        """What controllers make for a pod: its claims."""
        for part in case.made:
            item = copy.deepcopy(part.object)
            for owner in item["metadata"].get("ownerReferences", []):
                owner["uid"] = pod["metadata"]["uid"]
            self.api.create(paths(item)[0], item)
        if case.claim_statuses:
            _, path = paths({"apiVersion": "v1", "kind": "Pod", **pod})
            pod = self.api.patch(f"{path}/status", {"status": {"resourceClaimStatuses": case.claim_statuses}})
        time.sleep(0.1)  # other kinds reach the scheduler by other ways than the pod
        return pod

    def _watch(self, space: str, name: str, claims: Iterable[str]) -> tuple[Object, str]:
        """The pod when the scheduler has spoken, and the node that it chose."""
        started, pause = time.monotonic(), 0.004
        path = f"/api/v1/namespaces/{space}/pods/{name}"
        bound: set[str] = set()
        while True:
            pod = self.api.get(path)
            if pod["spec"].get("nodeName"):
                return pod, pod["spec"]["nodeName"]
            reason = _condition(pod).get("reason")
            gated = bool(pod["spec"].get("schedulingGates"))
            if (reason == "Unschedulable" or (gated and reason == "SchedulingGated")) and not bound:
                return pod, ""
            passed = time.monotonic() - started
            # An error may be a conflict with what was put back here a moment ago; the scheduler then tries again.
            if passed > (_SECONDS if bound else 2 * _SILENCE if reason == "SchedulerError" else _SILENCE):
                return pod, ""
            if passed > 0.03 and claims:
                self._bind(space, claims, bound)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def _bind(self, space: str, claims: Iterable[str], bound: set[str]) -> None:
        """Completes what the scheduler has begun: a claim gets the volume that it chose, or one where it wants it."""
        for name in claims:
            if name in bound:
                continue
            path = f"/api/v1/namespaces/{space}/persistentvolumeclaims/{name}"
            try:
                claim = self.api.get(path)
            except ApiError:
                continue
            if claim["spec"].get("volumeName"):
                continue
            notes = claim["metadata"].get("annotations") or {}
            if node := notes.get("volume.kubernetes.io/selected-node"):
                volume = f"made-{name}"
                labels = self.api.get(f"/api/v1/nodes/{node}")["metadata"]["labels"]
                self.api.create("/api/v1/persistentvolumes", _provisioned(volume, claim, labels))
            else:
                volume = self._chosen_for(claim)
                if not volume:
                    continue
            bound.add(name)
            done = {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
            self.api.patch(path, {"metadata": done, "spec": {"volumeName": volume}})
            self.api.patch(f"{path}/status", {"status": {"phase": "Bound"}})

    def _chosen_for(self, claim: Object) -> str:
        for volume in self.api.get("/api/v1/persistentvolumes")["items"]:
            if (volume["spec"].get("claimRef") or {}).get("uid") == claim["metadata"]["uid"]:
                return str(volume["metadata"]["name"])
        return ""


def _provisioned(name: str, claim: Object, labels: Object) -> Object:
    """A volume that can be reached from that node alone, so that a second attempt ends where the first one did."""
    metadata = claim["metadata"]
    spec = {
        "capacity": claim["spec"]["resources"]["requests"],
        "accessModes": claim["spec"]["accessModes"],
        "storageClassName": claim["spec"].get("storageClassName", ""),
        "csi": {"driver": "block.csi.example.com", "volumeHandle": name},
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            **{key: metadata[key] for key in ("namespace", "name", "uid")},
        },
    }
    row = [
        {"key": key, "operator": "In", "values": [labels[key]]}
        for key in ("kubernetes.io/hostname", "rack", "pool")
        if key in labels
    ]
    if row:
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": row}]}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def _prefix(path: str) -> str:
    """Where the store has the objects of a list."""
    plural = path.rsplit("/", 1)[1]
    return PREFIXES.get(plural, f"/registry/{plural}") + "/"


def _without_nulls(value: Any) -> Any:
    """What the API server writes for an empty list here and there; whoever gathers leaves it out."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _canary() -> Object:
    spec: Object = {"containers": [{"name": "c", "image": "x"}]}
    return spec | {"nodeSelector": {"canary": "nowhere"}, "tolerations": [{"operator": "Exists"}]}


def paths(item: Object) -> tuple[str, str]:
    """The paths of an object's collection and of the object."""
    group, _, version = item["apiVersion"].rpartition("/")
    name = item["metadata"]["name"]
    if (group, item["kind"]) in KINDS:
        plural, namespaced = KINDS[group, item["kind"]]
    else:
        plural, namespaced = LISTS[item["kind"]].rsplit("/", 1)[1], "namespace" in item["metadata"]
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    where = f"{root}/namespaces/{item['metadata']['namespace']}/{plural}" if namespaced else f"{root}/{plural}"
    return where, f"{where}/{name}"


def _claims(pod: Object) -> tuple[str, ...]:
    """Names of the claims that the pod mounts."""
    found = []
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            found.append(volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            found.append(f"{pod['metadata']['name']}-{volume['name']}")
    return tuple(found)


def _words(error: ApiError) -> str:
    """What the API server says, without the rest of its answer."""
    text = str(error)
    try:
        return str(json.loads(text[text.index("{") :])["message"])
    except ValueError:
        return text


def _condition(pod: Object) -> Object:
    """The PodScheduled condition that says no."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            found: Object = condition
            return found
    return {}


def _message(pod: Object) -> str:
    return str(_condition(pod).get("message", ""))


def _is(item: Object, pod: Object) -> bool:
    return bool(item["kind"] == "Pod" and item["metadata"]["uid"] == pod["metadata"]["uid"])

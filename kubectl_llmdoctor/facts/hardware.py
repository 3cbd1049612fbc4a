"""What only the node knows, seen from one pod: its GPUs, their errors and whose they are, and what its containers take."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from kubectl_llmdoctor.catalog.xids import xid_meaning
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import GIVEN_SHARES, given_shares
from kubectl_llmdoctor.facts.agent import ContainerUse, Device, MigDevice, Process
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.endings import Ending, endings
from kubectl_llmdoctor.facts.gpu_conditions import GpuCondition
from kubectl_llmdoctor.facts.kernel_log import OutOfMemory, Xid
from kubectl_llmdoctor.facts.node_hardware import IDLE_BYTES, NodeHardware, hardware_at
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.report.document import Confidence, Evidence
from kubectl_llmdoctor.tree import rows

#: How far the node's clock and the kubelet's may lie apart; how long an error of a GPU takes to end its process, and the
#: processes that wait for that one; how long before a pod an error still counts that makes the GPU unusable.
_SLACK, _CRASH, _HANG, _BEFORE = timedelta(seconds=30), timedelta(minutes=3), timedelta(minutes=35), timedelta(hours=1)


class Hardware:
    """What the node says of one pod's GPUs."""

    def __init__(self, pod: Pod, all_of_node: NodeHardware) -> None:
        self.pod = pod
        self.of_node = all_of_node
        self.node = all_of_node.name
        self.agent, self.kernel = all_of_node.agent, all_of_node.kernel

    @property
    def devices(self) -> tuple[Device, ...]:
        """The GPUs of the node."""
        return self.of_node.devices

    @cached_property
    def mapped(self) -> bool:
        """Whether the agent says which pod has which GPU."""
        return any(device.users for device in self.devices)

    @cached_property
    def mine(self) -> tuple[Device, ...]:
        """The pod's GPUs: those that it was given or has a process on, or all where it asks for all that there are."""
        found = tuple(device for device in self.devices if self._has(device))
        return found or (self.devices if not self.mapped and len(self.devices) <= self.pod.gpus else ())

    @cached_property
    def left(self) -> tuple[Device, ...]:
        """The GPUs that may be the pod's where nothing says which are: those that nobody else is known to have or use.

        An instance that ended holds no memory, so that a GPU on which there is some is another's.
        """
        if self.mine or not self.asks or self.runs:
            return ()
        free = (d for d in self.devices if not d.users and not any(p.pod_uid for p in d.all_processes))
        return tuple(device for device in free if (device.memory_used_bytes or 0) < IDLE_BYTES)

    @cached_property
    def runs(self) -> bool:
        """Whether a container of the pod that may have its GPUs runs now: only then can a process on a GPU be its own."""
        asking = [c for c in self.pod.containers if c.gpus or c.spec.resources.claims]
        return any(container.running for container in asking or self.pod.containers)

    @cached_property
    def seen_since_end(self) -> bool:
        """Whether the agent looked after the last instance had ended, as far as it is known when it looked."""
        looked = parse_time(self.agent.taken_at) if self.agent else None
        ended = [ending.finished for ending in endings(self.pod) if ending.finished]
        return looked is None or not ended or looked > max(ended) + _SLACK

    @cached_property
    def asks(self) -> bool:
        """Whether the pod asks for GPUs at all, or has all of its node without asking."""
        return self.pod.gpus > 0 or bool(self.pod.spec.resource_claims) or self.pod.sees_all

    @cached_property
    def whole_node(self) -> bool:
        """Whether the pod asks for all GPUs of its node."""
        return 0 < (self.of_node.slots or len(self.devices)) <= self.pod.gpus

    @property
    def offered(self) -> int | None:
        """How many GPUs the node has by its own account."""
        return self.of_node.offered

    @cached_property
    def shares(self) -> dict[str, int]:
        """The bytes that the pod was given of each GPU of which it has a share (HAMi, Volcano), by UUID."""
        return given_shares(self.pod.annotations)

    def share_evidence(self) -> tuple[Evidence, ...]:
        """What says which shares the pod was given."""
        marks = self.pod.annotations
        return tuple(
            Evidence(source="pod", ref=f"Pod/{self.pod.name} metadata.annotations[{name}]", text=str(marks[name])[:200])
            for name in GIVEN_SHARES
            if name in marks
        )

    @cached_property
    def given(self) -> dict[str, str]:
        """The GPUs that the pod was given by its own status, and their health as the device plugin sees it, by UUID.

        Or by the annotations of a scheduler that gives shares, which say nothing of their health.
        """
        found = dict.fromkeys(self.shares, "")
        for status in self._statuses():
            for resource in rows(status, "allocatedResourcesStatus"):
                for device in rows(resource, "resources"):
                    id_ = device.get("resourceID")
                    if isinstance(id_, str) and id_.startswith("GPU-"):
                        found[id_.partition("::")[0]] = str(device.get("health", ""))
        return found

    def _has_slice(self, part: MigDevice) -> bool:
        pod, uid = self.pod, self.pod.obj.metadata.uid
        named = any((user.namespace or "default", user.name) == (pod.namespace, pod.name) for user in part.pods)
        return named or (bool(uid) and any(process.pod_uid == uid for process in part.processes))

    def _has(self, device: Device) -> bool:
        pod, uid = self.pod, self.pod.obj.metadata.uid
        if device.uuid and device.uuid in self.given:
            return True
        if any((user.namespace or "default", user.name) == (pod.namespace, pod.name) for user in device.users):
            return True
        return bool(uid) and any(process.pod_uid == uid for process in device.all_processes)

    def device_of(self, xid: Xid) -> Device | None:
        """The GPU that an Xid is about."""
        return xid.device or self.of_node.device_at(xid.bus, xid.uuid)

    def evidence(self, device: Device, field: str, text: str) -> Evidence:
        """A value of the report on a GPU."""
        return self.of_node.evidence(device, field, text)

    def use_of(self, container: Container) -> ContainerUse | None:
        """What a container takes of the node; of several instances the one that its status names."""
        pod, uid = self.pod, self.pod.obj.metadata.uid
        found = [
            use
            for use in (self.agent.containers if self.agent else ())
            if (use.pod, use.container) == (pod.name, container.name)
            and use.namespace in ("", pod.namespace)
            and (not use.pod_uid or not uid or use.pod_uid == uid)
        ]
        id_ = next((str(s.get("containerID", "")) for s in self._statuses() if s.get("name") == container.name), "")
        return next((use for use in found if use.container_id and use.container_id in id_), next(iter(found), None))

    def use_evidence(self, use: ContainerUse, field: str, text: str) -> Evidence:
        """A value of the report on a container."""
        ref = f"Node/{self.node} agent containers[{use.pod}/{use.container}].{field}"
        return Evidence(source="agent", ref=ref, text=text, age_seconds=self.of_node.age)

    @cached_property
    def conditions(self) -> tuple[tuple[GpuCondition, Confidence], ...]:
        """Conditions of the node about GPUs that are, or may be, the pod's, since the pod came to the node, or that still hold."""
        found: list[tuple[GpuCondition, Confidence]] = []
        for condition in self.of_node.conditions:
            device = self.of_node.device_at(condition.bus, condition.uuid)
            if not (condition.lasting or self.during(condition.since)):
                continue
            if (condition.uuid and condition.uuid in self.given) or (device and device in self.mine):
                found.append((condition, "certain"))
            elif device is None and self.asks and not (condition.uuid and len(self.given) >= self.pod.gpus > 0):
                sure = "certain" if self.whole_node else self.near(condition.since)
                if sure:
                    found.append((condition, sure))
        return tuple(found)

    @property
    def xids(self) -> tuple[Xid, ...]:
        """All Xids of the node in the order of time."""
        return self.of_node.xids

    def during(self, moment: datetime | None) -> bool:
        """Whether something happened since the pod came to the node; unknown times count."""
        start = self.pod.started_at
        return moment is None or start is None or moment >= start - _SLACK

    @cached_property
    def hits(self) -> tuple[tuple[Xid, Confidence], ...]:
        """The Xids since the pod came to the node that are on its GPUs, with how sure that is."""
        found: list[tuple[Xid, Confidence]] = []
        for xid in self.xids:
            sure, meaning = self.owns(xid), xid_meaning(xid.number)
            if sure and xid.evidence.source == "metric" and xid.time is None:
                sure = "likely" if sure == "certain" and meaning and meaning.disables else "possible"
            if sure and self.during(xid.time):
                found.append((xid, sure))
            elif sure and xid.time and meaning and meaning.disables and self.during(xid.time + _BEFORE):
                found.append((xid, "likely" if sure == "certain" else "possible"))  # unless somebody has reset it since
        return tuple(found)

    def owns(self, xid: Xid) -> Confidence | None:
        """How sure it is that an Xid is about one of the pod's GPUs; None where it is not."""
        owner = next((p.pod_uid for d in self.devices for p in d.all_processes if p.pid == xid.pid and p.pod_uid), "")
        if xid.pid and owner:
            return "certain" if owner == self.pod.obj.metadata.uid else None
        if xid.uuid and len(self.given) >= self.pod.gpus > 0:
            return "certain" if xid.uuid in self.given else None
        device = self.device_of(xid)
        slices = [part for part in device.mig_devices if part.gpu_instance == xid.gpu_instance] if device else []
        if xid.gpu_instance is not None and slices and any(part.pods or part.processes for part in slices):
            return "certain" if any(self._has_slice(part) for part in slices) else None
        if device and (device in self.mine or self.mapped):
            return "certain" if device in self.mine else None
        addressed = all(mine.bus for mine in self.mine)
        if not self.asks or (addressed and len(self.mine) >= self.pod.gpus > 0):
            return None
        if self.whole_node:
            return "certain"
        return self.near(xid.time)

    def explains(self, xid: Xid) -> bool:
        """Whether an Xid can be why the pod fails: it fell into the life of an instance, or the GPU is unusable since."""
        at, ended = xid.time, list(endings(self.pod))
        meaning = xid_meaning(xid.number)
        if not self.pod.failing or at is None or (meaning and meaning.disables) or not any(e.finished for e in ended):
            return self.pod.failing
        return any(
            (e.started or e.finished - _HANG) - _SLACK <= at and (self.runs or at <= e.finished + _SLACK)
            for e in ended
            if e.finished
        )

    def near(self, moment: datetime | None) -> Confidence | None:
        """By time alone: an error of some GPU of the node shortly before a container of the pod went down.

        Ranks that wait for one that hangs end only when a collective times out.
        """
        ends = [ending.finished for ending in endings(self.pod) if ending.finished]
        if moment is None or not ends:
            return "likely" if self.pod.failing else None
        waits = [end - moment for end in ends if end - moment >= -_SLACK]
        return None if not waits or min(waits) > _HANG else "likely" if min(waits) <= _CRASH else "possible"

    def kills(self, ending: Ending, *, whole_node: bool) -> Iterator[OutOfMemory]:
        """Processes killed by the end of an instance for lack of memory: of the node, or of the pod's or container's cgroup."""
        yield from self.kills_between(ending.container, ending.started, ending.finished, whole_node=whole_node)

    def kills_between(
        self, container: Container, began: datetime | None, ended: datetime | None, *, whole_node: bool
    ) -> Iterator[OutOfMemory]:
        """The same while an instance of a container ran; one that runs still has no end."""
        uid = self.pod.obj.metadata.uid
        for kill in self.kernel.kills:
            # an instance that is gone may no longer stand in the status; one that does must be this one
            status = next((s for s in self._statuses() if kill.container_id and kill.container_id in str(s)), None)
            # a cgroup outside of the kubelet's tree has the container's id and not the pod's
            ours = kill.pod_uid == uid if kill.pod_uid else status is not None
            if not uid or not ours or kill.whole_node is not whole_node:
                continue
            if status is not None and status.get("name") != container.name:
                continue
            if kill.time and began and kill.time < began - _SLACK:
                continue
            if kill.time and ended and kill.time > ended + _SLACK:
                continue
            yield kill

    def _statuses(self) -> list[dict[str, Any]]:
        return rows(self.pod.item.raw, "status.containerStatuses") if self.pod.item else []


def owner_of(hardware: Hardware, process: Process) -> k8s.Pod | None:
    """The pod that a process belongs to, where it was read."""
    for item in hardware.pod.cluster.items("Pod") if process.pod_uid else ():
        pod = item.typed()
        if isinstance(pod, k8s.Pod) and pod.metadata.uid == process.pod_uid:
            return pod
    return None


def is_gone(hardware: Hardware, process: Process) -> bool:
    """Whether the pod that a process belonged to does not exist any more, or should not."""
    owner, now = owner_of(hardware, process), hardware.pod.cluster.now
    if owner is not None:
        until = parse_time(owner.metadata.deletion_timestamp)
        return until is not None and now is not None and until < now
    return bool(process.pod_uid) and hardware.pod.cluster.complete("Pod")


def holder_of(hardware: Hardware, process: Process) -> str:
    """Whose a process is, in words: `Pod chat/llama-0`, `no pod`."""
    if not process.pod_uid:
        return "no pod"
    owner = owner_of(hardware, process)
    if owner is not None:
        return f"Pod {owner.metadata.namespace or 'default'}/{owner.metadata.name}"
    return f"a pod {'that is gone' if is_gone(hardware, process) else 'that was not read'} ({process.pod_uid})"


def hardware_of(pod: Pod) -> Hardware | None:
    """What is known of a pod's GPUs; None where nothing is."""
    if not pod.exists or not pod.spec.node_name:
        return None
    found = Hardware(pod, hardware_at(pod.cluster, pod.spec.node_name))
    return found if found.of_node.known or found.given else None

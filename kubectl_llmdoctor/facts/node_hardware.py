"""What only the node knows: its GPUs, their errors, and the kernel's log.

GPUs come from the node agent's report, or from DCGM's metrics where no agent runs; errors from the kernel's log, or
what others pass on of it as events, the agent, metrics and the conditions that other programs set on the node.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property

from kubectl_llmdoctor.catalog.xids import xid_meaning
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import HAMI_REGISTER, registered, shares_of
from kubectl_llmdoctor.facts.agent import Device, agent_of, letters
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.dcgm import gpus_by_metrics
from kubectl_llmdoctor.facts.events import events_of
from kubectl_llmdoctor.facts.gpu_conditions import GpuCondition, gpu_conditions
from kubectl_llmdoctor.facts.kernel_log import KernelLine, KernelLog, Xid
from kubectl_llmdoctor.facts.units import parse_time, units
from kubectl_llmdoctor.report.document import Evidence
from kubectl_llmdoctor.snapshot import NodeData

#: No host has more GPUs; what counts more counts shares of them.
_MOST_GPUS = 16

#: What the driver itself takes of a GPU on which nothing runs is less; see NVML's memory info, version 1.
IDLE_BYTES = 2**30

#: By which lines of the kernel's log are known that drivers of GPUs wrote.
_DRIVERS = ("NVRM: ", "amdgpu ")

#: The metrics that say a field of a report.
_QUOTED = {
    "ecc": ("dbe", "pending", "failed", "retired"),
    "pcie": ("width", "max_width", "gen", "max_gen", "replays", "utilization"),
    "nvlinks": ("crc", "replay", "recovery"),
    "throttleReasons": ("reasons", "thermal", "sw_thermal", "hw_thermal", "brake", "temperature", "utilization"),
    "vgpuLicensed": ("license", "utilization"),
    "xids": ("xid",),
}

#: A report that is older than this says its age.
_FRESH = timedelta(minutes=5)


class NodeHardware:
    """What is known of the GPUs of one node."""

    def __init__(self, cluster: Cluster, name: str, data: NodeData) -> None:
        self.name = name
        self.agent = None if data.agent is None else agent_of(data.agent)
        told = data.kernel_log or (self.agent.kernel_log if self.agent else "")
        item = cluster.item("Node", "", name)
        node = item.typed() if item else None
        self.obj = node if isinstance(node, k8s.Node) else None
        self.kernel = KernelLog(told, name, cluster.now, _copied(cluster, name, self.obj))
        self.conditions = tuple(gpu_conditions(self.obj)) if self.obj else ()
        #: its GPUs: by the agent, else by metrics
        self.devices = self.agent.gpus if self.agent and self.agent.gpus else gpus_by_metrics(cluster, name)
        #: seconds since the agent took its readings, where that is long ago
        self.age: int | None = None
        taken = parse_time(self.agent.taken_at) if self.agent else None
        if taken and cluster.now and cluster.now - taken > _FRESH:
            self.age = int((cluster.now - taken).total_seconds())

    @property
    def known(self) -> bool:
        """Whether anything is known."""
        return self.agent is not None or bool(self.kernel.lines or self.conditions or self.devices)

    @cached_property
    def slots(self) -> int | None:
        """How many `nvidia.com/gpu` it has by its own account: GPUs, or the shares or slices of them."""
        return units(self.obj.status.capacity.get("nvidia.com/gpu")) if self.obj else None

    @cached_property
    def offered(self) -> int | None:
        """How many GPUs it has by its own account; None where its account is of slices, or of shares that nothing tells the size of."""
        slots = self.slots
        if self.obj is None or slots is None or any(device.mig_enabled for device in self.devices):
            return None
        if (by_hami := self.obj.metadata.annotations.get(HAMI_REGISTER)) is not None:
            return registered(str(by_hami))
        gpus = slots // shares_of(self.obj.metadata.label_texts)
        return gpus if gpus <= _MOST_GPUS else None

    def device_at(self, bus: str, uuid: str = "") -> Device | None:
        """The GPU at a PCI address, or of a UUID."""
        return next((d for d in self.devices if (bus and d.bus == bus) or (uuid and d.uuid == uuid)), None)

    @cached_property
    def whole(self) -> int | None:
        """How many GPUs the driver sees that are not partitioned; None where that is not known."""
        known = [device for device in self.devices if device.source == "agent"]
        return sum(1 for device in known if not device.mig_enabled) if known else None

    @cached_property
    def unfit(self) -> tuple[tuple[Device, str, Evidence], ...]:
        """The GPUs that cannot be used as they are, what is wrong with each in words, and what says so."""
        found = []
        for device in self.devices:
            gone = "does not answer the driver" if device.silent else ""
            gone = "has fallen off the bus" if letters(device.lost) == "lost" else gone
            if gone:
                found.append((device, gone, self.evidence(device, "lost", f"lost: {device.lost}")))
            elif device.ecc.remap_failed:
                proof = self.evidence(device, "ecc", "remapFailed: true")
                found.append((device, "has memory that can no longer be repaired", proof))
            elif device.asks_for:
                field = "lost" if device.lost else "recoveryAction"
                proof = self.evidence(device, field, f"{field}: {device.lost or device.recovery_action}")
                found.append((device, f"needs {device.asks_for}", proof))
        return tuple(found)

    def evidence(self, device: Device, field: str, text: str) -> Evidence:
        """A value of the report on a GPU; of metrics the line that says it."""
        which = device.uuid if device.index is None else device.index
        if device.source == "metric":
            said = "; ".join(device.quotes[name] for name in _QUOTED.get(field, ()) if name in device.quotes)
            return Evidence(source="metric", ref=f"Node/{self.name} dcgm gpu {which}", text=said or text)
        ref = f"Node/{self.name} agent gpus[{which}].{field}"
        return Evidence(source="agent", ref=ref, text=text, age_seconds=self.age)

    def said(self, text: str) -> Evidence:
        """An error that the agent reports."""
        return Evidence(source="agent", ref=f"Node/{self.name} agent errors", text=text, age_seconds=self.age)

    def told(self, condition: GpuCondition) -> Evidence:
        """A condition of the node as evidence."""
        return Evidence(source="node", ref=f"Node/{self.name} status.conditions[{condition.type}]", text=condition.text)

    @cached_property
    def xids(self) -> tuple[Xid, ...]:
        """All Xids in the order of time; those of a source only where none before it has them."""
        found = [*self.kernel.xids]
        for device in self.devices:
            for seen in device.xids:
                # the number of some Xid, whenever it was: a program's own fault may be of any program
                meaning = xid_meaning(seen.number or 0)
                ancient = device.source == "metric" and not seen.time and meaning and meaning.kind == "application"
                if seen.number is not None and not ancient:
                    text = f"number: {seen.number}" + (f", time: {seen.time}" if seen.time else "")
                    found.append(
                        Xid(
                            number=seen.number,
                            bus=device.bus,
                            uuid=device.uuid,
                            gpu_instance=seen.gpu_instance,
                            time=parse_time(seen.time),
                            device=device,
                            evidence=self.evidence(device, "xids", text),
                        )
                    )
        for condition in self.conditions:
            for number in condition.numbers:
                proof, at = self.told(condition), condition.since
                found.append(Xid(number=number, bus=condition.bus, uuid=condition.uuid, time=at, evidence=proof))
        first: list[Xid] = []
        for xid in found:
            known = (x for x in first if x.number == xid.number and x.evidence.source != xid.evidence.source)
            if not any(not xid.bus or not x.bus or x.bus == xid.bus for x in known):
                first.append(xid)
        if all(xid.time for xid in first):
            first.sort(key=lambda xid: xid.time or datetime.max.replace(tzinfo=UTC))
        return tuple(first)


def _copied(cluster: Cluster, name: str, node: k8s.Node | None) -> Iterator[KernelLine]:
    """The kernel's lines on GPUs that node-problem-detector passes on: as events of the node, and as messages of conditions of any name."""
    lines = [
        (
            event.last,
            event.message,
            Evidence(source="event", ref=f"Node/{name}", text=f"{event.reason}: {event.message}"),
        )
        for event in events_of(cluster).about([("Node", name)])
    ]
    for condition in node.status.conditions if node else ():
        if condition.status == "True":
            said = f"{condition.type}=True, {condition.reason}: {condition.message}"
            proof = Evidence(source="node", ref=f"Node/{name} status.conditions[{condition.type}]", text=said)
            lines.append((parse_time(condition.last_transition_time), condition.message, proof))
    lines.sort(key=lambda line: line[0].timestamp() if line[0] else 0.0)
    for number, (time, text, proof) in enumerate(lines, 1):
        if any(driver in text for driver in _DRIVERS):
            yield KernelLine(number=number, text=text.strip(), time=time, proof=proof)


def hardware_at(cluster: Cluster, name: str) -> NodeHardware:
    data = cluster.snapshot.nodes.get(name) or NodeData()
    return cluster.once(f"hardware of {name}", lambda: NodeHardware(cluster, name, data))


def node_hardware(cluster: Cluster, name: str) -> NodeHardware | None:
    """What is known of a node's GPUs, read once per snapshot; None where nothing is."""
    found = hardware_at(cluster, name)
    return found if found.known else None

"""The report as exposition text: what dcgm-exporter lacks, with the labels of the pod behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from llmdoctor_agent.collect import processes_of, users_of
from llmdoctor_agent.report import Gpu, Report

#: Name, type, help: the whole list, which docs/agent.md explains.
FAMILIES = (
    ("llmdoctor_agent_info", "gauge", "Versions of the agent and the driver; always 1."),
    ("llmdoctor_agent_reading_timestamp_seconds", "gauge", "When the last reading was taken."),
    ("llmdoctor_agent_errors", "gauge", "What the last reading could not read, by source."),
    ("llmdoctor_gpu_lost", "gauge", "1 for a GPU that does not answer, by why."),
    ("llmdoctor_gpu_container", "gauge", "1 for each container that the kubelet gave a GPU, or a part of it, to."),
    ("llmdoctor_gpu_process_memory_bytes", "gauge", "GPU memory that processes of a container, or of no pod, hold."),
    (
        "llmdoctor_gpu_xid_timestamp_seconds",
        "gauge",
        "When an Xid was last seen on a GPU, by the container that has it.",
    ),
    ("llmdoctor_container_shm_size_bytes", "gauge", "Size of /dev/shm of a container that has a GPU."),
    ("llmdoctor_container_shm_used_bytes", "gauge", "What is in /dev/shm of a container that has a GPU."),
    ("llmdoctor_container_oom_kills", "gauge", "Processes of a container that were killed for lack of host memory."),
)

_Sample = tuple[str, Mapping[str, object], float]


def exposition(report: Report | None) -> str:
    """The metrics of a report, in Prometheus' text format 0.0.4; none before the first reading."""
    samples: dict[str, list[str]] = {}
    for name, labels, value in _samples(report) if report is not None else ():
        given = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items() if label is not None)
        samples.setdefault(name, []).append(f"{name}{{{given}}} {value:.17g}" if given else f"{name} {value:.17g}")
    lines: list[str] = []
    for name, kind, text in FAMILIES:
        if name in samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *dict.fromkeys(samples[name])]
    return "".join(f"{line}\n" for line in lines)


def _escaped(label: object) -> str:
    return str(label).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _samples(report: Report) -> Iterator[_Sample]:
    yield "llmdoctor_agent_info", {"version": report.agent_version, "driver": report.driver_version}, 1
    if report.taken_at:
        yield "llmdoctor_agent_reading_timestamp_seconds", {}, _seconds(report.taken_at)
    sources = [error.source for error in report.errors]
    for source in report.profile:
        yield "llmdoctor_agent_errors", {"source": source}, sources.count(source)
    for gpu in report.gpus or ():
        yield from _of_gpu(gpu, report)
    for one in report.containers or ():
        names = {"namespace": one.namespace, "pod": one.pod, "container": one.container, "pod_uid": one.pod_uid}
        if one.shm is not None and one.shm.size_bytes is not None:
            yield "llmdoctor_container_shm_size_bytes", names, one.shm.size_bytes
        if one.shm is not None and one.shm.used_bytes is not None:
            yield "llmdoctor_container_shm_used_bytes", names, one.shm.used_bytes
        if one.memory is not None and one.memory.oom_kills is not None:
            yield "llmdoctor_container_oom_kills", names, one.memory.oom_kills


def _of_gpu(gpu: Gpu, report: Report) -> Iterator[_Sample]:
    which = {"gpu": gpu.index, "uuid": gpu.uuid}
    if gpu.lost:
        yield "llmdoctor_gpu_lost", {**which, "reason": gpu.lost}, 1
    users = [{"namespace": user.namespace, "pod": user.name, "container": user.container} for user in users_of(gpu)]
    for user in users:
        yield "llmdoctor_gpu_container", {**which, **user}, 1
    latest = {xid.number: _seconds(xid.time) for xid in gpu.xids}
    for number, moment in latest.items():
        for user in users or [{}]:
            yield "llmdoctor_gpu_xid_timestamp_seconds", {**which, "xid": number, **user}, moment
    held: dict[tuple[str | None, str | None], int] = {}
    for process in processes_of(gpu):
        if process.used_bytes is not None:
            key = (process.pod_uid, process.container_id)
            held[key] = held.get(key, 0) + process.used_bytes
    for (pod_uid, container_id), size in held.items():
        owner = "unknown" if pod_uid is None else "pod" if pod_uid else "none"
        names = {"owner": owner, "pod_uid": pod_uid or None, **_names(report, pod_uid, container_id)}
        yield "llmdoctor_gpu_process_memory_bytes", {**which, **names}, size


def _names(report: Report, pod_uid: str | None, container_id: str | None) -> dict[str, object]:
    for one in report.containers or ():
        if pod_uid and (one.pod_uid, one.container_id) == (pod_uid, container_id):
            return {
                "namespace": one.namespace,
                "pod": one.pod,
                "container": one.container,
                "container_id": container_id,
            }
    return {"container_id": container_id}


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()

"""The GPUs of a node as dcgm-exporter's metrics tell of them, in the form of the node agent's report: its own text, or what a Prometheus
scraped of it.

Fields of DCGM are described in its field identifiers (`dcgm_fields.h`) and in dcgm-exporter's `etc/*.csv`; the labels in
its README. Times for which a GPU was held back count nanoseconds, whatever dcgm-exporter's own help says (NVIDIA/dcgm-exporter, pull
request 589). What a field is blank for (`0x7ffffffffffffff0`, `0x7ffffff0`, NaN) is not known. Nothing of it says when an Xid happened:
`DCGM_FI_DEV_XID_ERRORS` is the number of the last one, which stays until the driver is loaded again. Only where an earlier
sample of the same GPU has another number is it known to be newer than that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.agent import Device, Ecc, NvLink, Pcie, SeenXid, User
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.exposition import Sample, samples
from kubectl_llmdoctor.facts.series import points_of
from kubectl_llmdoctor.facts.units import MIB, parse_time
from kubectl_llmdoctor.snapshot import MetricsText
from kubectl_llmdoctor.tree import dig, rows, table

_PREFIX = "DCGM_FI_"
#: Values that mean that DCGM has none: from `DCGM_INT64_BLANK` on, and the four of `DCGM_INT32_BLANK` (not found, not
#: supported, not permitted).
_BLANK, _BLANK_32 = 0x7FFFFFFFFFFFFFF0, range(0x7FFFFFF0, 0x7FFFFFF4)

#: Bits of the clocks' event reasons, by NVML's names.
_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}

#: The fields that are read, by what they are in a report; of two names of one thing the newer stands first.
_FIELDS = {
    "utilization": ("DCGM_FI_DEV_GPU_UTIL",),
    "temperature": ("DCGM_FI_DEV_GPU_TEMP",),
    "used": ("DCGM_FI_DEV_FB_USED",),
    "free": ("DCGM_FI_DEV_FB_FREE",),
    "reserved": ("DCGM_FI_DEV_FB_RESERVED",),
    "power": ("DCGM_FI_DEV_POWER_USAGE",),
    "power_limit": ("DCGM_FI_DEV_POWER_MGMT_LIMIT",),
    "clock": ("DCGM_FI_DEV_SM_CLOCK",),
    "max_clock": ("DCGM_FI_DEV_MAX_SM_CLOCK",),
    "reasons": ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"),
    "dbe": ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",),
    "pending": ("DCGM_FI_DEV_ROW_REMAP_PENDING",),
    "failed": ("DCGM_FI_DEV_ROW_REMAP_FAILURE",),
    "retired": ("DCGM_FI_DEV_RETIRED_DBE",),
    "replays": ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER",),
    "width": ("DCGM_FI_DEV_PCIE_LINK_WIDTH",),
    "max_width": ("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",),
    "gen": ("DCGM_FI_DEV_PCIE_LINK_GEN",),
    "max_gen": ("DCGM_FI_DEV_PCIE_MAX_LINK_GEN",),
    "xid": ("DCGM_FI_DEV_XID_ERRORS",),
    # totals over all links of a GPU, or of one link: `…_CRC_FLIT_ERROR_COUNT_L3`
    "crc": ("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",),
    "replay": ("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",),
    "recovery": ("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",),
    # for how long it was held back since the driver was loaded; exported by default, unlike the reasons
    "thermal": ("DCGM_FI_DEV_THERMAL_VIOLATION",),
    "sw_thermal": ("DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS",),
    "hw_thermal": ("DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS",),
    "brake": ("DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS",),
    "license": ("DCGM_FI_DEV_VGPU_LICENSE_STATUS",),
}
_NAMES = frozenset(name for names in _FIELDS.values() for name in names)
#: What a GPU is held back for, by the field that counts the time.
_HELD = {
    "thermal": "thermal_violation",
    "sw_thermal": "sw_thermal_slowdown",
    "hw_thermal": "hw_thermal_slowdown",
    "brake": "hw_power_brake_slowdown",
}
#: The share of the time between two readings from which on that is how it runs, and the nanoseconds of a minute.
_MOSTLY, _MINUTE_NS = 0.5, 60e9
_COUNTERS = ("replays", "crc", "replay", "recovery", *_HELD)
#: How a GPU runs is told by the readings of the last minutes, of more than a few; what a Prometheus has not had for so long is gone.
_RECENT_SECONDS, _STALE_SECONDS = 600, 300
#: A GPU of which nothing was said for so long may run otherwise by now.
_OLD_SECONDS = 900
#: Readings that lie no farther apart say when something happened.
_CLOSE_SECONDS = 120
_NVLINK = ("crc", "replay", "recovery")
#: A vGPU on which CUDA runs (`NVIDIA L40S-24Q`, `GRID A100D-80C`, `NVIDIA A100-4-20C`): whole GPUs have no licence, and say 0.
_VGPU = expression(r"-\d{1,3}[CQ](?:ME)?$")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU at one time: its labels, who has it, its values, and the lines that say them."""

    labels: dict[str, str]
    users: tuple[User, ...]
    values: dict[str, float]
    quotes: dict[str, str]
    taken_at: str


def gpus_by_metrics(cluster: Cluster, node: str) -> tuple[Device, ...]:
    """The GPUs of a node by the metrics of the snapshot; empty where no dcgm-exporter of that node was read."""
    return cluster.once("GPUs by metrics", lambda: _read(cluster)).get(node, ())


def _read(cluster: Cluster) -> dict[str, tuple[Device, ...]]:
    """The GPUs of all nodes."""
    readings: dict[str, dict[str, list[Reading]]] = {}
    for text in cluster.snapshot.metrics:
        if _PREFIX in text.text:
            for node, uuid, reading in _readings(text, cluster):
                readings.setdefault(node, {}).setdefault(uuid, []).append(reading)
    for node, uuid, reading in _of_prometheus(cluster):
        readings.setdefault(node, {}).setdefault(uuid, []).append(reading)
    return {
        node: tuple(
            sorted(
                (_device(sorted(each, key=lambda reading: reading.taken_at), cluster.now) for each in gpus.values()),
                key=lambda device: (device.index is None, device.index or 0, device.uuid),
            )
        )
        for node, gpus in readings.items()
    }


def _readings(text: MetricsText, cluster: Cluster) -> Iterator[tuple[str, str, Reading]]:
    """Node, UUID and reading of each GPU of one exposition; slices of a GPU are told of under the GPU."""
    exporter = cluster.item("Pod", text.namespace or "default", text.pod) if text.pod else None
    whose = text.node or (dig(exporter.raw, "spec.nodeName") if exporter else "") or ""
    by_gpu: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples(text.text, _NAMES):
        uuid = sample.labels.get("UUID", "")
        if uuid.startswith("GPU-"):
            by_gpu.setdefault((str(whose) or _host(sample.labels), uuid), []).append(sample)
    for (node, uuid), read in by_gpu.items():
        yield node, uuid, _reading(uuid, read, text.taken_at)


def _reading(uuid: str, read: list[Sample], taken_at: str) -> Reading:
    """One GPU by its samples of one moment."""
    values: dict[str, float] = {}
    quotes: dict[str, str] = {}
    highest: dict[str, Sample] = {}
    for sample in read:
        if _is_known(sample.value) and (sample.name not in highest or sample.value > highest[sample.name].value):
            highest[sample.name] = sample
    for field, names in _FIELDS.items():
        top = next((highest[name] for name in names if name in highest), None)
        if top is not None:
            values[field] = top.value
            quotes[field] = f'{top.name}{{gpu="{top.labels.get("gpu", "")}", UUID="{uuid}"}} {top.value:g}'
    labels = {key: value for sample in read for key, value in sample.labels.items() if value}
    users = tuple(dict.fromkeys(user for sample in read for user in _users(sample.labels)))
    return Reading(labels=labels, users=users, values=values, quotes=quotes, taken_at=taken_at)


def _of_prometheus(cluster: Cluster) -> Iterator[tuple[str, str, Reading]]:
    """The same of what a Prometheus has scraped of exporters: a reading for each moment at which it has anything of a GPU."""
    told: dict[tuple[str, str], list[tuple[float, Sample]]] = {}
    for answer in cluster.snapshot.prometheus:
        start, end = (parse_time(answer.get(key)) for key in ("start", "end"))
        base = start or end or cluster.now
        for row in rows(answer, "series") if base is not None else ():
            labels = {key: value for key, value in table(row.get("labels")).items() if isinstance(value, str)}
            name, uuid = labels.pop("__name__", ""), labels.get("UUID", "")
            if base is None or name not in _NAMES or not uuid.startswith("GPU-"):
                continue
            points = tuple(points_of(row.get("values"), base.timestamp()))
            found = told.setdefault((_scraped_at(cluster, labels), uuid), [])
            # of more than the last minutes only the Xid tells anything
            found += [
                (at, Sample(name=name, labels=labels, value=value))
                for at, value in points
                if name in _FIELDS["xid"] or points[-1][0] - at <= _RECENT_SECONDS
            ]
    for (node, uuid), read in told.items():
        latest: dict[tuple[object, ...], tuple[float, Sample]] = {}
        for at, together in itertools.groupby(sorted(read, key=lambda one: one[0]), key=lambda one: one[0]):
            for _, sample in together:
                latest[sample.name, *sorted(sample.labels.items())] = at, sample
            # series are not scraped at the same moment; what has not been said for minutes is gone
            now = [sample for seen, sample in latest.values() if at - seen <= _STALE_SECONDS]
            yield node, uuid, _reading(uuid, now, datetime.fromtimestamp(at, UTC).isoformat())


def _scraped_at(cluster: Cluster, labels: dict[str, str]) -> str:
    """The node of an exporter, by its pod where the labels tell it from the pod that has the GPU, else by its own word."""
    own = cluster.item("Pod", labels.get("namespace", ""), labels["pod"]) if labels.get("exported_pod") else None
    return str(dig(own.raw, "spec.nodeName") or "") if own is not None else _host(labels)


def _host(labels: dict[str, str]) -> str:
    return labels.get("hostname") or labels.get("Hostname", "")


def _is_known(value: float) -> bool:
    """Whether a value is one: NaN is none either."""
    return 0 <= value < _BLANK and value not in _BLANK_32


def _device(read: list[Reading], now: datetime | None) -> Device:
    """One GPU by its readings, oldest first."""
    last = read[-1]
    at = parse_time(last.taken_at)
    old = now is not None and at is not None and (now - at).total_seconds() > _OLD_SECONDS
    labels, values = last.labels, last.values
    used, free = values.get("used"), values.get("free")
    total = None if used is None or free is None else int((used + free + values.get("reserved", 0)) * MIB)
    recent = _recent(read)
    reasons = int(values.get("reasons", 0))
    # a bit that is set at one moment of several minutes says nothing
    said = [int(reading.values["reasons"]) for reading in recent if "reasons" in reading.values]
    errors = [values[field] for field in _NVLINK if field in values]
    pace = _paces(recent)
    links = [pace[field] for field in _NVLINK if pace.get(field) is not None]
    held = {field: pace[field] / _MINUTE_NS for field in _HELD if pace.get(field, 0) >= _MOSTLY * _MINUTE_NS}
    quotes = {
        field: f"{quote} ({min(held[field], 1):.0%} of the time since {recent[0].taken_at})" if field in held else quote
        for field, quote in last.quotes.items()
        if field in held or field not in _HELD
    }
    named = [
        name for bit, name in _REASONS.items() if reasons & bit and 2 * sum(bool(x & bit) for x in said) >= len(said)
    ]
    index = labels.get("gpu", "")
    return Device(
        source="metric",
        quotes=quotes,
        index=int(index) if index.isdecimal() and len(index) < 4 else None,
        uuid=labels["UUID"],
        name=labels.get("modelName", ""),
        pci_bus_id=labels.get("pci_bus_id", ""),
        memory_used_bytes=None if used is None else int(used * MIB),
        memory_total_bytes=total,
        utilization_percent=values.get("utilization"),
        temperature_c=values.get("temperature"),
        power_watts=values.get("power"),
        power_limit_watts=values.get("power_limit"),
        sm_clock_mhz=values.get("clock"),
        max_sm_clock_mhz=values.get("max_clock"),
        throttle_reasons=() if old else tuple(dict.fromkeys([*named, *(_HELD[field] for field in held)])),
        vgpu_licensed=_flag(values, "license") if _VGPU.search(labels.get("modelName", "")) else None,
        vgpu_unlicensed_since=_unlicensed_since(read),
        ecc=Ecc(
            volatile_uncorrected=_whole(values, "dbe"),
            remap_pending=_flag(values, "pending"),
            remap_failed=_flag(values, "failed"),
            retired_pages=_whole(values, "retired"),
        ),
        pcie=Pcie(
            gen=_whole(values, "gen"),
            max_gen=_whole(values, "max_gen"),
            width=_whole(values, "width"),
            max_width=_whole(values, "max_width"),
            replays=_whole(values, "replays"),
            replays_per_minute=pace.get("replays"),
        ),
        nvlinks=(NvLink(errors_per_minute=sum(links) if links else None),) if errors else (),
        xids=tuple(_xids(read)),
        mig_enabled=bool(labels.get("GPU_I_ID")) or None,
        pods=last.users,
    )


def _recent(read: list[Reading]) -> list[Reading]:
    """The readings of the last minutes."""
    last = parse_time(read[-1].taken_at)
    moments = [(reading, parse_time(reading.taken_at)) for reading in read]
    found = [reading for reading, at in moments if last and at and (last - at).total_seconds() <= _RECENT_SECONDS]
    return found or read[-1:]


def _xids(read: list[Reading]) -> Iterator[SeenXid]:
    """The last Xid; its time is that of the first reading that has it, where one shortly before it has another number."""
    numbers = [(_whole(reading.values, "xid"), reading.taken_at) for reading in read]
    number = numbers[-1][0]
    if not number:
        return
    others = [i for i, (found, _) in enumerate(numbers) if found != number]
    before, after = (numbers[others[-1]][1], numbers[others[-1] + 1][1]) if others else ("", "")
    began, seen = parse_time(before), parse_time(after)
    known = began is not None and seen is not None and (seen - began).total_seconds() <= _CLOSE_SECONDS
    yield SeenXid(number=number, time=after if known else "")


def _users(labels: dict[str, str]) -> Iterator[User]:
    """The container that has the GPU: Prometheus renames the exporter's labels where they collide with its own."""
    for pod, namespace, container in (
        ("exported_pod", "exported_namespace", "exported_container"),
        ("pod", "namespace", "container"),
        ("pod_name", "pod_namespace", "container_name"),
    ):
        if labels.get(pod):
            yield User(namespace=labels.get(namespace, ""), name=labels[pod], container=labels.get(container, ""))
            return


def _paces(read: list[Reading]) -> dict[str, float]:
    """By how much counters grew in a minute between the first and the last reading; a reset counts from zero."""
    first, last = parse_time(read[0].taken_at), parse_time(read[-1].taken_at)
    minutes = (last - first).total_seconds() / 60 if first and last else 0
    if minutes <= 0:
        return {}
    grown = {field: [reading.values[field] for reading in read if field in reading.values] for field in _COUNTERS}
    return {
        field: sum(b - a if b >= a else b for a, b in itertools.pairwise(found)) / minutes
        for field, found in grown.items()
        if len(found) > 1
    }


def _unlicensed_since(read: list[Reading]) -> str:
    """When a vGPU was first seen without its licence, where an earlier reading has that; empty elsewhere."""
    had = [reading.values["license"] > 0 for reading in read if "license" in reading.values]
    times = [reading.taken_at for reading in read if "license" in reading.values]
    last = max((i for i, licensed in enumerate(had) if licensed), default=None)
    return times[last + 1] if last is not None and last + 1 < len(times) else ""


def _whole(values: dict[str, float], field: str) -> int | None:
    return int(values[field]) if field in values else None


def _flag(values: dict[str, float], field: str) -> bool | None:
    return values[field] > 0 if field in values else None

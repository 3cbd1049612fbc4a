"""A server that came up without what it should keep or transfer KV caches with, which it said once, as it started."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    expression,
    fixes,
    log_evidence,
    pod_evidence,
    reach,
)

#: By this a store's client says that its master took it after all (Mooncake's client_service.cpp; LMCache's remote_backend.py).
_TAKEN = ("] Mounting segment: ", "Reconnected to master", "Connection initialized/re-established at ")
#: How vLLM counts what it transferred in the last seconds (kv_connector/v1/metrics.py), where that was something.
_DELIVERED = tuple(f"KV Transfer metrics: Num successful transfers={digit}" for digit in "123456789")
_GLOG = r"\bE(?:20\d\d)?\d{4} [\d:.]+ +\d+ \w+\.cpp:\d+\] "
_MASTERS = ("MOONCAKE_MASTER", "MOONCAKE_MASTER_SERVER_ADDRESS")


class _Without(msgspec.Struct, frozen=True):
    literal: str
    said: re.Pattern[str]
    #: what is said later where it got over that
    got: tuple[str, ...]
    what: str
    fix: str
    #: the variables by which a container is told of whom it asks
    told: tuple[str, ...] = ()
    #: it is about NVIDIA's GPUs, and no harm that was seen: it may go on, only slower
    of_cuda: bool = False


_NO_STORE = "its Mooncake store, whose master it did not reach: KV caches are neither stored nor found"
_SEE_MASTER = (
    "See that mooncake_master runs and that this pod reaches it at the address of its configuration (master_server_address, "
    "MOONCAKE_MASTER), then start this pod anew: it may not ask again"
)
#: Mooncake's store (client.cpp, client_service.cpp), LMCache's cache_engine.py (0.3.10 on), vLLM's mooncake_connector.py, of which the
#: thread ends that should register.
_WITHOUTS = (
    _Without(
        "rpc error, code: 14",
        expression(_GLOG + r"(?:\w{1,40}: )?rpc error, code: 14, message: (?P<why>.{1,160})"),
        _TAKEN,
        _NO_STORE,
        _SEE_MASTER,
        _MASTERS,
    ),
    _Without(
        "Failed to mount segment",
        expression(_GLOG + r"Failed to mount segment(?: due to rpc error|: (?!SEGMENT_ALREADY)(?P<why>\w{1,40}))"),
        _TAKEN,
        "its memory in the Mooncake store, whose master did not take it: what this engine computes is not kept there",
        _SEE_MASTER,
        _MASTERS,
    ),
    _Without(
        "Failed to connect to master",
        expression(_GLOG + r"Failed to connect to master(?P<why>)"),
        _TAKEN,
        _NO_STORE,
        _SEE_MASTER,
        _MASTERS,
    ),
    _Without(
        "LMCacheEngine marked as init failed",
        expression(
            r"LMCache ERROR: LMCacheEngine marked as init failed(?:: (?P<why>.{1,160}?))?(?: \([\w.]{1,80}:\d+:lmcache\b|$)"
        ),
        (),
        "LMCache, which could not set itself up: it neither keeps KV caches nor hands them over, and every prompt is computed again",
        "See what LMCache could not do as it started (in the lines before that: a port that is taken, an address that is not the "
        "pod's, memory, its remote cache), and start this pod anew: LMCache does not try again",
    ),
    _Without(
        " with bootstrap server: ",
        expression(r"mooncake_connector\.py:\d+\] Error registering .{1,600} with bootstrap server: (?P<why>.{1,160})"),
        (),
        "being registered at its bootstrap server, where decode looks for it: no decode instance finds its KV caches",
        "See that the first rank of prefill runs its bootstrap server (VLLM_MOONCAKE_BOOTSTRAP_PORT, 8998) at the address that all "
        "ranks are told (--data-parallel-address), with no other program at that port, then start this pod anew",
    ),
    # NIXL's ucx_utils.cpp, of memory of a GPU alone
    _Without(
        "memory is detected as host, check that UCX is configured with CUDA support",
        expression(
            r"\bucx_utils\.cpp:\d+\] memory is detected as host, (?P<why>check that UCX is configured with CUDA support)"
        ),
        _DELIVERED,
        "CUDA in the UCX by which NIXL transfers KV caches, so that NIXL takes the GPU's memory for the host's: transfers may fail, or end "
        "the process",
        "Take an image whose NIXL is built for its CUDA, or install that in it (nixl-cu12 with CUDA 12, nixl-cu13 with CUDA 13: the UCX in "
        "the wheel of another CUDA does not find CUDA); where UCX_TLS is set, add cuda_copy and cuda_ipc to it",
        of_cuda=True,
    ),
)
#: UCX's ucp_context.c, of what it is told to use and has not; with nothing left but what stays in the pod it comes up, and meets no peer.
_LACKS, _DEVICES = " not available, please use one or more of", "UCX_NET_DEVICES"
_LACKED = expression(
    r"UCX  WARN {1,4}network devices? (?P<lacks>'.{1,200}?') (?:is|are) not available, please use one or more of: (?P<has>.{1,300})"
)
LITERALS = (*(one.literal for one in _WITHOUTS), *_TAKEN, _LACKS)


def came_up_without(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """What a ready server lacks since its start; of what it met with later the lines are about requests."""
    for container in pod.containers if pod.ready else ():
        log = logs.current(container.name)
        for without in _WITHOUTS if log is not None else ():
            line = next(reversed(list(log.find(without.literal))), None) if log is not None else None
            said = without.said.search(line.text[:2000]) if line is not None else None
            if (
                log is None
                or line is None
                or said is None
                or (without.of_cuda and container.without_nvidia)
                or any(x.number > line.number for x in log.find(*without.got))
            ):
                continue
            yield _finding(pod, container, without, line, said["why"] or "")
            return
        yield from _without_devices(container, log) if log is not None else ()


def _without_devices(container: Container, log: Log) -> Iterator[Finding]:
    """A server whose UCX may use only network devices that are not in its pod."""
    named = container.env.get(_DEVICES)
    wanted = {one.strip() for one in (named.value or "").split(",")} if named is not None else set()
    line = next(reversed(list(log.find(_LACKS))), None) if named is not None else None
    said = _LACKED.search(line.text[:2000]) if line is not None else None
    if named is None or line is None or said is None or not wanted <= set(re.findall(r"'([^']{1,80})'", said["lacks"])):
        return
    yield Finding(
        severity="warning",
        summary=f"{_DEVICES}={named.value} in {container.name} names no network device that the pod has, so that UCX, by which NIXL "
        "transfers KV caches, has none to another pod.",
        evidence=(log_evidence(line, _LACKS), pod_evidence(container, "env", f"{_DEVICES}: {named.value}")),
        fix=fixes.set_variables(
            container,
            {_DEVICES: None},
            f"Take {_DEVICES} away, so that UCX takes what there is ({said['has'].strip()}), on both sides; or give "
            f"the pod the device that it names (an RDMA resource in its limits)",
        ),
        order=line.order,
    )


def _finding(pod: Pod, container: Container, without: _Without, line: Line, why: str) -> Finding:
    named = next((one for name in without.told if (one := container.env.get(name)) and one.value), None)
    there = reach(named.value, pod, container) if named is not None and named.value else None
    return Finding(
        role="risk" if without.of_cuda else "cause",
        severity="warning",
        summary=f"{container.name} came up without {without.what}{f' ({why})' if why else ''}.",
        evidence=(
            log_evidence(line, without.literal),
            *((pod_evidence(container, "env", f"{named.name}: {named.value}"),) if named is not None else ()),
        ),
        fixes=(
            *((there,) if there is not None else ()),
            fixes.advice(
                without.fix,
                f"kubectl -n {shlex.quote(pod.namespace)} get pods,services -o wide",
            ),
        ),
        order=line.order,
    )

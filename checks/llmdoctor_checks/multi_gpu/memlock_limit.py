"""An RDMA device without the right to lock memory for it."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    RDMA,
    Engine,
    Finding,
    Fix,
    Logs,
    Pod,
    check,
    expression,
    fixes,
    log_evidence,
    pod_evidence,
)

_CAPABILITY = "IPC_LOCK"

#: UCX's ib_md.c, ib_iface.c and older ib_log.c: it goes on without the device.
_PINNED = "Please set max locked memory"
_REFUSED = expression(
    r"UCX  ERROR {1,4}(?:(?P<device>\w{1,40}): )?(?P<call>\w{4,40})\(.{0,400}?Cannot allocate memory.{0,40}Please set max locked memory"
    r"(?:.{0,40}\(current: (?P<limit>[\w ]{1,30})\))?"
)


@check("memlock-limit", since="0.1", severity="warning", literals=(_PINNED,))
def memlock_limit(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """The container cannot lock as much memory as RDMA needs.

    An RDMA adapter writes to memory by itself, so the pages must be pinned. How much a process may pin is limited, to 64 KiB or
    8 MiB by default, unless it has the capability IPC_LOCK. NCCL, UCX (NIXL) and Mooncake register gigabytes and get "Cannot
    allocate memory" although memory is free.

    A server may come up all the same, and send by TCP what it should send by RDMA.

    A container that asks for an `rdma/` device without the capability is a note: whether it suffers is the runtime's limit,
    which no object of the cluster says.

    ## Fix

    Add `IPC_LOCK` to the container's capabilities, which Pod Security `baseline` refuses: there the platform team lifts the
    runtime's limit instead. A process that is not root also needs an unlimited `ulimit -l` of the runtime.

    ## References

    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    """
    container = engine.container
    if pod.ready and logs is not None:
        yield from _without_the_device(pod, engine, logs)
    devices = [name for name in container.spec.resources.limits if name.startswith("rdma/")]
    if not devices or pod.ready or pod.partial or container.may(_CAPABILITY):
        return
    yield Finding(
        role="note",
        confidence="possible",
        summary=f"{container.name} asks for {devices[0]} without the capability {_CAPABILITY}: how much memory it may register "
        "with the adapter is what the container runtime allows, by default 64 KiB or 8 MiB.",
        evidence=(
            pod_evidence(container, "resources.limits", f"{devices[0]}: {container.spec.resources.limits[devices[0]]}"),
        ),
        fixes=_capability(engine),
    )


def _without_the_device(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A ready server that was given RDMA devices, which UCX left out as it started."""
    container, log = engine.container, logs.current(engine.container.name)
    given = any(re.fullmatch(RDMA, name.lower()) for name in container.spec.resources.limits)
    line = next(iter(log.find(_PINNED)), None) if log is not None and given else None
    said = _REFUSED.search(line.text[:2000]) if line is not None else None
    if line is None or said is None:
        return
    runtime = fixes.advice(
        f"Let the container runtime of node {pod.spec.node_name} set no limit for locked memory (LimitMEMLOCK=infinity in containerd's "
        "service), then start the pod again"
    )
    limit = f"; it may lock {said['limit']}" if said["limit"] else ""
    yield Finding(
        summary=f"UCX does without {said['device'] or 'the RDMA device'} in {container.name}, for which it could not lock memory "
        f"({said['call']}{limit}): what should go by RDMA, as KV caches, goes by TCP.",
        evidence=(log_evidence(line, _PINNED),),
        explains=("nccl-ib", "kv-transfer-failed"),
        fixes=(*(_capability(engine) if container.may_be_root and not container.may(_CAPABILITY) else ()), runtime),
        order=line.order,
    )


def _capability(engine: Engine) -> tuple[Fix, ...]:
    container, pod = engine.container, engine.container.pod
    advice = fixes.advice(
        f"Give {container.name} the capability {_CAPABILITY} (securityContext.capabilities.add) in {fixes.edited(pod)}"
    )
    return fixes.permitted(pod.cluster, pod.namespace, [(advice, "capability")])

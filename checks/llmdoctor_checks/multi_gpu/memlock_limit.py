"""An RDMA device without the right to lock memory for it."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Pod, check, fixes, pod_evidence

_CAPABILITY = "IPC_LOCK"


@check("memlock-limit", since="0.1", severity="warning")
def memlock_limit(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """The container cannot lock as much memory as RDMA needs.

    An RDMA adapter writes to memory by itself, so the pages must be pinned. How much a process may pin is limited, to 64 KiB or
    8 MiB by default, unless it has the capability IPC_LOCK. NCCL, UCX (NIXL) and Mooncake register gigabytes and get "Cannot
    allocate memory" although memory is free.

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
    devices = [name for name in container.spec.resources.limits if name.startswith("rdma/")]
    if not devices or pod.ready or pod.partial or container.may(_CAPABILITY):
        return
    advice = fixes.advice(
        f"Give {container.name} the capability {_CAPABILITY} (securityContext.capabilities.add) in {fixes.edited(pod)}"
    )
    yield Finding(
        role="note",
        confidence="possible",
        summary=f"{container.name} asks for {devices[0]} without the capability {_CAPABILITY}: how much memory it may register "
        "with the adapter is what the container runtime allows, by default 64 KiB or 8 MiB.",
        evidence=(
            pod_evidence(container, "resources.limits", f"{devices[0]}: {container.spec.resources.limits[devices[0]]}"),
        ),
        fixes=fixes.permitted(pod.cluster, pod.namespace, [(advice, "capability")]),
    )

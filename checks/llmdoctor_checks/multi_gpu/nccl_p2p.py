"""Direct paths between the GPUs, switched off by hand."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Accelerator, Engine, Evidence, Finding, Pod, check, fixes

#: Variables and the values by which they forbid a path.
_OFF = {"NCCL_P2P_DISABLE": ("1",), "NCCL_P2P_LEVEL": ("LOC", "0"), "NCCL_SHM_DISABLE": ("1",)}


@check("nccl-p2p", since="0.1")
def nccl_p2p(pod: Pod, engine: Engine, accelerator: Accelerator | None) -> Iterator[Finding]:
    """The GPUs of this server cannot exchange data directly.

    Within a server GPUs write into each other's memory over NVLink or PCIe. Some cards have no peer access at all; on others an IOMMU, PCIe
    access control (ACS) or a virtual machine breaks it although the driver reports it. Then the first all-reduce hangs until the
    watchdog ends it, or NCCL and vLLM's own all-reduce report errors.

    A message that vLLM has disabled its custom all-reduce is harmless.

    ## Fix

    Test with `NCCL_P2P_DISABLE=1` and `--disable-custom-all-reduce`. If that works, mend the node (IOMMU, ACS), or keep the two settings.

    ## References

    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    workers = engine.workers_at_least
    env = engine.container.env
    found = [v for name, values in _OFF.items() if (v := env.get(name)) and v.value in values]
    if workers < 2 or not found or pod.failing:
        return
    names = {v.name for v in found}
    direct, shared = bool(names - {"NCCL_SHM_DISABLE"}), "NCCL_SHM_DISABLE" in names
    instead = "the network's loopback" if direct and shared else "/dev/shm in host memory" if direct else ""
    gpu = accelerator.gpu if accelerator else None
    unused = f"; the NVLink of {gpu.name} is not used" if gpu and gpu.nvlink and direct else ""
    effect = (
        f"the {workers} GPUs exchange everything through {instead}{unused}"
        if instead
        else f"where the {workers} GPUs have no direct path, they use the network's loopback instead of shared memory"
    )
    yield Finding(
        role="note",
        severity="info",
        confidence="likely",
        summary=f"{' and '.join(sorted(names))} set by hand: {effect}.",
        evidence=tuple(Evidence(source="pod", ref=v.path, text=f"{v.name}={v.value}") for v in found),
        fixes=tuple(
            fixes.remove_env(engine.container, v.name, f"Remove {v.name}, unless this node hangs without it")
            for v in found
        ),
        pods=(pod.name,) if pod.exists else (),
    )

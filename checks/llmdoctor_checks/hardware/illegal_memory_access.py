"""A kernel of this pod that the GPU stopped, by the driver's own word."""

from collections.abc import Iterator, Sequence

from kubectl_llmdoctor.api import Finding, Fix, Hardware, Logs, Pod, check, engines_in, fixes, own_kernels
from kubectl_llmdoctor.catalog.xids import AFTEREFFECTS, XidMeaning, xid_meaning
from llmdoctor_checks.hardware._broken_context import LITERALS, REPLACED, broken_context
from llmdoctor_checks.hardware._gpu import (
    CONSEQUENCES,
    ERRORS,
    OF_GPUS,
    Hit,
    hits,
    hitting,
    out_of_service,
    quoted,
    said_then,
    says_otherwise,
)

#: How an engine goes on until its kernels stop at nothing: by its name, and on a GPU of AMD first.
_INSTEAD = {
    "vllm": "without CUDA graphs (--enforce-eager), with another attention backend",
    "sglang": "without CUDA graphs (--disable-cuda-graph), with another --attention-backend",
    "llama.cpp": "without flash attention (--flash-attn off) or a quantized cache, with another quantization of the model",
    "ollama": "without flash attention (OLLAMA_FLASH_ATTENTION=0), with another quantization of the model",
}
_OF_AMD = {"vllm": "without AITER (VLLM_ROCM_USE_AITER=0), ", "sglang": "without AITER (SGLANG_USE_AITER=0), "}
_ELSE = "without CUDA graphs (of vLLM --enforce-eager), with another attention backend, without a quantized kernel"
_OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"

#: The driver's word for who made an access that it knows no client for.
_UNKNOWN = "UNRECOGNIZED_CLIENT"


@check("illegal-memory-access", since="0.1", literals=(*LITERALS, *REPLACED, *OF_GPUS, *ERRORS))
def illegal_memory_access(pod: Pod, hardware: Hardware | None, logs: Logs | None) -> Iterator[Finding]:
    """A kernel touched memory of the GPU that it must not touch.

    The GPU stopped a kernel: at an address that it must not use (CUDA error 700), at an instruction (715), an address that is not
    aligned (716), or for a reason that it does not say (719). The kernel's log has an Xid 13 or 31 then, of an AMD GPU a page
    fault. It is a fault of the program nearly always: of the engine, of a compiled kernel for this shape, quantization or
    attention backend. CUDA reports it at some later call, so that the traceback names the wrong place, and all that the process
    does afterwards fails with the same error. Other ranks wait until a timeout.

    A server that catches it lives on, and its health may answer: then each request meets the same error, or is answered with nonsense,
    until somebody starts the process again.

    ## Fix

    Start a server that lives on again, and let its liveness probe ask for an answer of the model. Try another version of the engine,
    then without CUDA graphs, another attention backend, without speculative decoding. When the same GPU shows it under several pods,
    and no other GPU does, suspect the GPU.

    ## References

    - https://docs.nvidia.com/deploy/xid-errors/
    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if hardware is None:
        yield from broken_context(pod, logs)
        return
    found = [hit for hit in hits(hardware, _wanted) if hardware.explains(hit[0])]
    if not found or (found[0][1] != "certain" and says_otherwise(pod, logs)):
        yield from broken_context(pod, logs)
        yield from _by_amdgpu(pod, hardware)
        return
    xid, sure = found[0]
    meaning = xid_meaning(xid.number)
    before = [
        old
        for old in hardware.xids
        if old.bus == xid.bus != "" and old.number == xid.number and not hardware.during(old.time)
    ]
    again = f"; the same GPU reported it {len(before)} times before this pod came to it" if len(before) > 1 else ""
    suspect = out_of_service(
        hardware, f"Run the diagnostics of the GPU at {xid.bus}: it fails under other pods as well"
    )
    yield Finding(
        confidence=sure,
        summary=f"The GPU stopped a kernel (Xid {xid.number}{f', {meaning.meaning}' if meaning else ''}) on "
        f"{hitting(hardware, xid, sure)}{again or ': a fault of the program, not of the card'}.",
        evidence=(*quoted(found), *said_then(pod, logs, xid), *(old.evidence for old in before[-2:])),
        explains=CONSEQUENCES,
        fixes=(*((suspect,) if again else ()), _looked_for(pod), *_reboots(hardware, found)),
        order=xid.order,
    )


def _reboots(hardware: Hardware, found: Sequence[Hit]) -> Iterator[Fix]:
    """What the GPUs need where the driver does not know whose access it was: such a fault is not kept to one program."""
    if len({xid.bus for xid, _ in found if _UNKNOWN in xid.text}) > 1:
        yield out_of_service(
            hardware,
            f"Reboot {hardware.node} where nothing new starts on its GPUs: several faulted for a client that the driver does not know",
        )


def _by_amdgpu(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """An access that an AMD GPU of the node refused about when the pod's process ended; no process is named that is known here."""
    faults = [line for line in hardware.kernel.page_faults if hardware.during(line.time)]
    sure = hardware.near(faults[0].time) if faults and faults[0].time else None
    if sure is None or not any(name.startswith("amd.com/") for name in pod.accelerators):
        return
    yield Finding(
        confidence=sure,
        summary=f"An AMD GPU of {hardware.node} refused an access of a kernel (page fault) "
        f"{'when' if sure == 'likely' else 'before'} this pod's process ended: a fault of the program nearly always.",
        evidence=tuple(hardware.kernel.evidence(line) for line in faults[:2]),
        explains=CONSEQUENCES,
        fix=_looked_for(pod),
    )


def _looked_for(pod: Pod) -> Fix:
    """What to change of the engine until its kernels stop at nothing, that first which brings kernels of its own."""
    engine = next(iter(engines_in(pod)), None)
    amd = any(name.startswith("amd.com/") for name in pod.accelerators)
    name, title = (engine.name, engine.title) if engine else ("", "the engine")
    debug = ("AMD_SERIALIZE_KERNEL=3" if amd else "CUDA_LAUNCH_BLOCKING=1") + " names the true kernel"
    instead = f"{_OF_AMD.get(name, '') if amd else ''}{_INSTEAD.get(name, _ELSE)}"
    release = f"another release of {title}" + (", or of ROCm in its image" if amd else "")
    told = engine.container.env.get(_OVERRIDE) if engine and amd else None
    if told is not None and told.value:
        return fixes.advice(
            f"Correct {_OVERRIDE}={told.value} in {fixes.edited(pod)} to this GPU's own generation, or take it away: by it ROCm runs "
            f"kernels that were built for another GPU; where it is right, take {release}"
        )
    if suspect := own_kernels(engine):
        return fixes.advice(
            f"Take {suspect} away first, in {fixes.edited(pod)}: it brings kernels of its own; where the fault returns, go {instead}, "
            f"then take {release}; {debug}"
        )
    return fixes.advice(f"Take {release}, in {fixes.edited(pod)}; or go {instead}; {debug}")


def _wanted(number: int, meaning: XidMeaning | None) -> bool:
    return meaning is not None and meaning.kind == "application" and number not in AFTEREFFECTS

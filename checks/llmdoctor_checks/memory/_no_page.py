"""A GPU that is lost as the machine, whose memory is the GPU's, has none left.

Integrated GPUs (of AMD's and Intel's processors) have no memory of their own. Where the kernel finds no page for what a process asks, the
driver cannot finish the GPU's job either, and Vulkan calls the device lost: before the kernel kills anything.
"""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GPU_PRODUCT,
    Ending,
    Engine,
    Finding,
    Fix,
    Hardware,
    Log,
    Node,
    expression,
    fixes,
    log_evidence,
    say_bytes,
)
from llmdoctor_checks.memory._killed import CONSEQUENCES, PROCESSES, close

#: How Vulkan names a device that is gone.
_LOST = ("ErrorDeviceLost", "vk::DeviceLostError", "VK_ERROR_DEVICE_LOST", "device lost on Vulkan")

#: GPUs of NVIDIA's whose memory is the machine's; and how llama.cpp (ggml-vulkan.cpp) and Ollama say which memory a device has.
OF_THE_MACHINE = expression(r"\bGB10\b|\bOrin\b|\bThor\b")
_SHARES, _OWN = ("| uma: 1", "type=iGPU"), ("| uma: 0", "type=discrete")
LITERALS = (*_LOST, *_SHARES, *_OWN)

#: The kernel has not a single page left for a process (`mm/page_alloc.c`, `warn_alloc`). More than one at once may only lie apart.
_NO_PAGE = expression(rf"(?P<process>{PROCESSES}[^,:]{{0,40}}): page allocation failure: order:0,")


def starved(
    ending: Ending, engine: Engine | None, log: Log | None, hardware: Hardware | None, node: Node | None
) -> Iterator[Finding]:
    """An engine that lost its GPU as the kernel had no page left for it."""
    gone = log.last(*_LOST) if log is not None else None
    if engine is None or gone is None or log is None or hardware is None or _apart(engine, log, node):
        return
    for line in hardware.kernel.lines:
        said = _NO_PAGE.search(line.text)
        if said is None or not close(line.time, ending):
            continue
        total = node.capacity("memory") if node else None
        yield Finding(
            summary=f"The kernel of {hardware.node}{f' ({say_bytes(total)})' if total else ''} had no memory left for {said['process']} as "
            f"{engine.at} lost its GPU, which shares that memory.",
            evidence=(hardware.kernel.evidence(line), log_evidence(gone)),
            explains=(*CONSEQUENCES, "gpu-fallen-off", "xid-error"),
            fixes=tuple(_fixes(engine)),
            order=gone.order,
        )
        return


def _apart(engine: Engine, log: Log, node: Node | None) -> bool:
    """Whether the GPU surely has memory of its own."""
    of_nvidia = any(name.startswith("nvidia.com/") for name in engine.container.accelerators)
    named = node.labels.get(GPU_PRODUCT, "") if node else ""
    return (of_nvidia and not OF_THE_MACHINE.search(named)) or (any(log.find(*_OWN)) and not any(log.find(*_SHARES)))


def _fixes(engine: Engine) -> Iterator[Fix]:
    """What of the engine's settings takes the machine's memory beside the model."""
    if engine.name == "llama.cpp":
        yield fixes.set_flag(
            engine,
            "cache_ram_mib",
            "--cache-ram",
            "0",
            "Keep no prompts of earlier requests in the machine's memory (8 GiB where nothing is set): --cache-ram 0",
        )
    context = engine.explicit("max_model_len")
    if context is not None and isinstance(context.value, int):
        summary = f"Halve the context: {context.text.partition('=')[0].split()[0]} {context.value // 2}"
        yield fixes.advice(f"{summary}, in {fixes.edited(engine.pod)}; or take a smaller quantization of the model")
    else:
        yield fixes.advice(
            f"Lower the context, or take a smaller quantization of the model, in {fixes.edited(engine.pod)}"
        )

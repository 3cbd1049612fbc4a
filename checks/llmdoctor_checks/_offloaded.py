"""How much of a model llama.cpp, and Ollama with it, put on the GPU, and servers that went on without one."""

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    expression,
    limits_evidence,
    log_evidence,
    say_devices,
)

#: llama.cpp, and Ollama with either of its runners (`llm_load_tensors:` before 2025, then `load_tensors:`, `ggml.go`).
OFFLOADED = r"offloaded (\d{1,9})/(\d{1,9}) layers to GPU"


#: Where it puts the weights, buffer by buffer, as each model is loaded (`load_tensors`, before 2025 `llm_load_tensors`).
BUFFER = " model buffer size ="
_BUFFERS = expression(r"load_tensors: +([\w.:\[\]-]{1,60}) +model buffer size = +\d")
#: Memory of the CPU: `CPU_Mapped`, `CPU_REPACK` and others, and what Intel's AMX computes with.
_OF_THE_CPU = ("CPU", "AMX")


def on_the_cpu(line: Line) -> bool | None:
    """Whether a line puts weights into the CPU's memory; None where it does not tell."""
    said = _BUFFERS.search(line.text[:1000])
    return said[1].startswith(_OF_THE_CPU) if said is not None else None


def last_offloaded(log: Log) -> tuple[Line, int, int] | None:
    """The model that was loaded last: the line, its layers on the GPU, all of them."""
    found = None
    for line, said in log.matching(OFFLOADED, "layers to GPU"):
        if int(said[2]):
            found = line, int(said[1]), int(said[2])
    return found


def on_gpu_since(line: Line) -> bool:
    """Whether a later process of the same server had the GPU: a router, and Ollama, start one for each model, and search again.

    Old releases call layers offloaded that they have on the CPU.
    """
    found = line.log.find("ggml_cuda_init: found ", 'msg="inference compute"')
    return any(x.number > line.number and "library=cpu" not in x.text for x in found)


def asked_for(engine: Engine) -> dict[str, int]:
    """The GPUs of NVIDIA that the container of a llama.cpp or Ollama asks for, which goes on without them; else nothing."""
    if engine.name not in ("ollama", "llama.cpp"):
        return {}
    return {name: n for name, n in engine.container.accelerators.items() if name.startswith("nvidia.com/")}


def without_gpu(engine: Engine, refused: Line, why: str, fix: Fix) -> Finding:
    """A ready server whose GPU CUDA refuses on a line: slow, not dead."""
    container, asked = engine.container, asked_for(engine)
    return Finding(
        severity="warning",
        summary=f"{engine.label} runs on the CPU: {why}, though container {container.name} asks for "
        f"{say_devices(asked)}.",
        evidence=(log_evidence(refused), *limits_evidence(container, asked)),
        explains=("cpu-starved", "weights-off-gpu", "gpu-runtime-missing"),
        fix=fix,
        order=refused.order,
    )

"""A process of Triton's Python backend that is gone without a word of its own, where the container has little memory."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import GIB, Engine, Finding, Log, fixes, log_evidence, pod_evidence, say_bytes
from llmdoctor_checks.memory._killed import CONSEQUENCES
from llmdoctor_checks.memory._pinned import STUB, died

#: By what vLLM in such a process says that it has begun.
_BEGAN = ("Initializing an LLM engine", "Initializing a V1 LLM engine", "Starting to load model")

#: By what it, or Triton, says that the model is loaded: then the memory sufficed for that.
_LOADED = ("# GPU blocks: ", "GPU KV cache size: ", "Started HTTPService at ", "Started GRPCInferenceService at ")

#: The exit codes of a container that ended as it was told to.
TOLD_TO_STOP = (0, 130, 143)

#: What Triton, Python, PyTorch and a CUDA context take together, and what suffices for a model of some billion parameters.
_LITTLE, _ENOUGH = 4 * GIB, "16Gi"


def gone_in_stub(engine: Engine, limit: int, log: Log) -> Iterator[Finding]:
    """vLLM in Triton that began to load and was gone; Triton ends with an error then, and the container is not called OOMKilled."""
    gone, container = died(log), engine.container
    if engine.name != "triton" or limit > _LITTLE or gone is None or STUB not in gone.text:
        return
    began = next((line for line in log.find(*_BEGAN) if line.number < gone.number), None)
    if began is None or any(began.number < line.number < gone.number for line in log.find(*_LOADED)):
        return
    raised = f"Raise the memory limit of {container.name} from {say_bytes(limit)}, for example to {_ENOUGH}"
    yield Finding(
        confidence="possible",
        summary=f"The process of {container.name} in which vLLM loads the model ended without a word of its own, and the memory limit is "
        f"{say_bytes(limit)}: Triton, PyTorch and a CUDA context alone take about as much, and the kernel kills at the limit.",
        evidence=(
            log_evidence(gone),
            log_evidence(began),
            pod_evidence(
                container, "resources.limits.memory", str(container.spec.resources.limits.get("memory", limit))
            ),
        ),
        explains=CONSEQUENCES,
        fix=fixes.set_resource(container, "limits", "memory", _ENOUGH, raised),
        order=gone.order,
    )

"""CUDA's error 35: the driver is older than the image's CUDA, or there is none in the container."""

from __future__ import annotations

import msgspec

from kubectl_llmdoctor.api import (
    Engine,
    Evidence,
    Line,
    Logs,
    Node,
    Pod,
    driver_cuda,
    endings,
    image_cuda,
    log_evidence,
    log_of,
    phase_of,
    say_cuda,
    suffices,
)

NO_DRIVER = "driver version is insufficient"
#: As CUDA itself and TensorRT print it.
ERROR_35 = (NO_DRIVER, "cudaErrorInsufficientDriver", "CUDA initialization failure with error: 35")


class Error35(msgspec.Struct, frozen=True):
    """The error, with the CUDA that the node's driver knows and the one of the image, in words, and what shows them."""

    line: Line
    driver: str
    image: str
    evidence: tuple[Evidence, ...]
    #: None where that is open
    suffices: bool | None


def error_35(pod: Pod, engine: Engine, logs: Logs, node: Node | None) -> Error35 | None:
    """The error that ended an engine, where both versions are known and it did not go on without."""
    container, driver = engine.container, driver_cuda(pod, node)
    ended = [log for ending in endings(pod) if ending.container is container and (log := log_of(ending, logs))]
    line = next((line for log in ended for line in log.find(*ERROR_35)), None)
    image = image_cuda(container, logs) if line else None
    if line is None or driver is None or image is None:
        return None
    phase = phase_of(line.log)
    if phase is not None and phase.line.number > line.number:
        return None
    return Error35(
        line,
        say_cuda(driver[0]),
        say_cuda(image[0]),
        (log_evidence(line), driver[1], image[1]),
        suffices(driver[0], image[0]),
    )

"""CUDA's error 35: the driver is older than the image's CUDA, or there is none in the container."""

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Evidence,
    Line,
    Logs,
    Node,
    driver_cuda,
    ending_of,
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
    """The error, with the CUDA that the driver knows and the one of the image (empty where not known), in words, and what shows them."""

    line: Line
    driver: str
    image: str
    evidence: tuple[Evidence, ...]
    #: None where that is open
    suffices: bool | None


def error_35(container: Container, logs: Logs, node: Node | None) -> Error35 | None:
    """The error that ended a container, where the versions are known and it did not go on without.

    The image's need not be known where the driver suffices for any.
    """
    driver = driver_cuda(container.pod, node)
    log = log_of(ending_of(container), logs)
    line = next(log.find(*ERROR_35), None) if log else None
    if line is None or driver is None:
        return None
    phase = phase_of(line.log)
    if phase is not None and phase.line.number > line.number:
        return None
    image = image_cuda(container, logs)
    enough = suffices(driver[0], image[0] if image else None)
    if image is None and not enough:
        return None
    return Error35(
        line,
        say_cuda(driver[0]),
        say_cuda(image[0]) if image else "",
        (log_evidence(line), driver[1], *((image[1],) if image else ())),
        enough,
    )

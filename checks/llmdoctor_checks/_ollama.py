"""How Ollama's search for GPUs ended when it computes on the CPU."""

import re
from collections.abc import Sequence

import msgspec

from kubectl_llmdoctor.api import Engine, Line, Log, Logs, served
from llmdoctor_checks._offloaded import BUFFER, on_the_cpu

_FAILED = r'msg="failure during (?:llama-server )?GPU discovery".{0,400}?/(?P<library>(?:cuda|rocm)\w*)\]".{0,400}? error="(?P<why>[^"]+)"'

#: Since 0.31, where the search itself did not end.
_WATCHDOG = r'msg="llama-server GPU discovery watchdog timed out".{0,400}?/(?P<library>(?:cuda|rocm)\w*)\]"'

#: With this variable Ollama starts its runner once more for each device that it has found, to see whether the library runs on it.
_OF_A_DEVICE = "GGML_CUDA_INIT"

#: The device may be fit: its initialisation took longer than Ollama waits.
_SLOW = ("before timeout", "deadline exceeded")

#: Releases of early 2024 say this, and list no devices; later ones that, before they list the CPU.
_NONE = ('msg="no GPU detected"', 'msg="no compatible GPUs were discovered"')

#: What its search for the libraries of NVIDIA's driver finds: nothing, each time it looks.
_FOUND, _NOTHING = "iscovered GPU libraries", r'iscovered GPU libraries(?:: \[?\]"|" paths=\[\])'

#: What CUDA and ROCm answer in a container that got none.
NO_DEVICE = "-capable device is detected"
#: CUDA's error 999: no module nvidia_uvm on the node, or none of its devices in the container.
UNKNOWN = "failed to initialize CUDA: unknown error"
#: And of its error 3; releases of Ollama before 0.12 name both by their numbers (discover/gpu_info_*.c).
UNINITIALISED = "failed to initialize CUDA: initialization error"
INIT_FAILURE = " init failure: "

_NO_KERNELS = "no rocblas support for gfx target"

#: Since 0.30 (discover/llama_server.go), of each of its libraries in turn: that for CUDA 13 passes over what the one for CUDA 12 takes.
_SKIPPED_GPU = "skipping CUDA device"
_OF_CUDA_12 = (
    r"not in compiled architectures\".{0,300} cc=(?P<major>\d{1,2})(?P<minor>\d)0 .{0,400}/(?P<library>cuda_v12)\b"
)
#: And what it passes over for its driver's sake.
PASSED_OVER = "NVIDIA driver too old"

#: What the search for GPUs leaves in a log, beside the words of signatures.
SEARCHED = ("GPU discovery", "no usable GPU found", _NO_KERNELS, _SKIPPED_GPU, PASSED_OVER, BUFFER)


#: The folders of libraries that Ollama's images and packages have had (`lib/ollama`). By any other name it skips all of them.
_LIBRARY = "OLLAMA_LLM_LIBRARY"
_LIBRARIES = r"(?:cuda_v\d+|cuda_jetpack\d|rocm\w*|vulkan\w*|mlx_\w+|oneapi\w*|metal\w*)"
SKIPPED = "skipping available library at user"


def wrong_library(engine: Engine, logs: Logs) -> tuple[str, Line] | None:
    """The name that OLLAMA_LLM_LIBRARY has and no library of Ollama's, and the line that lists the CPU alone, since it skips the others."""
    container = engine.container
    variable = container.env.get(_LIBRARY)
    name = str(variable.value or "") if variable is not None else ""
    found = fallback(container.name, logs) if name and not re.fullmatch(_LIBRARIES, name) else None
    if found is None or found.failed is not None:
        return None
    skipped = next(found.cpu.log.find(SKIPPED), None)
    return (name, found.cpu) if skipped is not None or engine.at_least("0.12.5") else None


class Fallback(msgspec.Struct, frozen=True):
    """The CPU is the only device that Ollama lists.

    `failed` is a line about a GPU that it had found: `too_slow` to start within the 30 s that Ollama waits (`unseen`: the
    search for GPUs itself took longer), else `refused` because the library `library` fails on it or, if `gfx` is known, has
    nothing for this architecture or compute capability.
    """

    cpu: Line
    failed: Line | None = None
    library: str = ""
    gfx: str = ""
    too_slow: bool = False
    unseen: bool = False

    @property
    def refused(self) -> bool:
        return self.failed is not None and not self.too_slow


def latest(container: str, logs: Logs) -> Sequence[Log]:
    """The logs that tell of the devices, the latest first: of an instance that has answered, its own alone."""
    current = logs.current(container)
    return (current,) if current is not None and served(current) else logs.of(container)[::-1]


def passed_over(container: str, logs: Logs) -> bool:
    """Whether it found a GPU, and passed over it since the driver is too old for its library."""
    return any(next(log.find(PASSED_OVER), None) for log in latest(container, logs))


def fallback(container: str, logs: Logs) -> Fallback | None:
    """What the last log that lists devices says of it; None where a GPU is among them."""
    for log in latest(container, logs):
        listed = list(log.find('msg="inference compute"'))
        if not listed:
            if none := next(log.find(*_NONE), None):
                return Fallback(none)
            continue
        if not all("library=cpu" in line.text for line in listed):
            return None
        cpu = listed[0]
        for line in log.find(_NO_KERNELS):
            gfx = re.search(r"gfx_target=(gfx\w+)", line.text)
            return Fallback(cpu, line, "rocm", gfx[1] if gfx else "")
        for line in log.find(_SKIPPED_GPU):
            said = re.search(_OF_CUDA_12, line.text[:2000])
            if said is not None and not passed_over(container, logs):
                return Fallback(cpu, line, said["library"], f"compute capability {said['major']}.{said['minor']}")
        slow = None
        for line in log.find("GPU discovery"):
            if late := re.search(_WATCHDOG, line.text):
                slow = slow or Fallback(cpu, line, late["library"], too_slow=True, unseen=True)
            if _OF_A_DEVICE in line.text and (said := re.search(_FAILED, line.text)):
                if not said["why"].endswith(_SLOW):
                    return Fallback(cpu, line, said["library"])
                slow = slow or Fallback(cpu, line, said["library"], too_slow=True)
        return slow or Fallback(cpu)
    return None


def without_driver(container: str, logs: Logs) -> Line | None:
    """The last line of a search that found no library of NVIDIA's driver, where the log does not go on to what it then did."""
    for log in latest(container, logs):
        if looked := list(log.find(_FOUND)):
            went_on = next(log.find('msg="inference compute"', f"{LOST}found "), None) is not None
            empty = all(re.search(_NOTHING, line.text) for line in looked)
            return looked[-1] if empty and not went_on else None
    return None


#: What llama.cpp, of which Ollama starts a new process for each model, says of the devices.
LOST = "ggml_cuda_init: "


def _of_models(log: Log) -> list[Line]:
    """The same without what the search for GPUs tried: one library after the other, until it lists what it found."""
    since = listed_at(log)
    return [line for line in log.find(LOST) if line.number > since or "failed to initialize" not in line.text]


def listed_at(log: Log) -> int:
    """The last line in which Ollama lists a GPU, with which its search for them ended; 0 where it lists none."""
    listed = (line.number for line in log.find('msg="inference compute"') if "library=cpu" not in line.text)
    return max(listed, default=0)


def lost(container: str, logs: Logs) -> tuple[Line, Line] | None:
    """A model for which the instance that runs had found a GPU, and the last one, for which it finds none; else None.

    That Ollama lists a GPU at its start is not enough: it reads of AMD's in /sys, and a slice of one may be listed and not opened.
    """
    log = logs.current(container)
    said = _of_models(log) if log else []
    there = [line for line in said if re.search(r"found [1-9]\d{0,3} (?:CUDA|ROCm) devices", line.text)]
    if not there or "failed to initialize" not in said[-1].text:
        return None
    return there[-1], said[-1]


def alone(container: str, logs: Logs, ready: bool) -> Line | None:
    """What a build of llama.cpp or TEI with CUDA or ROCm says when it finds no device.

    Any other failure has its own cause, which is silent once the pod serves.
    """
    for log in latest(container, logs):
        found = next(log.find("Could not find a compatible CUDA device on host"), None)
        if found is not None:
            return found
        begun = next(reversed(_of_models(log)), None)  # Ollama starts it again for each model
        if begun is not None and "failed to initialize" in begun.text:
            said = ready or NO_DEVICE in begun.text
            return begun if said and not _has_weights(log, begun) else None
        line = next(log.find("no usable GPU found"), None)
        if line is not None and (begun is None or begun.number < line.number):
            return None if _has_weights(log, line) else line
    return None


def _has_weights(log: Log, line: Line) -> bool:
    """Whether a GPU, of whatever kind, was given weights after a line."""
    return any(x.number > line.number and on_the_cpu(x) is False for x in log.find(BUFFER))


def with_rocm(engine: Engine) -> str:
    """Ollama's image for AMD GPUs, which has a tag of its own, where the container has the other one."""
    image = engine.container.spec.image
    name, _, tag = image.rpartition("/")[2].partition(":")
    if engine.name != "ollama" or name != "ollama" or "@" in image or "rocm" in tag:
        return ""
    return f"{image.removesuffix(':latest')}:rocm" if tag in ("", "latest") else f"{image}-rocm"

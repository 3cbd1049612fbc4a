"""GPU memory that was gone before a server had loaded any weights, as the server itself wrote it down."""

from typing import NamedTuple

from kubectl_llmdoctor.api import GIB, Engine, Line, Log, Sizing, expression

#: What each rank of SGLang prints when it begins to load (model_executor/model_runner.py), in GiB that it calls GB. A draft model
#: is loaded beside what is there already: the first of each rank counts.
_SGLANG = "Load weight begin. avail mem="
_BEGINS = expression(
    r"\[\d{4}-\d\d-\d\d [\d:.]{8,12}(?P<rank> [^\]]{0,40})?\].{0,40}"
    r"Load weight begin\. avail mem=(?P<free>\d{1,4}\.\d{1,2}) GB"
)
#: What its weights took of the GPU.
_LOADED = expression(r"Load weight end\..{0,300}mem usage=(?P<own>\d{1,4}\.\d{1,2}) GB")
#: A new start of the server in the same log, and the end of one.
_START, _SERVES = "server_args=", "The server is fired up and ready to roll"
#: What SGLang dies of for want of memory while it starts.
_SGLANG_SHARE = "Please try to increase --mem-fraction-static"
_SGLANG_SHORT = (_SGLANG_SHARE, "leave no GPU memory for the KV cache", "out of memory")

#: TensorRT-LLM's account of its parts (_torch/pyexecutor/py_executor_creator.py): free memory before and after each, the model first.
_TRTLLM = "Executor creation failed due to insufficient GPU memory"
_TOTAL, _FREE = "Total GPU memory (GiB): ", "Free GPU memory before component creation attempt (GiB): "
_FIRST = expression(r"^[Mm]odel: (?P<free>\d{1,4}\.\d{1,2}) / \d")
_NUMBER = expression(r"\(GiB\): (?P<size>\d{1,4}\.\d{1,2})\b")
_MODEL_FAILED = expression(r"^The following component could not be created: [Mm]odel$")

#: What llama.cpp finds free before it loads anything (src/llama.cpp), and what it then does not get.
_LLAMA, _LLAMA_SHORT = " MiB free", "cudaMalloc failed: out of memory"
_DEVICE = expression(r"using device (?P<name>(?:CUDA|ROCm)\d{1,3}) \(.{1,200}?\) - (?P<free>\d{1,8}) MiB free")
_REFUSED = expression(
    r"(?:allocating (?P<mib>\d{1,9}(?:\.\d{1,3})?) MiB )?on device (?P<number>\d{1,3}): cudaMalloc failed: out of memory"
)

#: A context, communicators and a desktop take less than both of these.
_LEAST, _SHARE = 4 * GIB, 0.2
#: GPUs whose memory is the machine's: what is not free of it may be files that the kernel keeps.
_OF_THE_MACHINE = ("GB10", "Jetson", "Thor", "Orin", "MI300A")


class Before(NamedTuple):
    """What was free of a GPU before the weights, of how much, and where that is said; the line that tells that memory ran out."""

    free: float
    total: float
    line: Line
    short: Line


def before_weights(engine: Engine, log: Log, sizing: Sizing) -> Before | None:
    """The GPU of which much was missing before the weights, where the start then failed for want of memory."""
    card = sizing.accelerator
    if card is not None and any(name in card.gpu.name for name in _OF_THE_MACHINE):
        return None
    if engine.name == "tensorrt-llm":
        found = _of_trtllm(log)
    elif card is None:
        return None
    elif engine.name == "sglang":
        found = _of_sglang(engine, log, card.gpu.memory)
    elif engine.name == "llama.cpp":
        found = _of_llama(log, card.gpu.memory)
    else:
        return None
    if found is None or found.total - found.free < max(_LEAST, _SHARE * found.total):
        return None
    # weights that alone are more than the whole GPU
    own = (sizing.file_bytes or 0) / (engine.workers or 1)
    return found if own < found.total else None


def _of_sglang(engine: Engine, log: Log, total: float) -> Before | None:
    free: dict[str, tuple[float, Line]] = {}
    short, served, own = None, False, 0.0
    lines = sorted(log.find(_START, _SGLANG, _SERVES, "Load weight end.", *_SGLANG_SHORT), key=lambda line: line.number)
    for line in lines:
        if _START in line.text:
            free, short, served, own = {}, None, False, 0.0
        elif _SERVES in line.text:
            served = True
        elif hit := _BEGINS.search(line.text[:400]):
            free.setdefault(hit["rank"] or "", (float(hit["free"]) * GIB, line))
        elif hit := _LOADED.search(line.text[:600]):
            own = own or float(hit["own"]) * GIB
        elif short is None and any(words in line.text for words in _SGLANG_SHORT):
            short = line
    if not free or short is None or served:
        return None
    # a share of the whole GPU that the weights alone fill
    share = engine.value("gpu_memory_utilization")
    if _SGLANG_SHARE in short.text and isinstance(share, float) and own >= share * total:
        return None
    least, where = min(free.values(), key=lambda one: one[0])
    return Before(least, total, where, short) if short.number > where.number else None


def _of_trtllm(log: Log) -> Before | None:
    short = log.last(_TRTLLM)
    sizes = {
        key: (float(hit["size"]) * GIB, line) for key in (_FREE, _TOTAL) for line, hit in log.matching(_NUMBER, key)
    }
    if short is None or _TOTAL not in sizes:
        return None
    first = next(((float(hit["free"]) * GIB, line) for line, hit in log.matching(_FIRST, "odel: ")), None)
    if first is None and next(log.matching(_MODEL_FAILED, "component could not be created"), None):
        first = sizes.get(_FREE)
    return Before(first[0], sizes[_TOTAL][0], first[1], short) if first else None


def _of_llama(log: Log, total: float) -> Before | None:
    """By the first model that the server loads: of a further one its own are beside it."""
    refused = next(log.matching(_REFUSED, _LLAMA_SHORT, most=400), None)
    if refused is None:
        return None
    line, said = refused
    if float(said["mib"] or 0) * 2**20 > total:
        return None  # not even an empty one has so much
    number = said["number"]
    for where, hit in log.matching(_DEVICE, _LLAMA, most=600):
        if hit["name"] in (f"CUDA{number}", f"ROCm{number}") and where.number < line.number:
            return Before(float(hit["free"]) * 2**20, total, where, line)
    return None

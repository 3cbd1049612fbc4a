"""What is enough: by what a message and the specification say, which value of a setting makes room, and which setting is meant.

Each is a text for a fix, and empty where nothing says it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from itertools import takewhile

import msgspec

from kubectl_llmdoctor.catalog import quantization
from kubectl_llmdoctor.engines.names import OPTIONS
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import shares_of
from kubectl_llmdoctor.facts.container import WHOLE_GPUS, Container, is_accelerator
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.k8s import Node, Pod
from kubectl_llmdoctor.facts.lengths import number_of
from kubectl_llmdoctor.facts.sizing import Sizing
from kubectl_llmdoctor.facts.units import GIB, say_bytes, units

#: PyTorch's account of the memory when there was none (CUDACachingAllocator.cpp): since 2.1, and before.
_ACCOUNT = (
    expression(
        r"Tried to allocate (?P<asked>[\d.]{1,12} [KMG]iB).{0,40}?total capac(?:i)?ty of (?P<total>[\d.]{1,12} [KMG]iB) "
        r"of which (?P<free>[\d.]{1,12} [KMG]iB) is free"
    ),
    expression(
        r"Tried to allocate (?P<asked>[\d.]{1,12} [KMG]iB) \(\wPU \d{1,3}; (?P<total>[\d.]{1,12} [KMG]iB) total capacity;"
        r".{0,160}?; (?P<free>[\d.]{1,12} [KMG]iB) free"
    ),
)

_AMOUNT = expression(r"(?P<number>[\d.]{1,20}) ?(?P<unit>[KMGT]?)(?:i?B|bytes)?")

_SHARE = expression(r"0?\.\d{1,8}")

#: An option that an engine advises, and a type of cache that a part of it refuses.
_TOLD_FLAG = expression(
    r"[Pp]lease (?:use|set|try|specify|choose|pass)(?: with)? [`'\"]?(?P<flag>--[a-z][\w-]{2,40})[ =]"
    r"(?P<value>(?!(?:to|and|or|instead|in|on|for|when|if|with|as|option|flag)\b)\w[\w-]{0,38}(?:\.\d{1,4})?)"
)
#: A compute capability, as messages write it: `7.0`, `70`, `120`, `sm_120a`.
_CAPABILITY = expression(r"(?:(?:sm|compute)_)?(?P<major>[5-9]|1[0-2])\.?(?P<minor>\d)[af]?")
_NO_SUCH_CACHE = expression(r"(?i)\bkv[ _]?cache(?:_dtype)? (?:is )?not supported|FP8 KV cache")

#: By which a process is shown some of the GPUs of its container alone.
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

#: What a step of the share of memory that an engine takes is at least, and what is left beside what was asked for.
_STEP, _BESIDE = 0.05, 0.02
#: What an engine can do without of a GPU's memory, and how much of it is free where no other engine has its share.
_LITTLE, _MUCH = 0.04, 0.8
#: Between these a share is worth setting: below the cache is too small, above the driver's own memory is touched.
_LEAST, _MOST = 0.3, 0.95
#: The same of a share that others' memory is counted to.
_NEARLY_ALL = 0.97

#: Of the memory of a GPU, what weights may take at most so that a cache and the work have room: all, and a short context's.
_FOR_WEIGHTS, _SPREAD = 0.8, 0.9

#: Among more GPUs than this nobody shares a model, and numbers have no more digits.
_MOST_DEVICES, _DIGITS = 64, 9

#: GB of memory by which GPUs are sold, and the GiB of each that a program sees at least (a T4 of 16 GB has 14.7, an L40S of 48 GB 44.4).
_GPUS, _SEEN = (16, 24, 32, 40, 48, 80, 96, 141, 192), 0.92

#: Between these builds of llama.cpp a context that nobody named was one of 4096 tokens; else it is as long as the model was made for.
_SHORT_SINCE, _WHOLE_SINCE = "b4014", "b7405"

#: Of a memory limit, what weights and cache may take beside the rest of the program.
_OF_LIMIT = 0.9

#: How llama.cpp is told to keep to one GPU.
_ON_ONE = expression(r"(?:--split-mode|-sm)[ =]none\b")

#: What sizes of hosts and limits are usual, in GiB.
_USUAL = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

#: A memory limit with which no engine starts, and the GiB that somebody can have meant by as many MiB; what suffices for many.
_TINY, _MEANT, _ENOUGH = 256 << 20, range(4, 33), 8

#: More GPUs than this hardly any node has.
_ON_A_NODE = 8

#: Of the memory of a GPU, what weights take at least where it is they that leave no room.
_HEAVY = 0.5

#: A shorter context is hardly worth serving.
_SHORTEST = 1024

#: A batch that fits beside the weights of nearly every model, in tokens and in requests.
_TOKENS, _REQUESTS, _AT_ONCE = 2048, 64, 128
_IMAGES = 16

#: What Text Embeddings Inference computes at once unless it is told (--max-batch-tokens).
_EMBEDDED = 16384
#: The longest input that its models take for the most part.
_USUAL_INPUT = 8192
#: Of these it computes some in four bytes only ("Gemma3 is only supported in fp32 precision").
_FOUR_BYTES = expression(r"(?i)gemma|pplx")

#: Settings by which an engine takes other kernels than it would.
_OWN_KERNELS = (
    "moe_backend",
    "moe_runner_backend",
    "attention_backend",
    "enable_flashinfer_allreduce_fusion",
    "speculative_config",
    "speculative_model",
    "speculative_algorithm",
    "kv_cache_dtype",
    "enable_expert_parallel",
)

#: The physical batch of llama.cpp unless it is told, for which its kernels are tried most.
_UBATCH = 512

#: By how much the amounts that vLLM prints are rounded, at the most: to hundredths of a GiB.
_PRINTED = GIB // 100


def amount(text: str | None) -> float | None:
    """`41.2 GiB`, `448.00M` or `17179869184` in bytes."""
    found = _AMOUNT.fullmatch((text or "").strip())
    if found is None or found["number"].count(".") > 1 or not found["number"].strip("."):
        return None
    number, unit = float(found["number"]), found["unit"]
    if not unit and "." in found["number"]:
        unit = "G"  # of a message that says it once; no program counts parts of bytes
    return number * float(1024 ** " KMGT".index(unit or " "))


def quantity(size: float) -> str:
    """The next usual size of a memory limit."""
    gib = math.ceil(size / GIB)
    return f"{next((usual for usual in _USUAL if usual >= gib), gib)}Gi"


def _cuts_inputs(engine: Engine) -> bool:
    """Whether Text Embeddings Inference cuts an input that is longer than a batch: as it is told, and since 1.9 by itself."""
    variable = engine.container.env.get("AUTO_TRUNCATE")
    words = [*engine.found.argv, ""]
    at = next((n for n, word in enumerate(words) if word.partition("=")[0] == "--auto-truncate"), None)
    if at is not None:
        return "false" not in (words[at].partition("=")[2].lower(), words[at + 1].lower())
    if variable is not None:
        return str(variable.value).lower() != "false"
    return engine.at_least("1.9.0") is True


def own_kernels(engine: Engine | None) -> str:
    """A setting that brings kernels of its own, and that one can do without: first those that choose other kernels than the engine."""
    told = (engine.explicit(name) for name in _OWN_KERNELS) if engine else ()
    return next((setting.text for setting in told if setting and setting.value not in (None, False, "auto")), "")


def most_gpus(container: Container) -> int:
    """How many GPUs of one node it can ask for instead; none where they are shared or slices, or its replica is of several pods."""
    pod, asked = container.pod, list(container.accelerators)
    if pod.nodes != 1 or len(asked) != 1 or asked[0] not in WHOLE_GPUS:
        return 0
    nodes = pod.cluster.all(Node, "Node")
    shared = {node.metadata.name for node in nodes if shares_of(node.metadata.label_texts) > 1}
    if pod.spec.node_name in shared:
        return 0
    there = (units(n.status.allocatable.get(asked[0])) or 0 for n in nodes if n.metadata.name not in shared)
    return int(max(there, default=0)) or _ON_A_NODE


def _asks(pod: Pod) -> bool:
    return any(c.resources.claims or any(map(is_accelerator, c.resources.limits)) for c in pod.spec.containers)


def _sees_gpus(container: k8s.Container) -> bool:
    """Whether it can use GPUs of the node, whoever was given them."""
    devices = next((v.value or "" for v in container.env if v.name == "NVIDIA_VISIBLE_DEVICES"), "")
    return bool(container.security_context.privileged) or devices not in ("", "void", "none")


def _named(pods: list[Pod]) -> str:
    names = [f"Pod {pod.metadata.namespace}/{pod.metadata.name}" for pod in pods]
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


class Room(msgspec.Struct, frozen=True, eq=False, dict=True):
    """What is enough for one container, whose message captured something; `told` are the lines that prove it."""

    engine: Engine | None
    container: Container | None
    captured: Mapping[str, str]
    told: str
    sizing: Sizing | None

    def values(self) -> dict[str, str]:
        """All of them, by the names that templates use."""
        return {
            "share": f"{self._share:g}" if self._share else "",
            "share_unknown": "" if self._share else "unknown",
            "lower_share": self.lower_share,
            "raised_share": self.raised_share,
            "cache_bytes": self.cache_bytes,
            "free_share": self.free_share,
            "near_share": self.near_share,
            "host_share": self.host_share,
            "holding_gpus": self.holding_gpus,
            "lacking": self.lacking,
            "uninvited": self.uninvited,
            "sharers": self.sharers,
            "spread": self.spread,
            "spread_why": self._why,
            "gpu_resource": next(iter(self.container.accelerators), "") if self.container else "",
            "fewer_tokens": self._fewer("max_num_batched_tokens", _TOKENS),
            "fewer_at_once": self._fewer("ubatch_size", _AT_ONCE),
            "fewer_requests": self._fewer("max_num_seqs", _REQUESTS),
            "memory_held": self.memory_held,
            "memory_limit": self.memory_limit,
            "memory_request": self.memory_request,
            "memory_needed": self.memory_needed,
            "limit_meant": self.limit_meant,
            "want_there": self.want_there,
            "have_there": self.have_there,
            "asked_already": self.asked_already,
            "hidden_by": self.hidden_by,
            "pods_of_group": self.pods_of_group,
            "share_fits": self.share_fits,
            "half_gpus": self.half_gpus,
            "told_flag": " ".join(self.told_flag).strip(),
            "told_name": self.told_flag[0],
            "told_value": self.told_flag[1],
            "refused_cache": self.refused_cache,
            "for_blackwell": "yes" if self._newer_than_the_image else "",
            "for_volta": self._older_than_the_image,
            "not_in_half": self._not_in_half,
            "suspect": self.suspect,
            "graphs_on": self.graphs_on,
            "gfx_override": self.gfx_override,
            "layers_set": self.layers_set,
            "batch_set": self.batch_set,
            "fewer_images": self._fewer_images,
            "half_context": self._half("max_model_len"),
            "no_context": self.no_context,
            "paged_tokens": self.paged_tokens,
            "paged_length": self.paged_length,
            "raised_fraction": self.raised_fraction,
            "counted_share": self.counted_share,
            "larger_gpu": self.larger_gpu,
            "weights_told": self.weights_told,
            "half_length": str(self._length // 2) if self._length else "",
            "fits_length": self.fits_length,
            "mps_daemon": self._mps[1],
            "mps_namespace": self._mps[0],
            "half_batch": self._half("max_num_batched_tokens"),
            "fewer_embedded": self._fewer_embedded,
            "wide_dtype": self._wide_dtype,
            "prefill": str(self._prefill or ""),
            "half_prefill": self.half_prefill,
            "limit_written": str(self._limits.get("memory", "none")),
        }

    @cached_property
    def _account(self) -> Mapping[str, str]:
        found = next((m for pattern in _ACCOUNT if (m := pattern.search(self.told))), None)
        return found.groupdict() if found else {}

    def _number(self, name: str) -> float | None:
        return amount(self.captured.get(name)) or amount(self._account.get(name))

    @cached_property
    def _total(self) -> float | None:
        """The memory of one GPU."""
        gpu = self.sizing.accelerator if self.sizing else None
        printed = self.sizing.printed.measured.total if self.sizing else None
        return self._number("total") or (printed.high if printed else None) or (gpu.gpu.memory if gpu else None)

    @cached_property
    def _share(self) -> float | None:
        """The share of a GPU that the engine takes; of one that works it out by itself only where it is set or told."""
        told = self.captured.get("have") or self.captured.get("share")
        value = self.engine.value("gpu_memory_utilization") if self.engine else None
        try:
            share = float(str(told or value or 0))
            return share if 0 < share <= 1 else None
        except ValueError:
            return None

    @cached_property
    def lower_share(self) -> str:
        """A share that leaves what was asked for, and a step more; only where the cache, as far as it is told, has more than that."""
        if not self._share or not self._settable("gpu_memory_utilization"):
            return ""
        lacking = (self._number("asked") or self._number("size") or 0) - (self._number("free") or 0)
        step = max(_STEP, lacking / self._total + _BESIDE) if self._total else _STEP
        lower = math.floor((self._share - step) * 100 + 1e-6) / 100
        cache = self.sizing.printed.measured.cache if self.sizing else None
        if cache and self._total and cache.low <= (self._share - lower) * self._total * 1.2:
            return ""
        return f"{lower:.2f}" if lower >= _LEAST and lower > self._share / 2 else ""

    @cached_property
    def raised_share(self) -> str:
        """A share with room for what was lacking, a GiB of cache, and no more than leaves the driver its own."""
        if not self._share or not self._settable("gpu_memory_utilization") or self._shared or self._pinned_cache:
            return ""
        need = self.captured.get("need", "")
        rest = amount((self.captured.get("rest") or "").removeprefix("-"))
        if _SHARE.fullmatch(need):
            raised = float(need) + _BESIDE
        elif rest is not None and self._total:
            raised = self._share + (rest + GIB) / self._total
        else:
            raised = 0.9 if self._share < 0.85 else 1.0
        raised = math.ceil(raised * 100 - 1e-6) / 100
        return f"{raised:.2f}" if self._share < raised <= _MOST else ""

    @property
    def _pinned_cache(self) -> bool:
        """Whether vLLM is told how large its cache is, so that its share of the GPU has no effect on that."""
        return (
            self.engine is not None and self.engine.name == "vllm" and bool(self.engine.value("kv_cache_memory_bytes"))
        )

    @cached_property
    def cache_bytes(self) -> str:
        """A size of the cache that vLLM is told, a little above what the longest request needs; only where a GPU holds it."""
        needed = amount(self.captured.get("needed", ""))
        if not self._pinned_cache or not needed:
            return ""
        enough = math.ceil(needed * 1.01 + _PRINTED)
        return "" if self._total and enough + (self._weights or 0) > self._total * _MOST else str(enough)

    @cached_property
    def free_share(self) -> str:
        """The share of the GPU that is free where another process holds the rest; only where the weights fit into it."""
        free, total = self._number("free"), self._total
        if not free or not total or not self._settable("gpu_memory_utilization"):
            return ""
        share = math.floor((free / total - 0.01) * 100) / 100
        weights = self._weights
        if share < _LEAST or (weights is not None and weights > share * total * _FOR_WEIGHTS):
            return ""
        return f"{share:.2f}"

    @property
    def no_context(self) -> str:
        """`yes` where llama.cpp was told no context, so that it takes what the model was made for (some builds take 4096 tokens)."""
        engine = self.engine
        if engine is None or engine.name != "llama.cpp" or not engine.found.argv_known:
            return ""
        known = "max_model_len" in engine.found.unresolved or engine.value("max_model_len")
        short = engine.at_least(_SHORT_SINCE) and engine.at_least(_WHOLE_SINCE) is False
        return "" if known or short else "yes"

    @property
    def paged_tokens(self) -> str:
        """The tokens that TensorRT-LLM wants of a paged cache for the longest sequence that its engine was built for."""
        numbers = [self.captured.get(name, "") for name in ("beams", "block", "blocks")]
        return str(math.prod(map(int, numbers))) if all(map(str.isdecimal, numbers)) else ""

    @property
    def paged_length(self) -> str:
        """The longest sequence, in whole blocks, of which such a cache holds every beam; empty where that is of no use."""
        fits, beams, block = (number_of(self.captured.get(name)) for name in ("fits", "beams", "block"))
        longest = fits // beams // block * block if beams and block else 0
        return str(longest) if longest >= _SHORTEST else ""

    @property
    def raised_fraction(self) -> str:
        """The fraction of the free memory with which such a cache holds them."""
        told, fits = amount(self.captured.get("fraction")), self.captured.get("fits", "")
        if not told or not fits.isdecimal() or not int(fits) or not self.paged_tokens:
            return ""
        raised = math.ceil(told / GIB * int(self.paged_tokens) / int(fits) * 100) / 100
        return f"{raised:.2f}" if raised <= _MOST else ""

    @property
    def host_share(self) -> str:
        """The share of a node's own memory that an engine which computes there may take, of what is free and allowed beside its weights."""
        free, total, want, taken = map(self._number, ("free", "total", "want", "taken"))
        if not free or not total or not want or not taken or not self._settable("gpu_memory_utilization"):
            return ""
        held = taken - want
        limit = (self.container.limit("memory") if self.container else None) or total
        share = math.floor((min(free + held, limit * _OF_LIMIT) / total - 0.01) * 100) / 100
        return f"{share:.2f}" if held + GIB < share * total < taken else ""

    @property
    def holding_gpus(self) -> str:
        """How many GPUs of one node hold weights that one does not, of an engine that spreads them over all that it has by itself."""
        size, total, container = self._number("size"), self._total, self.container
        if not size or not total or container is None or container.gpus != 1:
            return ""
        told = container.env.get("LLAMA_ARG_SPLIT_MODE")
        if (told and told.value == "none") or _ON_ONE.search(" ".join(container.spec.argv)):
            return ""
        enough = math.ceil(size / (total * _SPREAD))
        return str(enough) if 1 < enough <= self._most_there else ""

    @property
    def _short(self) -> float:
        """How much of its share of a GPU an engine lacks."""
        want, free = self._number("want"), self._number("free")
        return want - free if want and free and want > free else 0

    @property
    def lacking(self) -> str:
        """The same in words."""
        return f"{self._short / GIB:.2f} GiB" if self._short else ""

    @property
    def near_share(self) -> str:
        """The share that is free where next to nothing is lacking and no other engine has its share: a smaller one is enough."""
        free = self._number("free")
        little = self._total and free and 0 < self._short <= _LITTLE * self._total and free >= _MUCH * self._total
        return self.free_share if little else ""

    @cached_property
    def _beside(self) -> list[Pod]:
        """The other pods that run on the node, but for its static pods and what DaemonSets put there."""
        own = self.container.pod if self.container else None
        if own is None or not own.spec.node_name:
            return []
        return [
            pod
            for pod in own.cluster.all(Pod, "Pod")
            if pod.spec.node_name == own.spec.node_name
            and (pod.metadata.namespace, pod.metadata.name) != (own.namespace, own.name)
            and pod.status.phase == "Running"
            and all(owner.kind not in ("DaemonSet", "Node") for owner in pod.metadata.owner_references)
        ]

    @property
    def uninvited(self) -> str:
        """Pods beside it that can use the node's GPUs and ask for none."""
        found = [pod for pod in self._beside if not _asks(pod) and any(_sees_gpus(c) for c in pod.spec.containers)]
        return _named(found)

    @property
    def sharers(self) -> str:
        """Pods beside it that were given shares of GPUs as it was, where the node's plugin shares them."""
        return _named([pod for pod in self._beside if _asks(pod)]) if self._shared else ""

    @property
    def counted_share(self) -> str:
        """A share with the engine's own, and beside it what others hold of the GPU, where they are counted as part of it."""
        other = amount(self.captured.get("counted"))
        if not other or not self._total or not self._share or not self._settable("gpu_memory_utilization"):
            return ""
        share = math.ceil((self._share + other / self._total) * 100) / 100
        return f"{share:.2f}" if share <= _NEARLY_ALL else ""

    @property
    def larger_gpu(self) -> str:
        """The memory of a GPU on which weights leave room that fill this one."""
        weights, total = self._weights, self._total
        if not weights or not total or self._shared or weights < total * _FOR_WEIGHTS:
            return ""
        larger = (n for n in _GPUS if (seen := n * _SEEN * GIB) > total and seen * _FOR_WEIGHTS >= weights)
        return next((f"{n} GB" for n in larger), "")

    @property
    def weights_told(self) -> str:
        """What the weights take, in words."""
        return f"{self._weights / GIB:.1f} GiB" if self._weights else ""

    @property
    def _shared(self) -> bool:
        gpu = self.sizing.accelerator if self.sizing else None
        return gpu is not None and gpu.shared > 1

    def _settable(self, name: str) -> bool:
        return self.engine is not None and self.engine.name in OPTIONS[name]

    @cached_property
    def _parallel(self) -> int:
        """Over how many GPUs the model is spread."""
        sizes = (
            [self.engine.value(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
            if self.engine
            else []
        )
        return math.prod(size for size in sizes if isinstance(size, int) and size > 0)

    @cached_property
    def _weights(self) -> float | None:
        """What of the weights one GPU holds at least."""
        if self.sizing is None:
            return None
        budget = self.sizing.budget
        if budget is not None and budget.weights:
            return budget.weights.low
        return self.sizing.file_bytes / self._parallel if self.sizing.file_bytes else None

    @cached_property
    def spread(self) -> str:
        """Over how many GPUs of one node the model is to be spread: as many as hold its weights, else twice as many as now."""
        engine, container = self.engine, self.container
        if engine is None or container is None or not self._settable("tensor_parallel_size"):
            return ""
        others = (engine.value(name, 1) for name in ("pipeline_parallel_size", "data_parallel_size", "nnodes"))
        if any(value not in (None, 1) for value in others) or not engine.found.argv_known:
            return ""
        known = self._weights and self._total
        if known and (self._weights or 0) < (self._total or 0) * _HEAVY:
            return ""  # something else takes the memory
        sizes = [n for n in (2, 4, 8) if n > self._parallel and n >= container.gpus and self._divides(n)]
        enough = next((n for n in sizes if not known or self._holds(n)), 0)
        return str(enough) if 0 < enough <= self._most_there else ""

    @cached_property
    def _most_there(self) -> int:
        """How many GPUs the container can ask for instead."""
        return 0 if self.container is None or self._shared else most_gpus(self.container)

    @property
    def _want(self) -> int:
        """As many GPUs as the engine wants of its container, by its message or its settings."""
        told = self.captured.get("want", "")
        return number_of(told) if told.isdecimal() else (self.engine.workers or 0) if self.engine else 0

    @property
    def want_there(self) -> str:
        """That number, where the container asks for fewer and a node, as far as they are known, has as many."""
        asked = self.container.gpus if self.container else 0
        return str(self._want) if asked < self._want <= self._most_there else ""

    @property
    def pods_of_group(self) -> str:
        """How many pods like it have that number together, where no node has as many and it asks for all GPUs of one."""
        have = self.container.gpus if self.container else 0
        whole = 1 < have == self._most_there < self._want and self._want % have == 0
        return str(self._want // have) if whole and self.captured.get("have") in (None, str(have)) else ""

    @property
    def have_there(self) -> str:
        """The GPUs that it asks for and sees, where its tensor parallel size alone is what wants more."""
        have = self.container.gpus if self.container else 0
        size = self.engine.value("tensor_parallel_size") if self.engine else None
        fits = 0 < have < self._want and size == self._want and self._divides(have)
        seen = self.captured.get("have") in (None, str(have))
        return str(have) if fits and seen and self._settable("tensor_parallel_size") else ""

    @property
    def asked_already(self) -> str:
        """The GPUs that the container asks for, where these are as many as the engine wants: more of them do not help."""
        asked = self.container.gpus if self.container else 0
        return str(asked) if asked and asked >= self._want > 0 else ""

    @property
    def hidden_by(self) -> str:
        """The variable of the container that leaves its engine as few GPUs as it sees, of more that it asks for."""
        container, seen = self.container, number_of(self.captured.get("have", "0"))
        asked = container.gpus if container else 0
        for variable in container.spec.env if container else ():
            if variable.name not in _HIDING or variable.value_from is not None:
                continue
            # the API server gives an empty value as none; from a number on that no GPU has nothing is shown
            words = [word.strip() for word in str("" if variable.value is None else variable.value).split(",")]
            shown = takewhile(
                lambda word: not word.startswith("-") and not (word.isdecimal() and number_of(word) >= asked), words
            )
            if len([word for word in shown if word]) == seen < asked:
                return variable.name
        return ""

    @property
    def share_fits(self) -> str:
        """The most GPUs, fewer than it has now, of which each has a share that is a multiple of the captured `size`.

        Its share is `have` now; beside a captured `tp` that is the whole.
        """
        have, size, tp = (self.captured.get(name, "") for name in ("have", "size", "tp"))
        if not all(word.isdecimal() and len(word) <= _DIGITS for word in (have, size)) or not int(size):
            return ""
        if tp and tp != str(self._size):
            return ""
        whole = int(have) * (1 if tp else self._size)
        return next((str(n) for n in self._fewer_alone if whole % (n * int(size)) == 0), "")

    @property
    def half_gpus(self) -> str:
        """Half of the GPUs that it has now."""
        return next((str(n) for n in self._fewer_alone if n * 2 == self._size), "")

    @property
    def _size(self) -> int:
        """The tensor parallel size; 0 where it is not known."""
        size = self.engine.value("tensor_parallel_size") if self.engine else None
        return size if isinstance(size, int) and 0 < size <= _MOST_DEVICES else 0

    @property
    def _fewer_alone(self) -> list[int]:
        """Numbers of GPUs that divide the tensor parallel size and hold the weights, the largest first; none where pods share the model."""
        asked = self.container.gpus if self.container else 0
        nodes = self.engine.value("nnodes", 1) if self.engine else 1
        if 0 < asked < self._size or nodes not in (None, 1):
            return []
        known, stages = self._weights and self._total, self._parallel // max(self._size, 1)
        even = (n for n in range(self._size - 1, 0, -1) if self._size % n == 0)
        return [n for n in even if not known or self._holds(n * stages)]

    def _divides(self, size: int) -> bool:
        return self.sizing is None or self.sizing.model is None or self.sizing.splits(size) == size

    def _holds(self, size: int) -> bool:
        weights = (self._weights or 0) * self._parallel
        return weights <= size * (self._total or 0) * _FOR_WEIGHTS

    @property
    def _why(self) -> str:
        """What the number of GPUs is by."""
        if self._weights and self._total:
            whole = self._weights * self._parallel / GIB
            little = ", which leaves too little" if whole < self._total / GIB else ""
            return f", as the weights take {whole:.0f} GiB and a GPU has {self._total / GIB:.0f} GiB{little}"
        return " (how large the weights are is not known here: more if it runs out again)"

    @cached_property
    def told_flag(self) -> tuple[str, str]:
        """The option that the message itself says to use instead, and its value there."""
        found = _TOLD_FLAG.search(f"{self.captured.get('why', '')}\n{self.told}")
        return (found["flag"], found["value"]) if found else ("", "")

    @property
    def refused_cache(self) -> str:
        """The type of the KV cache that is set, where the message says that this GPU does not take it."""
        setting = self.engine.explicit("kv_cache_dtype") if self.engine else None
        refused = _NO_SUCH_CACHE.search(f"{self.captured.get('why', '')}\n{self.told}")
        return setting.text if setting and refused and setting.value != "auto" else ""

    @property
    def _compute(self) -> tuple[int, int] | None:
        told = _CAPABILITY.fullmatch(self.captured.get("have", ""))
        if told:
            return int(told["major"]), int(told["minor"])
        gpu = self.sizing.accelerator if self.sizing else None
        return gpu.gpu.compute if gpu else None

    @property
    def _newer_than_the_image(self) -> bool:
        """A GPU of the Blackwell generation with an image that may be from before PyTorch knew it (2.7 for CUDA 12.8).

        Of vLLM's images those from 0.10.1 on have kernels for all of them.
        """
        own = self.engine is not None and self.engine.name == "vllm" and self.engine.at_least("0.10.1") is not False
        return self._compute is not None and self._compute >= (10, 0) and not own

    @property
    def _older_than_the_image(self) -> str:
        """The generation of a GPU for which PyTorch's builds for CUDA 12.8 and later have nothing."""
        return ".".join(map(str, self._compute)) if self._compute is not None and self._compute < (7, 5) else ""

    @property
    def _not_in_half(self) -> str:
        """The class of the model, where it is one that vLLM does not compute in float16."""
        model = self.sizing.model if self.sizing else None
        name = model[0].name if model else ""
        return name if quantization.not_in_half(name) else ""

    @property
    def graphs_on(self) -> str:
        """Whether the engine computes with CUDA graphs and can do without."""
        if self.engine is None or not self._settable("enforce_eager") or not self.engine.found.argv_known:
            return ""
        return "" if self.engine.value("enforce_eager") else "yes"

    @property
    def suspect(self) -> str:
        """A setting of the engine whose kernels are of its own, which one can do without."""
        return own_kernels(self.engine)

    @property
    def layers_set(self) -> str:
        """How many layers llama.cpp is told to put on the GPU, as it is written there."""
        told = self.engine.explicit("gpu_layers") if self.engine and self.engine.name == "llama.cpp" else None
        value = str(told.value).lower() if told else ""
        return told.text if told and (value == "all" or (value.isdecimal() and value.strip("0"))) else ""

    @property
    def batch_set(self) -> str:
        """The physical batch that llama.cpp is told, as it is written there, where it is larger than the usual one.

        What embeds or ranks needs room in it for a whole text, and gets no smaller one.
        """
        engine = self.engine
        if engine is None or engine.name != "llama.cpp" or engine.value("embeddings") or engine.value("reranking"):
            return ""
        told = engine.explicit("ubatch_size")
        return told.text if told and isinstance(told.value, int) and told.value > _UBATCH else ""

    @property
    def gfx_override(self) -> str:
        """The GPU for whose kernels ROCm is told to take the one that is there."""
        told = self.container.env.get("HSA_OVERRIDE_GFX_VERSION") if self.container else None
        return str(told.value or "") if told else ""

    @property
    def _length(self) -> int:
        """The longest request that the message speaks of."""
        return number_of(self.captured.get("length"))

    @property
    def fits_length(self) -> str:
        """As many tokens as the memory that is left holds of those that need so much, and a tenth less."""
        needed, left = amount(self.captured.get("needed")), amount(self.captured.get("available"))
        if not needed or not left or left >= needed:
            return ""
        fits = int(self._length * left / needed * 0.9) // 16 * 16
        return str(fits) if fits >= _SHORTEST else ""

    @cached_property
    def _mps(self) -> tuple[str, str]:
        """The pod of the device plugin that runs MPS on the node: its namespace and name."""
        own = self.container.pod if self.container else None
        pods = own.cluster.all(Pod, "Pod") if own and own.spec.node_name else []
        here = (pod.metadata for pod in pods if own and pod.spec.node_name == own.spec.node_name)
        return next(((m.namespace, m.name) for m in here if "mps-control-daemon" in m.name), ("", ""))

    def _half(self, name: str) -> str:
        """Half of what is set; only of what is set and can be halved."""
        setting = self.engine.explicit(name) if self.engine else None
        value = setting.value if setting else None
        return str(value // 2) if isinstance(value, int) and value >= 1024 else ""

    @property
    def _fewer_embedded(self) -> str:
        """Half of the tokens that Text Embeddings Inference computes at once, or its default where it is told far more."""
        engine = self.engine
        if engine is None or engine.name != "tei" or not engine.found.argv_known:
            return ""
        told = engine.value("max_num_batched_tokens", _EMBEDDED)
        if not isinstance(told, int) or told < _SHORTEST:
            return ""
        fewer = min(told // 2, _EMBEDDED)
        if _cuts_inputs(engine):
            return str(fewer)
        # where an input may be longer than a batch it refuses to start, and before 1.8.3 never answers such a one
        longest = self.sizing.longest_input if self.sizing else None
        fewer = max(fewer, longest) if longest else fewer
        return str(fewer) if fewer < told and (longest or fewer >= _USUAL_INPUT) else ""

    @property
    def _wide_dtype(self) -> str:
        """The type of four bytes that Text Embeddings Inference is told to compute in, which takes float16 by itself on a GPU."""
        engine = self.engine
        if engine is None or engine.name != "tei" or _FOUR_BYTES.search(str(engine.value("model") or "")[:400]):
            return ""
        told = engine.explicit("dtype")
        return told.text if told and told.value == "float32" else ""

    @property
    def _prefill(self) -> int:
        """The tokens of one prefill of Text Generation Inference, by the message or as they are set."""
        told = self.engine.value("max_num_batched_tokens") if self.engine else None
        return number_of(self.captured.get("prefill")) or (told if isinstance(told, int) else 0)

    @property
    def half_prefill(self) -> str:
        """Half of them, or as many as one prompt may have, which TGI demands at least; only where that is known, and is fewer."""
        engine = self.engine
        prompt = engine.value("max_input_tokens") if engine and engine.name == "tgi" else None
        if not isinstance(prompt, int):
            return ""
        fewer = max(self._prefill // 2, prompt)
        return str(fewer) if 0 < fewer < self._prefill else ""

    def _fewer(self, name: str, usual: int) -> str:
        """A batch that needs less than now: the usual small one, or half of what is set already."""
        engine = self.engine
        if engine is None or not self._settable(name) or not engine.found.argv_known:
            return ""
        chunked = engine.value("enable_chunked_prefill", fallback=engine.at_least("0.8") is not False)
        if chunked is False:  # then the longest prompt has to fit into a batch
            return ""
        now = engine.value(name)
        if not isinstance(now, int) or now > usual:
            return str(usual)
        return str(now // 2) if now >= 16 else ""

    @property
    def _fewer_images(self) -> str:
        """So many requests at once, each with an image, as fit beside the weights of most models, or half of what is set."""
        now = self.engine.value("max_num_seqs") if self.engine else None
        if not isinstance(now, int) or now > _IMAGES:
            return str(_IMAGES)
        return str(now // 2) if now > 1 else ""

    @property
    def _limits(self) -> Mapping[str, object]:
        return self.container.spec.resources.limits if self.container else {}

    @property
    def limit_meant(self) -> str:
        """What a limit of a few MiB may have been to be: of an engine as many GiB, where somebody can have meant that."""
        limit = self.container.limit("memory") if self.container else None
        if limit is None or limit >= _TINY:
            return ""
        number = str(self._limits.get("memory", "")).rstrip("kKMmi")
        meant = int(number) if number.isdecimal() and len(number) < 3 else 0
        return f"{meant if meant in _MEANT else _ENOUGH}Gi" if self.engine else "1Gi"

    @property
    def _wanted(self) -> float | None:
        """How much of the host's memory the message asks for."""
        return self._number("want") or amount(self.captured.get("size", "") + self.captured.get("unit", ""))

    @property
    def memory_request(self) -> str:
        """What a container without a limit is to request, so that its node has as much; only where any may have it."""
        container, wanted = self.container, self._wanted
        free = container is not None and container.limit("memory") is None and container.pod.memory_limit is None
        had = self._number("have")
        enough = wanted and had and had > wanted  # the node was not what it lacked
        return quantity(wanted * 1.1) if free and wanted and not enough and not self._beyond(wanted * 1.1) else ""

    @property
    def memory_needed(self) -> str:
        """How much memory a node must have for what was asked for, where none that is known has it."""
        wanted = self._wanted
        return quantity(wanted * 1.1).replace("Gi", " GiB") if wanted and self._beyond(wanted * 1.1) else ""

    def _beyond(self, size: float) -> bool:
        """Whether none of the nodes, as far as they are known, has as much memory."""
        nodes = self.container.pod.cluster.all(Node, "Node") if self.container else []
        there = [units(node.status.allocatable.get("memory")) for node in nodes]
        return bool(there) and all(room is not None and room < size for room in there)

    @cached_property
    def memory_held(self) -> str:
        """What holds the memory that lacks, where all that there is (the group `total`) would do, and a tenth to spare."""
        wanted, total, have = self._wanted, self._number("total"), self._number("have")
        if wanted is None or total is None or have is None or total < wanted * 1.1:
            return ""
        return say_bytes(total - have)

    @cached_property
    def memory_limit(self) -> str:
        """A memory limit with room for what was asked for besides; only where the container has one, and its node as much."""
        container = self.container
        limit = container.limit("memory") if container else None
        needed = self._wanted
        if container is None or limit is None or needed is None:
            return ""
        have = self._number("have")
        lacking = needed - have if have is not None and have < needed else needed
        larger = quantity(limit + lacking * 1.1)
        node = container.pod.cluster.item("Node", "", container.pod.spec.node_name)
        there = units(str(node.raw.get("status", {}).get("allocatable", {}).get("memory", ""))) if node else None
        return larger if there is None or (units(larger) or 0) <= there else ""

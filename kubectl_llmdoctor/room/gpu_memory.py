"""What of a GPU's memory an engine takes, could take, and who else holds it."""

from __future__ import annotations

import math
from functools import cached_property

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import is_accelerator
from kubectl_llmdoctor.facts.hardware import hardware_of
from kubectl_llmdoctor.facts.k8s import Pod
from kubectl_llmdoctor.facts.lengths import number_of
from kubectl_llmdoctor.facts.units import GIB, say_bytes
from kubectl_llmdoctor.facts.usage import pods_on
from kubectl_llmdoctor.room.amounts import amount
from kubectl_llmdoctor.room.case import FOR_WEIGHTS, SHORTEST, Case
from kubectl_llmdoctor.snapshot import MASK
from kubectl_llmdoctor.template_values import template_value

_SHARE = expression(r"0?\.\d{1,8}")

#: What a step of the share of memory that an engine takes is at least, and what is left beside what was asked for.
_STEP, _BESIDE = 0.05, 0.02
#: What SGLang may take where a draft model stands beside it.
_BESIDE_DRAFT = 0.8
#: What that step frees of a GPU of 80 GB.
_WHOLE_STEP = 4 * GIB

#: A step of the share after which weights of an unknown size may have no room.
_BOLD = 0.15

#: Those whose share is one of what the weights leave of the GPU, and what a step of that is at least.
_OF_THE_REST, _STEP_OF_REST = ("lmdeploy", "tensorrt-llm", "triton"), 0.1

#: What an engine can do without of a GPU's memory, and how much of it is free where no other engine has its share.
_LITTLE, _MUCH = 0.04, 0.8

#: Between these a share is worth setting: below the cache is too small, above the driver's own memory is touched.
_LEAST, _MOST = 0.3, 0.95

#: The same of a share that others' memory is counted to.
_NEARLY_ALL = 0.97
#: By so much of a GPU what an agent saw to be free, and an engine shortly before or after, may differ.
_SAME = 0.02

#: By how much the amounts that vLLM prints are rounded, at the most: to hundredths of a GiB.
_PRINTED = GIB // 100


#: With these an engine takes memory by an allocator of its own, which PyTorch's expandable segments exclude.
_OWN_POOL = frozenset({"--enable-sleep-mode", "--enable_sleep_mode", "--enable-memory-saver"})

_ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_NPU_ALLOC_CONF")
_SEGMENTS, _OTHER_ALLOCATOR = "expandable_segments", "backend:cudaMallocAsync"


def _asks(pod: Pod) -> bool:
    return any(c.resources.claims or any(map(is_accelerator, c.resources.limits)) for c in pod.spec.containers)


def _sees_gpus(container: k8s.Container) -> bool:
    """Whether it can use GPUs of the node, whoever was given them."""
    devices = next((v.value or "" for v in container.env if v.name == "NVIDIA_VISIBLE_DEVICES"), "")
    return bool(container.security_context.privileged) or devices not in ("", "void", "none")


def _named(pods: list[Pod]) -> str:
    names = [f"Pod {pod.metadata.namespace}/{pod.metadata.name}" for pod in pods]
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


class GpuMemory(Case, frozen=True):
    """What of a GPU's memory an engine takes, could take, and who else holds it."""

    def values(self) -> dict[str, str]:
        return super().values() | {
            "share": f"{self._share:g}" if self._share else "",
            "share_unknown": "" if self._share else "unknown",
            "mps_daemon": self._mps[1],
            "mps_namespace": self._mps[0],
        }

    @template_value
    def lower_share(self) -> str:
        """A share that leaves what was asked for, and a step more; only where the cache, as far as it is told, has more than that."""
        if not self._share or not self._settable("gpu_memory_utilization"):
            return ""
        lacking = (self._number("asked") or self._number("size") or 0) - (self._number("free") or 0)
        of_rest = self.engine is not None and self.engine.name in _OF_THE_REST
        counted = max((self._total or 0) - (self._weights or self._total or 0), 0) if of_rest else self._total
        least = _STEP_OF_REST if of_rest else _STEP
        # of a GPU whose memory is not told, the usual step is no more than so much
        step = max(least, lacking / counted + _BESIDE) if counted else 2 * least if lacking > _WHOLE_STEP else least
        lower = math.floor((self._share - step) * 100 + 1e-6) / 100
        if self._leaves_no_cache(lower, step, of_rest):
            return ""
        measured = self.sizing.printed.measured if self.sizing else None
        cache = measured.cache if measured else None
        less = (self._share - lower) * (self._total or 0)
        if cache and less and cache.low <= less * 1.2:
            return ""
        # one request of the maximum length would not fit any more
        longest = self.engine.value("max_model_len") if self.engine and self.engine.name == "vllm" else None
        tokens = measured.tokens if measured else None
        if cache and tokens and isinstance(longest, int) and tokens * (1 - less / cache.low) < longest:
            return ""
        return f"{lower:.2f}" if lower >= _LEAST and lower > self._share / 2 else ""

    def _leaves_no_cache(self, share: float, step: float, of_rest: bool) -> bool:
        """Whether a lower share may have no room for a cache beside the weights: by their size, and by the step where that is not known."""
        if of_rest:
            return False
        if not self._weights or not self._total:
            return step > _BOLD
        return share * self._total < self._weights + GIB

    @template_value
    def no_segments(self) -> str:
        """Why PyTorch's expandable segments are of no use: by what excludes them, or as a variable sets them already."""
        words = (str(word).partition("=")[0] for word in self.engine.found.argv) if self.engine else ()
        if pool := next((word for word in words if word in _OWN_POOL), ""):
            return pool
        if self.container and self.container.without_nvidia:
            return next(iter(self.container.accelerators))
        told, own = self._told_allocator
        known = own is None or all(word not in own for word in (f"{_SEGMENTS}:True", _OTHER_ALLOCATOR, MASK))
        return "" if known else told

    @property
    def _told_allocator(self) -> tuple[str, str | None]:
        """The variable by which PyTorch's allocator gets its settings, and what it says; None where nothing sets one.

        Which of several counts depends on the release: the one that sets segments.
        """
        env = self.container.env if self.container else {}
        told = [name for name in _ALLOCATOR if name in env]
        named = next((name for name in told if _SEGMENTS in (env[name].value or "")), (*told, _ALLOCATOR[0])[0])
        return named, (env[named].value or "<masked>") if named in env else None

    @template_value
    def allocator(self) -> str:
        """The variable by which PyTorch's allocator gets its settings."""
        return self._told_allocator[0]

    @template_value
    def segmented(self) -> str:
        """What it says, with expandable segments."""
        return ",".join([*self._without_segments, f"{_SEGMENTS}:True"])

    @template_value
    def unsegmented(self) -> str:
        """What it says besides those; empty where that is nothing, or not known, or where it sets none."""
        return ",".join(self._without_segments) if _SEGMENTS in (self._told_allocator[1] or "") else ""

    @property
    def _without_segments(self) -> list[str]:
        """The settings of the allocator but for those of segments."""
        own = self._told_allocator[1] or ""
        words = [word.strip() for word in own.split(",")]
        return [word for word in words if word and not word.startswith((_SEGMENTS, "<"))]

    @template_value
    def raised_share(self) -> str:
        """A share with room for what was lacking, a GiB of cache, and no more than leaves the driver its own."""
        if not self._share or not self._settable("gpu_memory_utilization") or self._shared or self._pinned_cache:
            return ""
        raised = self._raised
        return f"{raised:.2f}" if self._share < raised <= _MOST else ""

    @template_value
    def share_full(self) -> str:
        """Whether by the numbers of the message no share of the GPU leaves room for a cache beside the weights."""
        told = self._total and self.captured.get("rest")
        return "yes" if told and self._share and not self._shared and self._raised > _MOST else ""

    @property
    def _raised(self) -> float:
        """The share that would leave such room, be it more than there is."""
        share, need = self._share or 0, self.captured.get("need", "")
        rest = amount((self.captured.get("rest") or "").removeprefix("-"))
        if _SHARE.fullmatch(need):
            raised = float(need) + _BESIDE
        elif rest is not None and self._total:
            raised = share + (rest + GIB) / self._total
        elif self.container and not self.container.accelerators and share < 0.45:
            raised = 2 * share  # of the host's memory, which has other users
        else:
            raised = self._usual if share < 0.85 else 1.0
        return math.ceil(raised * 100 - 1e-6) / 100

    @property
    def _usual(self) -> float:
        """A share that most models do with; less where SGLang has the graphs and the cache of a draft model outside of it."""
        drafts = self.engine is not None and self.engine.name == "sglang" and self.engine.value("speculative_algorithm")
        tight = self._weights and self._total and _BESIDE_DRAFT * self._total < self._weights + GIB
        return 0.9 if not drafts or tight or (self._share or 0) > _BESIDE_DRAFT - _BESIDE else _BESIDE_DRAFT

    @property
    def _pinned_cache(self) -> bool:
        """Whether vLLM is told how large its cache is, so that its share of the GPU has no effect on that."""
        return (
            self.engine is not None and self.engine.name == "vllm" and bool(self.engine.value("kv_cache_memory_bytes"))
        )

    @template_value
    def cache_bytes(self) -> str:
        """A size of the cache that vLLM is told, a little above what the longest request needs; only where a GPU holds it."""
        needed = amount(self.captured.get("needed", ""))
        if not self._pinned_cache or not needed:
            return ""
        enough = math.ceil(needed * 1.01 + _PRINTED)
        return "" if self._total and enough + (self._weights or 0) > self._total * _MOST else str(enough)

    @template_value
    def less_cache(self) -> str:
        """A smaller size of the cache that vLLM is told, which leaves more beside it: 2 GiB less, or a quarter of a small one."""
        told = self.engine.value("kv_cache_memory_bytes") if self.engine and self._pinned_cache else None
        return str(told - min(2 * GIB, told // 4)) if isinstance(told, int) else ""

    @template_value
    def free_share(self) -> str:
        """The share of the GPU that is free where another process holds the rest; only where the weights fit into it."""
        free, total = self._number("free"), self._total
        if not free or not total or not self._settable("gpu_memory_utilization"):
            return ""
        share = math.floor((free / total - 0.01) * 100) / 100
        weights = self._weights
        if share < _LEAST or (weights is not None and weights > share * total * FOR_WEIGHTS):
            return ""
        return f"{share:.2f}"

    @template_value
    def paged_tokens(self) -> str:
        """The tokens that TensorRT-LLM wants of a paged cache for the longest sequence that its engine was built for."""
        numbers = [self.captured.get(name, "") for name in ("beams", "block", "blocks")]
        return str(math.prod(map(int, numbers))) if all(map(str.isdecimal, numbers)) else ""

    @template_value
    def paged_length(self) -> str:
        """The longest sequence, in whole blocks, of which such a cache holds every beam; empty where that is of no use."""
        fits, beams, block = (number_of(self.captured.get(name)) for name in ("fits", "beams", "block"))
        longest = fits // beams // block * block if beams and block else 0
        return str(longest) if longest >= SHORTEST else ""

    @template_value
    def raised_fraction(self) -> str:
        """The fraction of the free memory with which such a cache holds them."""
        told, fits = amount(self.captured.get("fraction")), self.captured.get("fits", "")
        if not told or not fits.isdecimal() or not int(fits) or not self.paged_tokens:
            return ""
        raised = math.ceil(told / GIB * int(self.paged_tokens) / int(fits) * 100) / 100
        return f"{raised:.2f}" if raised <= _MOST else ""

    @template_value
    def in_pieces(self) -> str:
        """Whether as much was free as was asked for, but not in one piece."""
        size, free = self._number("size"), self._number("free")
        return "yes" if size and free and free >= size else ""

    @template_value
    def beyond_device(self) -> str:
        """Whether more was asked for than the whole device has."""
        size, total = self._number("size"), self._total
        return "yes" if size and total and size > total else ""

    @template_value
    def fitting_part(self) -> str:
        """How much of what was asked for has room: `36 %`."""
        size, free = self._number("size"), self._number("free")
        return f"{math.floor(free / size * 100)} %" if size and free and 0.1 * size < free < size else ""

    @property
    def _short(self) -> float:
        """How much of its share of a GPU an engine lacks."""
        want, free = self._number("want"), self._number("free")
        return want - free if want and free and want > free else 0

    @template_value
    def lacking(self) -> str:
        """The same in words."""
        return f"{self._short / GIB:.2f} GiB" if self._short else ""

    @template_value
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
            for pod in pods_on(own.cluster, own.spec.node_name)
            if (pod.metadata.namespace, pod.metadata.name) != (own.namespace, own.name)
            and pod.status.phase == "Running"
            and all(owner.kind not in ("DaemonSet", "Node") for owner in pod.metadata.owner_references)
        ]

    @template_value
    def uninvited(self) -> str:
        """Pods beside it that can use the node's GPUs and ask for none."""
        found = [pod for pod in self._beside if not _asks(pod) and any(_sees_gpus(c) for c in pod.spec.containers)]
        return _named(found)

    @template_value
    def holders(self) -> str:
        """The pod beside it of which, by the agent, a process holds most of what is lacking, on the only GPU that is as full."""
        free, pod = self._number("free"), self.container.pod if self.container else None
        hardware = hardware_of(pod) if pod and self._short else None
        if hardware is None or free is None or not self._total:
            return ""
        left = [(d, (d.memory_total_bytes or 0) - (d.memory_used_bytes or 0)) for d in hardware.devices]
        full = [device for device, bytes in left if abs(bytes - free) <= _SAME * self._total]
        beside = {pod.metadata.uid: pod.metadata for pod in self._beside if pod.metadata.uid}
        for process in full[0].all_processes if len(full) == 1 else ():
            owner = beside.get(process.pod_uid or "")
            if owner and process.used_bytes and process.used_bytes >= self._short / 2:
                held = f"process {process.pid} holds {say_bytes(process.used_bytes)} of {full[0].title}"
                return f"Pod {owner.namespace}/{owner.name} ({held})"
        return ""

    @template_value
    def sharers(self) -> str:
        """Pods beside it that were given shares of GPUs as it was, where the node's plugin shares them."""
        return _named([pod for pod in self._beside if _asks(pod)]) if self._shared else ""

    @template_value
    def counted_share(self) -> str:
        """A share with the engine's own, and beside it what others hold of the GPU, where they are counted as part of it."""
        other = amount(self.captured.get("counted"))
        if not other or not self._total or not self._share or not self._settable("gpu_memory_utilization"):
            return ""
        share = math.ceil((self._share + other / self._total) * 100) / 100
        return f"{share:.2f}" if share <= _NEARLY_ALL else ""

    @cached_property
    def _mps(self) -> tuple[str, str]:
        """The pod of the device plugin that runs MPS on the node: its namespace and name."""
        own = self.container.pod if self.container else None
        pods = pods_on(own.cluster, own.spec.node_name) if own and own.spec.node_name else ()
        here = (pod.metadata for pod in pods)
        return next(((m.namespace, m.name) for m in here if "mps-control-daemon" in m.name), ("", ""))

"""The answer of `fit`: a budget of GPU memory as a value, schema `llmdoctor.fit/v1`, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from kubectl_llmdoctor.report import words
from kubectl_llmdoctor.report.document import Bytes
from kubectl_llmdoctor.report.text_layout import MARGIN, Page

SCHEMA = "llmdoctor.fit/v1"

_GIB = 1 << 30

Verdict = Literal["fits", "does-not-fit", "too-close", "unknown"]

_WORDS: dict[Verdict, tuple[str, str]] = {
    "fits": ("fits", "green"),
    "does-not-fit": ("does not fit", "red"),
    "too-close": ("too close to say", "yellow"),
    "unknown": ("cannot be said", "yellow"),
}


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """camelCase names, defaults left out."""


class ModelInfo(_Part, frozen=True):
    """The model: its name as given, and what is known of it and from where."""

    name: str
    known_from: str = ""
    architecture: str = ""
    parameters: int | None = None
    layers: int | None = None
    heads: int | None = None
    #: None where layers differ, or keep something else than keys and values
    kv_heads: int | None = None
    latent_attention: bool = False
    native_context: int | None = None
    quantization: str | None = None


class EngineSettings(_Part, frozen=True):
    """The settings that decide memory; those that are left out are the engine's own."""

    name: str
    version: str | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None


class GpuInfo(_Part, frozen=True):
    """The GPU, of which `count` are used by one replica, and what says so."""

    name: str
    count: int
    memory: Bytes | None = None
    source: str = ""


class Memory(_Part, frozen=True):
    """What one GPU holds; see `memory.Budget`."""

    total: Bytes | None = None
    usable: Bytes | None = None
    weights: Bytes | None = None
    working: Bytes | None = None
    cache: Bytes | None = None
    bytes_per_token: float | None = None
    bytes_per_request: int | None = None
    context: int | None = None
    tokens: tuple[int, int] | None = None
    longest: tuple[int, int] | None = None
    concurrency: tuple[float, float] | None = None


class OptionInfo(_Part, frozen=True, omit_defaults=False):
    """A change after which it fits, and what it leads to at the least."""

    summary: str
    context: int | None
    concurrency: float | None


class Fit(_Part, frozen=True, omit_defaults=False):
    """The whole answer for one engine."""

    verdict: Verdict
    model: ModelInfo
    engine: EngineSettings
    gpu: GpuInfo | None
    memory: Memory
    options: tuple[OptionInfo, ...] = ()
    missing: tuple[str, ...] = ()
    #: the object whose engine it is, when it was asked about: `serving/llama-0 containers[vllm]`
    target: str = ""


def to_json(fits: Sequence[Fit], version: str) -> bytes:
    """Indented JSON with a final newline."""
    tree = {
        "schema": SCHEMA,
        "tool": {"name": "kubectl-llmdoctor", "version": version},
        "fits": [msgspec.to_builtins(fit) for fit in fits],
    }
    return msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n"


def render(fits: Sequence[Fit], *, width: int = 80, color: bool = False) -> str:
    """The answers as text that ends in a line break."""
    page = Page(width, color=color, wide=True)
    for fit in fits:
        page.gap()
        _one(page, fit)
    return page.text()


def _one(page: Page, fit: Fit) -> None:
    word, tone = _WORDS[fit.verdict]
    title = words.engine(fit.engine.name)
    engine = f"{title} {fit.engine.version}" if fit.engine.version else title
    where = f"{fit.gpu.count} x {fit.gpu.name}" if fit.gpu else "GPU not known"
    page.flow((fit.target or fit.model.name, "bold"), (word, tone), (engine, ""), (where, ""))
    page.gap()
    page.prose("MODEL", _model(fit.model))
    memory = fit.memory
    if memory.total:
        _bar(page, memory, memory.total)
    for label, amount in (("weights", memory.weights), ("working", memory.working), ("KV cache", memory.cache)):
        if amount:
            page.row("", f"{label:9}{_range(amount.low, amount.high):>14} GiB", 27, amount.source)
    _cache(page, fit)
    if fit.options:
        page.gap()
        page.list("WOULD FIT", [f"{n}. {_option(option)}" for n, option in enumerate(fit.options, 1)])
    if fit.missing:
        page.gap()
        page.list("NOT KNOWN", [f"{what}" for what in fit.missing], tone="yellow")


def _model(model: ModelInfo) -> str:
    said = [model.name if not model.architecture else f"{model.name}: {model.architecture}"]
    if model.parameters:
        said.append(f"{model.parameters / 1e9:.4g} B parameters")
    if model.layers:
        said.append(f"{model.layers} layers, {model.heads} heads")
    if model.kv_heads:
        said.append(f"{model.kv_heads} KV heads")
    if model.latent_attention:
        said.append("latent attention")
    if model.native_context:
        said.append(f"native context {model.native_context}")
    if model.quantization:
        said.append(f"quantized with {model.quantization}")
    if model.known_from and model.known_from != model.name:
        said.append(f"known as {model.known_from}")
    return ", ".join(said)


def _bar(page: Page, memory: Memory, whole: Bytes) -> None:
    """One GPU as a bar: weights, working memory (surely and at most), cache, and what the engine leaves alone."""
    columns = page.width - MARGIN - 2
    total = max(whole.low, 1)
    usable = memory.usable.low if memory.usable else total

    def cells(size: float) -> int:
        return max(0, round(size / total * columns))

    weights = memory.weights.high if memory.weights else 0
    working = memory.working.high if memory.working else 0
    filled, worked = min(cells(weights), columns), min(cells(weights + working), columns)
    end = min(max(cells(usable), worked), columns)
    bar = "█" * filled + "▒" * (worked - filled) + "░" * (end - worked) + "·" * (columns - end)
    page.gap()
    page.prose("ONE GPU", f"{whole.low / _GIB:.1f} GiB ({whole.source})" + _usable(memory))
    page.beside("", "", (bar, "red" if memory.weights and memory.usable and weights > usable else ""))
    page.prose("", "█ weights  ▒ working memory at most  ░ KV cache  · left to others", style="dim")


def _usable(memory: Memory) -> str:
    return f", usable {memory.usable.low / _GIB:.1f} GiB ({memory.usable.source})" if memory.usable else ""


def _range(low: float, high: float) -> str:
    small, large = f"{max(low, 0) / _GIB:.1f}", f"{max(high, 0) / _GIB:.1f}"
    return small if small == large else f"{small} - {large}"


def _cache(page: Page, fit: Fit) -> None:
    memory = fit.memory
    page.gap()
    if memory.bytes_per_token:
        page.prose("CACHE", f"{memory.bytes_per_token / 1024:.4g} KiB per token on each GPU")
    if memory.context and memory.bytes_per_request:
        need = f"one request of {memory.context} tokens needs {memory.bytes_per_request / _GIB:.2f} GiB"
        page.prose("", need)
    if memory.tokens:
        page.prose("", f"holds {_numbers(*memory.tokens)} tokens")
    if memory.longest:
        page.prose("", f"longest request that fits: {_numbers(*memory.longest)} tokens")
    if memory.concurrency and memory.context:
        low, high = memory.concurrency
        said = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
        page.prose("", f"requests of {memory.context} tokens at once: {said}")


def _numbers(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _option(option: OptionInfo) -> str:
    if option.concurrency is None or option.context is None:
        return option.summary
    return f"{option.summary}: at least {option.concurrency:.1f} requests of {option.context} tokens at once"

"""`fit`: what a model's weights and cache take, and what fits into a GPU."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from kubectl_llmdoctor import __version__
from kubectl_llmdoctor.cli import output
from kubectl_llmdoctor.cli.options import connection_options
from kubectl_llmdoctor.errors import AccessError, UsageError
from kubectl_llmdoctor.report.document import Bytes

if TYPE_CHECKING:
    from kubectl_llmdoctor.catalog.architecture import Architecture
    from kubectl_llmdoctor.catalog.gpus import Gpu
    from kubectl_llmdoctor.facts.sizing import Sizing
    from kubectl_llmdoctor.gather.cluster import Connection
    from kubectl_llmdoctor.memory.amount import Amount
    from kubectl_llmdoctor.memory.budget import Budget
    from kubectl_llmdoctor.memory.serving import Serving
    from kubectl_llmdoctor.report.fit import Fit, ModelInfo, OptionInfo
    from kubectl_llmdoctor.snapshot import Snapshot

#: GPUs that are offered when a larger one would help: what one can rent or buy for a server.
_OFFERED = ("L4", "L40S", "A100 SXM 80GB", "H100 SXM", "H200", "B200", "B300")


def _tokens(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """`32768`, `32k` (decimal) or `32K` (binary), as vLLM reads them."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})([kKmM]?)", text.strip())
    factor = {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 1 << 20}
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{text} is not a number of tokens such as 32768 or 32k")
    return int(found[1]) * factor[found[2]]


@click.command("fit", short_help="Compute what fits into a GPU.")
@click.argument("subject", metavar="MODEL | TYPE/NAME")
@click.option("--gpu", metavar="NAME|SIZE", help="H100, a100-80gb, 'RTX 4090', or a size such as 48GiB.")
@click.option("--engine", default="vllm", show_default=True, help="vllm, sglang, tensorrt-llm or lmdeploy.")
@click.option("--engine-version", metavar="VERSION", help="Default: the newest that is known.")
@click.option("--tp", "tensor_parallel", type=click.IntRange(1, 1024), metavar="N", help="Tensor parallel size.")
@click.option("--pp", "pipeline_parallel", type=click.IntRange(1, 1024), metavar="N", help="Pipeline parallel size.")
@click.option("--dp", "data_parallel", type=click.IntRange(1, 1024), metavar="N", help="Data parallel size.")
@click.option("--max-model-len", callback=_tokens, metavar="TOKENS", help="Longest request; default: the model's own.")
@click.option("--max-num-seqs", type=click.IntRange(1), metavar="N", help="Requests in one batch.")
@click.option("--max-num-batched-tokens", callback=_tokens, metavar="TOKENS", help="Tokens in one step.")
@click.option("--gpu-memory-utilization", type=click.FloatRange(0, 1, min_open=True), help="Share of GPU memory.")
@click.option("--dtype", help="Data type of the weights; default: the checkpoint's.")
@click.option(
    "--kv-dtype", "kv_cache_dtype", help="Data type of the KV cache, such as fp8; default: that of the weights."
)
@click.option("--quantization", help="awq, gptq, fp8, nvfp4, …: of the checkpoint, or done while loading.")
@click.option(
    "--config", "config", metavar="FILE", help="The model's config.json, for a model that is not in the table."
)
@click.option("--from", "source", metavar="PATH", help="Find TYPE/NAME in this snapshot or manifest, not in a cluster.")
@connection_options
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--no-color", is_flag=True, help="No colour.")
def command(
    subject: str,
    gpu: str | None,
    engine: str,
    engine_version: str | None,
    tensor_parallel: int | None,
    pipeline_parallel: int | None,
    data_parallel: int | None,
    max_model_len: int | None,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    gpu_memory_utilization: float | None,
    dtype: str | None,
    kv_cache_dtype: str | None,
    quantization: str | None,
    config: str | None,
    source: str | None,
    connection: Callable[[], Connection],
    namespace: str | None,
    form: str,
    no_color: bool,
) -> int:
    """Compute the GPU memory of a model: weights, working memory, KV cache, the longest request, how many at once.

    For a running object its own settings, GPU and printed numbers count; options change them. What is not known is
    said, and nothing is guessed. Exit code 1 when it does not fit.

    \b
    kubectl llmdoctor fit meta-llama/Llama-3.1-70B-Instruct --gpu H100 --tp 2 --max-model-len 32k
    kubectl llmdoctor fit my/model --config config.json --gpu L40S
    kubectl llmdoctor fit deployment/llama -n serving --kv-dtype fp8
    """
    from kubectl_llmdoctor.facts.sizing import ENGINES
    from kubectl_llmdoctor.report import fit as report

    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: not computed; known are {', '.join(sorted(ENGINES))}")
    changed = {
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
        "data_parallel": data_parallel,
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "memory_fraction": gpu_memory_utilization,
        "dtype": dtype,
        "kv_cache_dtype": kv_cache_dtype,
    }
    changes = {name: value for name, value in changed.items() if value is not None}
    card = _gpu(gpu) if gpu else None
    shape = _config(config) if config else None
    if _is_object(subject):
        snapshot = _snapshot(subject, source, connection, namespace)
        fits = [_of_engine(sizing, changes, card, shape, quantization) for sizing in _sizings(snapshot)]
        if not fits:
            raise UsageError(f"{subject}: no inference engine was recognised in it")
    else:
        if source is not None:
            raise UsageError(f"--from finds objects such as deployment/llama; {subject} is a model")
        if card is None:
            raise UsageError("--gpu is needed for a model, such as --gpu H100 or --gpu 48GiB")
        fits = [_of_model(subject, card, shape, engine, engine_version, changes, quantization)]
    if form == "json":
        sys.stdout.buffer.write(report.to_json(fits, __version__))
    else:
        text = report.render(fits, width=output.width(), color=output.colored(no_color))
        sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
    return int(any(fit.verdict == "does-not-fit" for fit in fits))


# -- what was asked about ---------------------------------------------------------------------------------------------


def _is_object(text: str) -> bool:
    """Whether it is TYPE/NAME of a kind that is known, rather than the id of a model."""
    from kubectl_llmdoctor.gather.kinds import by_name

    kind, slash, _ = text.partition("/")
    return bool(slash) and by_name(kind) is not None


def _gpu(text: str) -> Gpu:
    """A GPU by its name, or one of a given size. Raises UsageError with what it may mean."""
    from kubectl_llmdoctor.catalog.gpus import Gpu, alike, candidates

    size = re.fullmatch(r"(\d{1,4}(?:\.\d+)?)\s*GiB", text.strip(), re.IGNORECASE)
    if size:
        memory = int(float(size[1]) * (1 << 30))
        return Gpu(name=f"GPU of {size[1]} GiB", memory=memory, reported=memory >> 20, measured=True)
    found = candidates(text)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"--gpu {text}: may be {' or '.join(gpu.name for gpu in found)}; say which")
    near = alike(text)
    meant = f"did you mean {' or '.join(near)}? Else give its memory" if near else "give its memory instead"
    raise UsageError(f"--gpu {text}: not in the table; {meant}, such as --gpu 48GiB")


def _config(path: str) -> Architecture:
    """The architecture of a config.json. Raises UsageError when it is none."""
    from kubectl_llmdoctor.catalog.architecture import of_config

    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    try:
        tree = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UsageError(f"--config {path}: not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"--config {path}: not the config.json of a model: its top level is no mapping")
    return of_config(tree)


def _snapshot(
    subject: str, source: str | None, connection: Callable[[], Connection], namespace: str | None
) -> Snapshot:
    from kubectl_llmdoctor.cli.inputs import live, offline

    if source is not None:
        return offline(source, None, (subject,), namespace)
    from kubectl_llmdoctor.gather.cluster import Query

    return live(connection(), Query(names=(subject,)), 0)


def _sizings(snapshot: Snapshot) -> list[Sizing]:
    """One for each engine; replicas that run the same are one."""
    from kubectl_llmdoctor.facts.cluster import Cluster
    from kubectl_llmdoctor.target import subjects

    found: dict[object, Sizing] = {}
    targets = subjects(Cluster(snapshot))
    if not targets:
        raise AccessError("the object is not there")
    for target in targets:
        for pod in target.pods:
            for engine in target.engines(pod):
                key = (target.workload.ref if target.workload else pod.name, engine.container.name, engine.found.argv)
                found.setdefault(key, target.sizing(engine))
    return list(found.values())


# -- the answer -------------------------------------------------------------------------------------------------------


def _of_model(
    name: str,
    gpu: Gpu,
    shape: Architecture | None,
    engine: str,
    version: str | None,
    changes: Mapping[str, Any],
    quantization: str | None,
) -> Fit:
    from kubectl_llmdoctor.catalog.models import find
    from kubectl_llmdoctor.memory.budget import budget
    from kubectl_llmdoctor.memory.options import memory_of
    from kubectl_llmdoctor.memory.serving import Serving

    known_from = "--config"
    if shape is None:
        found = find(name)
        if found is None:
            raise UsageError(f"{name}: not in the table of models; give its config.json with --config FILE")
        shape, known_from = found.architecture, found.id if found.exact else f"{found.id}, by its name"
    serving = msgspec.structs.replace(Serving(engine=engine, version=version), **changes)
    shape, serving = _quantized(shape, serving, quantization)
    result = budget(shape, serving, memory_of(gpu), gpu.name)
    return _document(name, known_from, shape, serving, gpu, "--gpu", result)


def _of_engine(
    sizing: Sizing, changes: Mapping[str, Any], gpu: Gpu | None, shape: Architecture | None, quantization: str | None
) -> Fit:
    from kubectl_llmdoctor.memory.budget import Budget, Measured, budget
    from kubectl_llmdoctor.memory.options import memory_of

    engine = sizing.engine
    name = str(engine.value("model") or "model not known")
    place = f"{engine.pod.namespace}/{engine.pod.name} containers[{engine.container.name}]"
    serving = msgspec.structs.replace(sizing.serving, **changes)
    known_from = "--config"
    if shape is None and sizing.model is not None:
        shape, known_from = sizing.model
    source = "--gpu" if gpu else ""
    if gpu is None and sizing.accelerator is not None:
        gpu, source = sizing.accelerator.gpu, f"{sizing.accelerator.ref} {sizing.accelerator.text}"
    total = memory_of(gpu) if gpu else None
    if shape is None or (sizing.unknown and not (changes or gpu)):
        missing = sizing.unknown or "the model is not known"
        return _document(name, "", shape, serving, gpu, source, Budget(verdict="unknown", missing=(missing,)), place)
    shape, serving = _quantized(shape, serving, quantization)
    # what the engine printed holds for the settings that it ran with
    same = serving == sizing.serving and source != "--gpu" and known_from != "--config"
    measured = sizing.printed.measured if same else Measured()
    result = budget(shape, serving, total, gpu.name if gpu else "", measured)
    return _document(name, known_from, shape, serving, gpu, source, result, place)


def _quantized(shape: Architecture, serving: Serving, quantization: str | None) -> tuple[Architecture, Serving]:
    """A checkpoint that is quantized in the usual way of a method, when one asks for it and the model is not."""
    from kubectl_llmdoctor.catalog.architecture import LINEAR, Quantization, bits_per_weight
    from kubectl_llmdoctor.memory.weights import online_bits

    if quantization is None:
        return shape, serving
    serving = msgspec.structs.replace(serving, quantization=quantization)
    if shape.quantization is not None or online_bits(quantization) is not None:
        return shape, serving
    bits = bits_per_weight(quantization, 4, 128)
    if bits is None:
        raise UsageError(f"--quantization {quantization}: how it stores weights is not known")
    usual = Quantization(method=quantization, bits=bits, parts=LINEAR, group=128, spread=0.5)
    return msgspec.structs.replace(shape, quantization=usual), serving


def _document(
    name: str,
    known_from: str,
    shape: Architecture | None,
    serving: Serving,
    gpu: Gpu | None,
    source: str,
    result: Budget,
    target: str = "",
) -> Fit:
    from kubectl_llmdoctor.report import fit as report

    count = serving.tensor_parallel * serving.pipeline_parallel * serving.data_parallel
    return report.Fit(
        verdict=result.verdict,
        target=target,
        model=_model(name, known_from, shape) if shape is not None else report.ModelInfo(name=name),
        engine=report.EngineSettings(
            name=serving.engine,
            version=serving.version,
            tensor_parallel_size=serving.tensor_parallel,
            pipeline_parallel_size=serving.pipeline_parallel,
            data_parallel_size=serving.data_parallel,
            max_model_len=serving.max_model_len,
            max_num_seqs=serving.max_num_seqs,
            max_num_batched_tokens=serving.max_num_batched_tokens,
            gpu_memory_utilization=serving.memory_fraction,
            dtype=serving.dtype,
            quantization=serving.quantization,
            kv_cache_dtype=serving.kv_cache_dtype,
        ),
        gpu=report.GpuInfo(name=gpu.name, count=count, memory=_bytes(result.total), source=source) if gpu else None,
        memory=report.Memory(
            total=_bytes(result.total),
            usable=_bytes(result.usable),
            weights=_bytes(result.weights),
            working=_bytes(result.working),
            cache=_bytes(result.cache),
            bytes_per_token=result.per_token,
            bytes_per_request=result.per_request,
            context=result.context,
            tokens=result.tokens,
            longest=result.longest,
            concurrency=_rounded(result.concurrency),
        ),
        options=_options(shape, serving, gpu, result),
        missing=result.missing,
    )


def _model(name: str, known_from: str, shape: Architecture) -> ModelInfo:
    from kubectl_llmdoctor.report.fit import ModelInfo

    caches = shape.caches or ()
    kv_heads = {cache.heads for cache in caches if cache.kind not in ("latent", "state")}
    return ModelInfo(
        name=name,
        known_from=known_from,
        architecture=shape.name,
        parameters=shape.weights.total if shape.weights else None,
        layers=shape.layers or None,
        heads=shape.heads or None,
        kv_heads=kv_heads.pop() if len(kv_heads) == 1 else None,
        latent_attention=any(cache.kind == "latent" for cache in caches),
        native_context=shape.native_context,
        quantization=shape.quantization.method if shape.quantization else None,
    )


def _options(shape: Architecture | None, serving: Serving, gpu: Gpu | None, result: Budget) -> tuple[OptionInfo, ...]:
    """What would make it fit, where it does not surely."""
    from kubectl_llmdoctor.memory.options import options
    from kubectl_llmdoctor.report.fit import OptionInfo

    if shape is None or gpu is None or result.verdict not in ("does-not-fit", "too-close"):
        return ()
    return tuple(
        OptionInfo(
            summary=option.step.summary,
            context=option.budget.context,
            concurrency=round(option.budget.concurrency[0], 1) if option.budget.concurrency else None,
        )
        for option in options(shape, serving, gpu, _larger(gpu))
    )


def _larger(gpu: Gpu) -> Sequence[Gpu]:
    from kubectl_llmdoctor.catalog.gpus import known

    offered = [other for other in known() if other.name in _OFFERED and other.memory > gpu.memory * 1.05]
    return sorted(offered, key=lambda other: other.memory)


def _bytes(amount: Amount | None) -> Bytes | None:

    return Bytes(low=amount.low, high=amount.high, source=amount.source) if amount else None


def _rounded(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    return (round(pair[0], 2), round(pair[1], 2)) if pair else None

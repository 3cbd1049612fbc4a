"""LLMKube: InferenceService with its Model (internal/controller/runtime_*.go)."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.tree import dig, rows, table

from .built import Args, hf_token
from .pointer import Json
from .template import Finder, Template, name_of, named, namespace_of

_GPU = "nvidia.com/gpu"

_LLMKUBE: dict[str, tuple[str, str, int, list[str]]] = {
    "llamacpp": ("llama-server", "ghcr.io/ggml-org/llama.cpp:server", 8080, []),
    "vllm": ("vllm", "", 8000, ["vllm", "serve"]),
    "sglang": ("sglang", "", 30000, ["python3", "-m", "sglang.launch_server"]),
    "tgi": ("tgi", "", 80, ["text-generation-launcher"]),
}


#: The fields by which it gives llama-server an option (runtime_llamacpp_args.go), by the option's names in its releases.
_OPTIONS = {
    "--draft-n-max": "speculativeDecoding.nDraftMax",
    "--spec-draft-n-max": "speculativeDecoding.nDraftMax",
    "--spec-draft-p-min": "speculativeDecoding.pMin",
    "--spec-type": "speculativeDecoding.type",
    "-md": "speculativeDecoding.draftModelRef",
    "--rope-scaling": "ropeScaling.type",
    "--rope-scale": "ropeScaling.factor",
    "--yarn-orig-ctx": "ropeScaling.originalContext",
    "--flash-attn": "flashAttention",
    "--jinja": "jinja",
    "--cache-type-k": "cacheTypeK",
    "--cache-type-v": "cacheTypeV",
    "--cpu-moe": "moeCPUOffload",
    "--n-cpu-moe": "moeCPULayers",
    "--no-kv-offload": "noKvOffload",
    "--override-tensor": "tensorOverrides",
    "--override-kv": "metadataOverrides",
    "--batch-size": "batchSize",
    "--ubatch-size": "uBatchSize",
    "--no-warmup": "noWarmup",
    "--parallel": "parallelSlots",
    "--ctx-size": "contextSize",
    "--reasoning-budget": "reasoningBudget",
    "--reasoning-budget-message": "reasoningBudgetMessage",
    "--embedding": "mode",
    "--reranking": "mode",
    "--pooling": "mode",
}


def option_field(raw: Json, option: str) -> str:
    """The field of an InferenceService, set there, by which LLMKube gives llama-server an option that the object does not list itself."""
    spec = table(raw.get("spec"))
    ours = str(raw.get("apiVersion")).startswith("inference.llmkube.dev/")
    field = _OPTIONS.get(option, "")
    listed = any(str(word).split("=")[0] == option for word in spec.get("extraArgs") or ())
    return f"spec.{field}" if ours and field and not listed and dig(spec, field) is not None else ""


def llmkube_service(raw: Json, find: Finder) -> list[Template]:
    """LLMKube: a Deployment with one server; the model and its GPUs stand in a Model."""
    spec = table(raw.get("spec"))
    runtime = str(spec.get("runtime") or "llamacpp").lower()
    if runtime not in _LLMKUBE:
        return []
    name, image, port, command = _LLMKUBE[runtime]
    model = table(dig(find("Model", namespace_of(raw), str(spec.get("modelRef") or "")), "spec"))
    given = dig(spec, "containerPort") or dig(spec, "endpoint.port")
    port = given if isinstance(given, int) else port
    gpus = dig(spec, "resources.gpu") or dig(model, "hardware.gpu.count") or 0
    if gpus and runtime == "llamacpp":  # resolveRuntimeImage: a build for the GPU's vendor, where the object names none
        image = f"{image}-{'rocm' if _gpu_name(model).startswith('amd') else 'cuda'}"
    args = Args()
    {"vllm": _llmkube_vllm, "sglang": _llmkube_sglang, "tgi": _llmkube_tgi}.get(runtime, _llmkube_llamacpp)(
        args, spec, str(model.get("source") or "/models"), port, gpus if isinstance(gpus, int) else 0
    )
    args.rest(spec.get("extraArgs"), "/spec/extraArgs")
    amounts = {k: told for k in ("cpu", "memory") if (told := dig(spec, f"resources.{k}"))}
    if told_host := dig(spec, "resources.hostMemory"):  # which goes before the other
        amounts["memory"] = told_host
    gpu = _gpu_name(model)
    limits = {gpu: gpus} if gpus else {}
    secrets = [table(dig(spec, f"{config}.hfTokenSecretRef")) for config in ("vllmConfig", "sglangConfig", "tgiConfig")]
    secret = next(filter(None, secrets), Json())
    token = hf_token({"hfTokenSecretName": secret.get("name"), "hfTokenKeyName": secret.get("key")})
    container: Json = {
        "name": name,
        "image": str(spec.get("image") or image),
        "args": args.words,
        "env": named(spec.get("env"), token),
        "ports": [{"name": "http", "containerPort": port}],
        "resources": {"limits": limits, "requests": {**amounts, **limits}},
        "volumeMounts": rows(spec.get("extraVolumeMounts")),
    }
    if command:
        container["command"] = command
    pod: Json = {"containers": [container], "volumes": rows(spec.get("extraVolumes"))}
    pod |= {k: spec[k] for k in ("nodeSelector", "tolerations", "affinity", "runtimeClassName") if spec.get(k)}
    labels = {"inference.llmkube.dev/service": name_of(raw)}
    return [
        Template(
            raw=raw,
            pod={"metadata": {"labels": labels}, "spec": pod},
            places=tuple(_places(args, gpu, "hostMemory" if told_host else "memory")),
            partial=not model,
            completed=True,
        )
    ]


def _places(args: Args, gpu: str, memory: str) -> Iterator[tuple[str, str]]:
    """Where the object says what its pod has."""
    yield from (("", ""), ("/containers/0/args", ""), ("/containers/0/env", "/spec/env"))
    yield from (("/containers/0/image", "/spec/image"), ("/containers/0/volumeMounts", "/spec/extraVolumeMounts"))
    yield from ((f"/{k}", f"/spec/{k}") for k in ("nodeSelector", "tolerations", "affinity", "runtimeClassName"))
    yield from (("/volumes", "/spec/extraVolumes"), *args.places)
    yield from (
        ("/securityContext", "/spec/podSecurityContext"),
        ("/containers/0/securityContext", "/spec/securityContext"),
    )
    for kind in ("limits", "requests"):
        yield f"/containers/0/resources/{kind}/{gpu.replace('/', '~1')}", "/spec/resources/gpu"
        # the request alone before 0.9.25, the limit as well since then
        yield f"/containers/0/resources/{kind}/memory", f"/spec/resources/{memory}"
    yield "/containers/0/resources/requests/cpu", "/spec/resources/cpu"


def _gpu_name(model: Json) -> str:
    gpu = table(dig(model, "hardware.gpu"))
    vendor = {"amd": "amd.com/gpu", "intel": "gpu.intel.com/i915"}.get(str(gpu.get("vendor") or "").lower(), _GPU)
    return str(gpu.get("resourceName") or vendor)


def _llmkube_vllm(args: Args, spec: Json, source: str, port: int, gpus: int) -> None:
    config, at = table(spec.get("vllmConfig")), "/spec/vllmConfig"
    args.words.append(source)
    args.add("--port", port, "/spec/endpoint/port")
    size = config.get("tensorParallelSize") or (gpus if gpus > 1 else None)
    args.add("--tensor-parallel-size", size, f"{at}/tensorParallelSize")
    for flag, field in (
        ("--max-model-len", "maxModelLen"),
        ("--quantization", "quantization"),
        ("--dtype", "dtype"),
        ("--kv-cache-dtype", "kvCacheCustomDtype" if config.get("kvCacheCustomDtype") else "kvCacheDtype"),
        ("--max-num-batched-tokens", "maxNumBatchedTokens"),
        ("--cpu-offload-gb", "cpuOffloadGB"),
        ("--gpu-memory-utilization", "gpuMemoryUtilization"),
    ):
        args.add(flag, config.get(field), f"{at}/{field}")
    args.switch("--enable-prefix-caching", config.get("enablePrefixCaching"))
    args.switch("--enable-chunked-prefill", config.get("enableChunkedPrefill"))
    args.switch("--enable-expert-parallel", config.get("enableExpertParallel"))
    args.add("--max-num-seqs", spec.get("parallelSlots"), "/spec/parallelSlots")


def _llmkube_sglang(args: Args, spec: Json, source: str, port: int, gpus: int) -> None:
    config, at = table(spec.get("sglangConfig")), "/spec/sglangConfig"
    args.words += ["--model-path", source]
    args.add("--port", port, "/spec/endpoint/port")
    args.add("--tp", config.get("tensorParallelSize") or (gpus if gpus > 1 else None), f"{at}/tensorParallelSize")
    for flag, field in (
        ("--context-length", "contextLength"),
        ("--mem-fraction-static", "memFractionStatic"),
        ("--quantization", "quantization"),
        ("--max-running-requests", "maxRunningRequests"),
    ):
        args.add(flag, config.get(field), f"{at}/{field}")


def _llmkube_tgi(args: Args, spec: Json, source: str, port: int, gpus: int) -> None:
    config, at = table(spec.get("tgiConfig")), "/spec/tgiConfig"
    args.words += ["--model-id", source]
    args.add("--port", port, "/spec/endpoint/port")
    for flag, field in (
        ("--quantize", "quantize"),
        ("--max-input-length", "maxInputLength"),
        ("--max-total-tokens", "maxTotalTokens"),
        ("--dtype", "dtype"),
    ):
        args.add(flag, config.get(field), f"{at}/{field}")
    if gpus > 1:
        args.words += ["--num-shard", str(gpus)]


def _llmkube_llamacpp(args: Args, spec: Json, source: str, port: int, gpus: int) -> None:
    args.words += ["--model", source]
    args.add("--port", port, "/spec/endpoint/port")
    if gpus:
        args.words += ["--n-gpu-layers", "99"]
    args.add("--ctx-size", spec.get("contextSize"), "/spec/contextSize")
    args.add("--parallel", spec.get("parallelSlots"), "/spec/parallelSlots")
    for flag, field in (("--cache-type-k", "cacheTypeK"), ("--cache-type-v", "cacheTypeV")):
        args.add(flag, spec.get(field), f"/spec/{field}")
    args.add("--batch-size", spec.get("batchSize"), "/spec/batchSize")
    args.add("--ubatch-size", spec.get("uBatchSize"), "/spec/uBatchSize")

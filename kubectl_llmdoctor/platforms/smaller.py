"""Operators with one kind that states image and arguments in fields of its own.

- production-stack: VLLMRuntime (operator/internal/controller/vllmruntime_controller.go)
- KubeAI: Model (internal/modelcontroller/engine_vllm.go, engine_ollama.go)
- LLMKube: InferenceService with its Model (internal/controller/runtime_*.go)
- kthena: ModelBooster (pkg/model-booster-controller/convert/model_serving.go)
- OME: InferenceService and its runtimes (pkg/apis/ome/v1beta1): an engine and a decoder with a runner each
- KAITO: Workspace and InferenceSet (api/v1beta1, pkg/workspace/inference): a template, or a preset that vLLM serves
"""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.tree import dig, rows, say, table
from kubectl_llmdoctor.yamltext import load_yaml

from .built import Args, probe
from .pointer import Json
from .template import Claim, Finder, Template, Told, claim_spec, name_of, named, namespace_of, with_shm

_GPU = "nvidia.com/gpu"


def _token(secret: Any) -> list[Json]:
    """The variable by which the Hugging Face token of a Secret comes to the server."""
    name, key = table(secret).get("hfTokenSecretName"), table(secret).get("hfTokenKeyName") or "token"
    if not name:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": str(name), "key": str(key)}}}]


def vllm_runtime(raw: Json, _find: Finder) -> list[Template]:
    """production-stack's operator: one Deployment with the container `vllm`."""
    spec = table(raw.get("spec"))
    model, config, deployment = (table(spec.get(key)) for key in ("model", "vllmConfig", "deploymentConfig"))
    port = config.get("port") if isinstance(config.get("port"), int) else 8000
    args = Args()
    args.words.append(str(model.get("modelURL") or ""))
    args.places.append(("/containers/0/args/0", "/spec/model/modelURL"))
    args.words += ["--host", "0.0.0.0"]  # noqa: S104 (what the operator does)
    args.add("--port", port, "/spec/vllmConfig/port")
    args.switch("--enable-lora", model.get("enableLoRA"))
    args.switch("--enable-auto-tool-choice", model.get("enableTool"))
    args.add("--tool-call-parser", model.get("toolCallParser"), "/spec/model/toolCallParser")
    args.switch("--enable-chunked-prefill", config.get("enableChunkedPrefill"), "--no-enable-chunked-prefill")
    args.switch("--enable-prefix-caching", config.get("enablePrefixCaching"), "--no-enable-prefix-caching")
    args.add("--max-model-len", model.get("maxModelLen"), "/spec/model/maxModelLen")
    args.add("--dtype", model.get("dtype"), "/spec/model/dtype")
    args.add("--tensor-parallel-size", config.get("tensorParallelSize"), "/spec/vllmConfig/tensorParallelSize")
    args.add("--max-num-seqs", model.get("maxNumSeqs"), "/spec/model/maxNumSeqs")
    args.add("--gpu-memory-utilization", config.get("gpuMemoryUtilization"), "/spec/vllmConfig/gpuMemoryUtilization")
    args.add("--max-loras", config.get("maxLoras"), "/spec/vllmConfig/maxLoras")
    args.rest(config.get("extraArgs"), "/spec/vllmConfig/extraArgs")
    image = table(deployment.get("image"))
    asked = table(deployment.get("resources"))
    gpu = str(asked.get("gpuType") or _GPU)
    amounts = {k: asked[f] for f, k in (("cpu", "cpu"), ("memory", "memory"), ("gpu", gpu)) if asked.get(f)}
    container: Json = {
        "name": "vllm",
        "image": "/".join(str(image[k]) for k in ("registry", "name") if image.get(k)),
        "command": ["/opt/venv/bin/vllm", "serve"],
        "args": args.words,
        "env": named(config.get("env"), _token(model.get("hfTokenSecret"))),
        "ports": [{"name": "http", "containerPort": port}],
        "resources": {"limits": amounts, "requests": amounts},
        "readinessProbe": probe("/health", port, 10, 20, 10),
        "livenessProbe": probe("/health", port, 10, 20, 10),
        "startupProbe": probe("/health", port, 120, 20, 100),
    }
    pod: Json = {"containers": [container], "tolerations": rows(deployment.get("toleration"))}
    if deployment.get("runtimeClass"):
        pod["runtimeClassName"] = deployment["runtimeClass"]
    storage, claims = table(spec.get("storageConfig")), tuple[Claim, ...]()
    if storage.get("enabled") is True:
        volume = str(storage.get("volumeName") or "pvc-storage")
        pod["volumes"] = [{"name": volume, "persistentVolumeClaim": {"claimName": name_of(raw)}}]
        mount = {"name": volume, "mountPath": str(storage.get("mountPath") or "/data")}
        container["volumeMounts"] = [mount]
        # the defaults are those of the CRD
        claim = claim_spec(storage.get("size") or "10Gi", storage.get("accessMode"), "ReadWriteMany")
        claims = (Claim(name=name_of(raw), spec=claim, raw=raw, pointer="/spec/storageConfig/size"),)
    if deployment.get("shmSize"):
        pod = with_shm(pod, 0, deployment["shmSize"])
    at = "/spec/deploymentConfig"
    places = [("", ""), ("/containers/0/env", "/spec/vllmConfig/env"), ("/runtimeClassName", f"{at}/runtimeClass")]
    places += [("/tolerations", f"{at}/toleration"), ("/containers/0/image", f"{at}/image/name"), *args.places]
    for kind in ("limits", "requests"):
        inside = f"/containers/0/resources/{kind}"
        places += [(f"{inside}/{key}", f"{at}/resources/{key}") for key in ("cpu", "memory")]
        places.append((f"{inside}/{gpu.replace('/', '~1')}", f"{at}/resources/gpu"))
    labels = {"app": name_of(raw), **table(dig(raw, "metadata.labels"))}
    spec = {"metadata": {"labels": labels}, "spec": pod}
    return [Template(raw=raw, pod=spec, places=tuple(places), completed=True, literal_env=True, claims=claims)]


#: KubeAI's engines: the command, the image that stands for the one of its configuration, the first arguments.
_KUBEAI: dict[str, tuple[list[str], str]] = {
    "VLLM": (["python3", "-m", "vllm.entrypoints.openai.api_server"], "vllm"),
    "OLlama": ([], "ollama/ollama"),
}


def kubeai_model(raw: Json, _find: Finder) -> list[Template]:
    """KubeAI: a pod with the container `server`; image and resources come from the profile in KubeAI's own settings."""
    spec = table(raw.get("spec"))
    if str(spec.get("engine")) not in _KUBEAI:
        return []
    command, image = _KUBEAI[str(spec["engine"])]
    url, args = str(spec.get("url") or ""), Args()
    scheme, _, reference = url.partition("://")
    if command:
        served = {"pvc": "/model", "s3": url}.get(scheme, reference.partition("?")[0])
        args.words += [f"--model={served}", f"--served-model-name={name_of(raw)}"]
        args.places += [("/containers/0/args/0", "/spec/url"), ("/containers/0/args/1", "/metadata/name")]
        if scheme == "s3":
            args.words.append("--load-format=runai_streamer")
    args.rest(spec.get("args"), "/spec/args")
    env = [{"name": key, "value": say(value)} for key, value in sorted(table(spec.get("env")).items())]
    container: Json = {
        "name": "server",
        "image": str(spec.get("image") or image),
        "args": args.words,
        "env": env if command else [{"name": "OLLAMA_HOST", "value": "0.0.0.0:8000"}, *env],
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    if command:
        container["command"] = command
        container["startupProbe"] = probe("/health", "http", 0, 2, 5400)
    else:  # a command pulls the model, for up to three hours
        container["startupProbe"] = {"exec": {"command": ["bash", "-c", "/bin/ollama pull"]}, "timeoutSeconds": 10800}
    container["readinessProbe"] = probe("/health" if command else "/", "http", 0, 10, 3)
    container["livenessProbe"] = probe("/health" if command else "/", "http", 0 if command else 900, 30, 3)
    pod = with_shm({"containers": [container]}, 0)
    places = (("", ""), ("/containers/0/args", ""), ("/containers/0/image", "/spec/image"), *args.places)
    labels = {"app": "model", "model": name_of(raw), "app.kubernetes.io/managed-by": "kubeai"}
    return [Template(raw=raw, pod={"metadata": {"labels": labels}, "spec": pod}, places=places, partial=True)]


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
    gpu = _gpu_name(model)
    limits = {gpu: gpus} if gpus else {}
    secrets = [table(dig(spec, f"{config}.hfTokenSecretRef")) for config in ("vllmConfig", "sglangConfig", "tgiConfig")]
    secret = next(filter(None, secrets), Json())
    token = _token({"hfTokenSecretName": secret.get("name"), "hfTokenKeyName": secret.get("key")})
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
    places = [("", ""), ("/containers/0/args", ""), ("/containers/0/env", "/spec/env")]
    places += [("/containers/0/image", "/spec/image"), ("/containers/0/volumeMounts", "/spec/extraVolumeMounts")]
    places += [(f"/{k}", f"/spec/{k}") for k in ("nodeSelector", "tolerations", "affinity", "runtimeClassName")]
    places += [("/volumes", "/spec/extraVolumes"), *args.places]
    for kind in ("limits", "requests"):
        places.append((f"/containers/0/resources/{kind}/{gpu.replace('/', '~1')}", "/spec/resources/gpu"))
    labels = {"inference.llmkube.dev/service": name_of(raw)}
    return [
        Template(
            raw=raw,
            pod={"metadata": {"labels": labels}, "spec": pod},
            places=tuple(places),
            partial=not model,
            completed=True,
        )
    ]


_LLMKUBE: dict[str, tuple[str, str, int, list[str]]] = {
    "llamacpp": ("llama-server", "ghcr.io/ggml-org/llama.cpp:server", 8080, []),
    "vllm": ("vllm", "", 8000, ["vllm", "serve"]),
    "sglang": ("sglang", "", 30000, ["python3", "-m", "sglang.launch_server"]),
    "tgi": ("tgi", "", 80, ["text-generation-launcher"]),
}


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


def model_booster(raw: Json, _find: Finder) -> list[Template]:
    """kthena: a ModelServing with one role per worker of the backend; `config` holds vLLM's arguments."""
    spec = table(raw.get("spec"))
    listed = spec.get("backend")
    backends = [("/spec/backend", listed)] if isinstance(listed, dict) else []
    backends += [(f"/spec/backends/{i}", b) for i, b in enumerate(rows(spec.get("backends")))]
    found = []
    for at, backend in backends:
        if not str(backend.get("type") or "").startswith("vLLM"):
            continue
        for index, worker in enumerate(rows(backend.get("workers"))):
            found.append(_booster(raw, backend, worker, f"{at}/workers/{index}"))
    return found


def _booster(raw: Json, backend: Json, worker: Json, at: str) -> Template:
    uri, args = str(backend.get("modelURI") or ""), Args()
    base = at.rpartition("/workers/")[0]
    args.words += ["-m", "vllm.entrypoints.openai.api_server", "--model", uri]
    args.places.append(("/containers/0/args/3", f"{base}/modelURI"))
    for key, value in sorted(table(worker.get("config")).items()):
        flag = "--" + key.replace("_", "-")
        kebab = "".join(f"-{c.lower()}" if c.isupper() else c for c in flag)
        if isinstance(value, dict | list):
            continue
        args.words += [kebab, say(value)]
        args.places.append((f"/containers/0/args/{len(args.words) - 1}", f"{at}/config/{key}"))
    pods = worker.get("pods")
    container: Json = {
        "name": "engine",
        "image": str(worker.get("image") or ""),
        "command": ["python3"],
        "args": args.words,
        "env": named(backend.get("env"), []),
        "resources": table(worker.get("resources")),
        "readinessProbe": probe("/health", 8000, 180, 5, 3),
    }
    places = [("", ""), ("/containers/0/resources", f"{at}/resources"), ("/containers/0/image", f"{at}/image")]
    places += [("/containers/0/env", f"{base}/env"), *args.places]
    places += [("/tolerations", f"{at}/tolerations"), ("/affinity", f"{at}/affinity")]
    kind = str(worker.get("type") or "server")
    pod = {k: worker[k] for k in ("tolerations", "affinity") if worker.get(k)} | {"containers": [container]}
    nodes = pods if isinstance(pods, int) and pods > 1 else 1
    return Template(
        raw=raw, pod={"metadata": {}, "spec": pod}, places=tuple(places), part=kind, nodes=nodes, completed=True
    )


def ome_service(raw: Json, _find: Finder) -> list[Template]:
    """OME: what the service says of its engine and decoder; the rest comes from a runtime."""
    return _ome(raw, (("engine", "engine"), ("decoder", "decoder"), ("predictor", "predictor")), context=False)


def ome_runtime(raw: Json, _find: Finder) -> list[Template]:
    """OME: what services are made from."""
    return _ome(raw, (("engineConfig", "engine"), ("decoderConfig", "decoder")), context=True)


def _ome(raw: Json, fields: tuple[tuple[str, str], ...], *, context: bool) -> list[Template]:
    found = []
    for field, part in fields:
        whole = table(dig(raw, f"spec.{field}"))
        for inner, suffix in (("", ""), ("leader", " leader"), ("worker", " worker")):
            spec = table(whole.get(inner)) if inner else whole
            runner = spec.get("runner")
            if not isinstance(runner, dict):
                continue
            at = f"/spec/{field}/{inner}".rstrip("/")
            own = [c for c in rows(spec.get("containers")) if c.get("name") != runner.get("name")]
            keep = ("runner", "leader", "worker", "containers", "minReplicas", "maxReplicas", "size")
            pod = {key: value for key, value in spec.items() if key not in keep}
            pod["containers"] = [{"name": "ome-container", **runner}, *own]
            places = (("", at), ("/containers", ""), ("/containers/0", f"{at}/runner"))
            nodes = None if inner else 1
            template = {"metadata": {}, "spec": pod}
            found.append(
                Template(
                    raw=raw, pod=template, places=places, part=part + suffix, nodes=nodes, partial=True, context=context
                )
            )
    return found


def workspace(raw: Json, find: Finder) -> list[Template]:
    """KAITO: the template as it stands, or the preset's pod, which runs vLLM unless an annotation wants transformers."""
    return _kaito(raw, "inference", table(dig(raw, "metadata.annotations")), find)


def inference_set(raw: Json, find: Finder) -> list[Template]:
    """KAITO: the Workspace that each replica of a set is."""
    own, inner = (dig(raw, f"{path}.annotations") for path in ("metadata", "spec.template.metadata"))
    return _kaito(raw, "spec.template.inference", {**table(own), **table(inner)}, find)


def _kaito(raw: Json, at: str, annotations: Json, find: Finder) -> list[Template]:
    inference = table(dig(raw, at))
    template = inference.get("template")
    if isinstance(template, dict):
        places = (("", f"/{at.replace('.', '/')}/template/spec"),)
        return [Template(raw=raw, pod=template, places=places, nodes=None)]
    preset = dig(inference, "preset.name")
    if not isinstance(preset, str) or annotations.get("kaito.sh/runtime") == "transformers":
        return []
    words, texts, places_of = _kaito_config(raw, inference.get("config"), find)
    told = Told(
        container="inference",
        argv=("vllm", "serve", preset, *words),
        skip=2,
        texts=(f"preset: {preset}", *texts),
        places=(f"{at}.preset.name", *places_of),
        path=f"{at}.preset",
    )
    pod = {"metadata": {}, "spec": {"containers": [{"name": "inference"}]}}
    return [Template(raw=raw, pod=pod, places=(("", ""),), base=f"{at}.preset", nodes=None, partial=True, told=(told,))]


def _kaito_config(raw: Json, name: Any, find: Finder) -> tuple[list[str], list[str], list[str]]:
    """The options of vLLM in the ConfigMap that a preset names: words, how each stands there, and where.

    presets/workspace/inference/vllm/inference_api.py makes an option of each key under `vllm`.
    """
    item = find("ConfigMap", namespace_of(raw), name) if isinstance(name, str) and name else None
    text = table(dig(item, "data")).get("inference_config.yaml")
    if not isinstance(text, str):
        return [], [], []
    tree = load_yaml(text)
    given = {
        str(key): say(value)
        for key, value in table(dig(tree, "vllm")).items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }
    words = [f"--{key}={value}" for key, value in given.items()]
    texts = [f"{key}: {value}" for key, value in given.items()]
    return words, texts, [f"ConfigMap/{name} data[inference_config.yaml]"] * len(words)

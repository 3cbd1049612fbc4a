"""production-stack's operator: VLLMRuntime (operator/internal/controller/vllmruntime_controller.go)."""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.tree import dig, rows, table

from .built import Args, hf_token, probe
from .pointer import Json
from .template import Claim, Finder, Template, claim_spec, name_of, named, with_shm

_GPU = "nvidia.com/gpu"


def vllm_runtime(raw: Json, _find: Finder) -> list[Template]:
    """production-stack's operator: one Deployment with the container `vllm`."""
    spec = table(raw.get("spec"))
    model, config, deployment = (table(spec.get(key)) for key in ("model", "vllmConfig", "deploymentConfig"))
    port = config.get("port") if isinstance(config.get("port"), int) else 8000
    args = _arguments(model, config, port)
    image = table(deployment.get("image"))
    asked = table(deployment.get("resources"))
    gpu = str(asked.get("gpuType") or _GPU)
    amounts = {k: asked[f] for f, k in (("cpu", "cpu"), ("memory", "memory"), ("gpu", gpu)) if asked.get(f)}
    container: Json = {
        "name": "vllm",
        "image": "/".join(str(image[k]) for k in ("registry", "name") if image.get(k)),
        "command": ["/opt/venv/bin/vllm", "serve"],
        "args": args.words,
        "env": named(config.get("env"), hf_token(model.get("hfTokenSecret"))),
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


def _arguments(model: Json, config: Json, port: Any) -> Args:
    """vLLM's arguments, in the operator's order."""
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
    return args

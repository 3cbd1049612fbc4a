"""llmaz: Playground (InftyAI/llmaz api/inference/v1alpha1, pkg/controller/inference/playground_controller.go).

A Playground takes its command from a BackendRuntime, its GPUs from the flavor of an OpenModel, and its model's path from
where the loader puts it. The chart installs a BackendRuntime for each engine; where none is in the input, what the chart's
starts is known, and its image without a tag.
"""

from __future__ import annotations

import re
from typing import Any

from kubectl_llmdoctor.platforms.labels import WORKER_SET
from kubectl_llmdoctor.tree import dig, rows, table
from kubectl_llmdoctor.tree import words as words_of

from .built import Args, probe
from .pointer import Json
from .template import Finder, Template, name_of, with_shm

_PORT = 8080
_LISTENS = ["--host", "0.0.0.0", "--port", str(_PORT)]  # noqa: S104 (what the runtimes do)
_NAMED = ["--served-model-name", "{{ .ModelName }}"]

#: chart/templates/backends: the image, the command, the first arguments.
_RUNTIMES: dict[str, tuple[str, list[str], list[str]]] = {
    "vllm": (
        "vllm/vllm-openai",
        ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        ["--model", "{{ .ModelPath }}", *_NAMED, *_LISTENS],
    ),
    "sglang": (
        "lmsysorg/sglang",
        ["python3", "-m", "sglang.launch_server"],
        ["--model-path", "{{ .ModelPath }}", *_NAMED, *_LISTENS],
    ),
    "llamacpp": ("ghcr.io/ggml-org/llama.cpp", ["llama-server"], ["-m", "{{ .ModelPath }}", *_LISTENS, "--metrics"]),
    "tgi": (
        "ghcr.io/huggingface/text-generation-inference",
        [],
        ["--model-id", "{{ .ModelPath }}", "--port", str(_PORT)],
    ),
    "ollama": ("ollama/ollama", ["ollama", "serve"], []),
    "tensorrt-llm": ("nvcr.io/nvidia/tritonserver", ["trtllm-serve"], ["{{ .ModelPath }}", *_LISTENS]),
}
_CONFIG = "/spec/backendRuntimeConfig"


def playground(raw: Json, find: Finder) -> list[Template]:
    """One pod with the container `model-runner`."""
    config = table(dig(raw, "spec.backendRuntimeConfig"))
    backend = str(config.get("backendName") or "vllm")
    runtime = table(dig(find("BackendRuntime", "", backend), "spec"))
    if not runtime and backend not in _RUNTIMES:
        return []
    models = _models(raw)
    model = table(dig(find("OpenModel", "", models[0]), "spec")) if models else {}
    chosen = str(config.get("configName") or ("speculative-decoding" if len(models) > 1 else "default"))
    recommended = next((c for c in rows(runtime.get("recommendedConfigs")) if c.get("name") == chosen), Json())
    image, command, words = _RUNTIMES.get(backend, ("", [], []))
    version = config.get("version") or runtime.get("version")
    image = str(runtime.get("image") or image)
    args = Args()
    args.words += _filled(words_of(recommended.get("args")) if runtime else words, models, model)
    args.rest(config.get("args"), f"{_CONFIG}/args")
    container: Json = {
        "name": "model-runner",
        "image": f"{image}:{version}" if version else image,
        "command": words_of(runtime.get("command")) if runtime else command,
        "args": args.words,
        "env": [*rows(config.get("envs")), *rows(runtime.get("envs"))],
        "ports": [{"name": "http", "containerPort": _PORT}],
        "resources": _resources(table(config.get("resources")), table(recommended.get("resources")), raw, model),
    }
    if backend == "ollama" and not runtime:
        container["env"] = [*container["env"], {"name": "OLLAMA_HOST", "value": f"0.0.0.0:{_PORT}"}]
    for field in ("startupProbe", "livenessProbe", "readinessProbe"):
        if isinstance(runtime.get(field), dict):
            container[field] = runtime[field]
    if not runtime and backend != "ollama":
        container["startupProbe"] = probe("/health", _PORT, 0, 10, 30)
    pod: Json = {"containers": [container]}
    memory = config.get("sharedMemorySize") or recommended.get("sharedMemorySize")
    if memory:
        pod = with_shm(pod, 0, memory)
    elif not runtime and backend in ("vllm", "sglang"):
        pod = with_shm(pod, 0, "2Gi")
    places = [("", ""), *args.places, ("/containers/0/env", f"{_CONFIG}/envs")]
    places += [
        (f"/containers/0/resources/{kind}/{name}", f"{_CONFIG}/resources/{kind}/{name}")
        for kind in ("limits", "requests")
        for name in ("cpu", "memory")
    ]
    labels = {"llmaz.io/model-name": models[0] if models else "", WORKER_SET: name_of(raw)}
    return [
        Template(
            raw=raw,
            pod={"metadata": {"labels": labels}, "spec": pod},
            places=tuple(places),
            partial=not runtime or not model,
            completed=True,
        )
    ]


def _models(raw: Json) -> list[str]:
    """The names of the models that it claims, the main one first."""
    claims = rows(raw, "spec.modelClaims.models")
    claims = sorted(claims, key=lambda claim: claim.get("role") not in (None, "main"))
    single = dig(raw, "spec.modelClaim.modelName")
    return [str(single)] if isinstance(single, str) else [str(claim.get("name") or "") for claim in claims]


def _filled(words: list[str], models: list[str], model: Json) -> list[str]:
    """The runtime's arguments with the model in them; without one that is known the placeholders stay."""
    hub = table(dig(model, "source.modelHub"))
    known = {"ModelName": models[0]} if models else {}
    if hub.get("filename"):
        known["ModelPath"] = f"/workspace/models/{hub['filename']}"
    elif isinstance(hub.get("modelID"), str):
        known["ModelPath"] = "/workspace/models/models--" + hub["modelID"].replace("/", "--")
    elif isinstance(dig(model, "source.uri"), str):
        known["ModelPath"] = "/workspace/models/" + str(dig(model, "source.uri")).rstrip("/").rpartition("/")[2]
    return [re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda m: known.get(m[1], f"$({m[1]})"), word) for word in words]


def _resources(own: Json, recommended: Json, raw: Json, model: Json) -> Json:
    """What the object asks for, then the runtime, and the accelerators of the first flavor that it may take."""
    wanted = words_of(dig(raw, "spec.modelClaim.inferenceFlavors"))
    flavors = rows(model, "inferenceConfig.flavors")
    flavor: Any = next((f for f in flavors if not wanted or f.get("name") in wanted), None)
    devices = table(dig(flavor, "limits"))
    return {
        kind: {**table(recommended.get(kind)), **table(own.get(kind)), **devices} for kind in ("limits", "requests")
    }

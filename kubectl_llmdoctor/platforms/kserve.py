"""KServe: InferenceService (v1beta1) and LLMInferenceService (v1alpha1, v1alpha2).

An InferenceService that names a model takes its container from a ServingRuntime: KServe merges the two by name, appends
the arguments, and fills in placeholders (pkg/controller/v1beta1/inferenceservice/utils/utils.go, components/predictor.go,
0.11 to 0.18). An LLMInferenceService is merged onto LLMInferenceServiceConfigs: those of `baseRefs`, and KServe's presets,
which start vLLM on port 8000 with 1Gi of memory at /dev/shm, or on 8001 behind a proxy where others prefill
(config/llmisvcconfig, 0.16 on).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from kubectl_llmdoctor.tree import dig, rows, table
from kubectl_llmdoctor.tree import words as words_of

from .pointer import Json
from .template import Finder, Template, Told, filled, name_of, named, namespace_of, with_shm

#: Where KServe's presets serve a model, and the sidecar that has this port where others prefill.
_PORT = 8000
_PROXY: Json = {
    "name": "llm-d-routing-sidecar",
    "image": "ghcr.io/llm-d/llm-d-routing-sidecar",
    "restartPolicy": "Always",
    "ports": [{"containerPort": _PORT}],
}

#: The label of a component's pods.
_COMPONENT = "component"

#: Predictors from before `model`: the field is the name of the format.
FRAMEWORKS = (
    "huggingface", "triton", "pytorch", "tensorflow", "onnx", "sklearn", "xgboost", "lightgbm", "paddle", "pmml",
)  # fmt: skip

#: Fields of a model that belong to KServe, not to the container.
_OF_MODEL = frozenset([
    "modelFormat", "runtime", "storageUri", "storageUris", "storage", "protocolVersion", "runtimeVersion",
    "confidential",
])  # fmt: skip

#: Formats for which KServe's own runtimes leave no doubt about the server.
_SERVERS = {"huggingface": "kserve/huggingfaceserver", "triton": "nvcr.io/nvidia/tritonserver", "vllm": "vllm"}

#: The runtimes that come with KServe, by format (pkg/constants/constants.go).
_OWN_RUNTIMES = {
    "huggingface": "kserve-huggingfaceserver",
    "lightgbm": "kserve-lgbserver",
    "paddle": "kserve-paddleserver",
    "pmml": "kserve-pmmlserver",
    "pytorch": "kserve-torchserve",
    "sklearn": "kserve-sklearnserver",
    "tensorflow": "kserve-tensorflow-serving",
    "triton": "kserve-tritonserver",
    "vLLM": "kserve-vllmserver",
    "xgboost": "kserve-xgbserver",
}

#: The formats of those of them that serve more than one, or may be taken for another (config/runtimes of KServe 0.11 to 0.18).
OWN_FORMATS = {
    "kserve-huggingfaceserver": ("huggingface",),
    "kserve-mlserver": ("lightgbm", "mlflow", "sklearn", "xgboost"),
    "kserve-tensorflow-serving": ("tensorflow",),
    "kserve-torchserve": ("pytorch",),
    "kserve-tritonserver": ("onnx", "pytorch", "tensorflow", "tensorrt", "triton"),
}

#: What KServe takes of a runtime for the pod; the rest of the pod spec is the service's.
_OF_RUNTIME = (
    "nodeSelector", "affinity", "tolerations", "volumes", "imagePullSecrets", "schedulerName", "resourceClaims", "hostIPC",
)  # fmt: skip


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime that an InferenceService asks for: by name, else any that supports the format by itself."""

    name: str
    format: str
    version: str
    path: str


def wanted(raw: Json) -> Wanted | None:
    """What the predictor asks for; None for one that brings its own container."""
    model, key = _model(table(dig(raw, "spec.predictor")))
    if model is None:
        return None
    form = table(model.get("modelFormat")) if key == "model" else {"name": key}
    return Wanted(
        name=str(model.get("runtime") or ""),
        format=str(form.get("name") or ""),
        version=str(form.get("version") or ""),
        path=f"spec.predictor.{key}",
    )


def runtime_names(raw: Json) -> list[str]:
    """Runtimes that KServe may speak of when it speaks of this service: the named one, or its own for the format."""
    want = wanted(raw)
    if want is None:
        return []
    return [name for name in (want.name, _OWN_RUNTIMES.get(want.format, "")) if name]


def supports(runtime: Json, want: Wanted) -> bool:
    """Whether a runtime may serve the format: a runtime that was not named must offer itself (`autoSelect`)."""
    spec = table(runtime.get("spec"))
    if spec.get("disabled") is True:
        return False
    for form in rows(spec.get("supportedModelFormats")):
        fits = form.get("name") == want.format and want.version in ("", str(form.get("version") or ""))
        if fits and (want.name or form.get("autoSelect") is True):
            return True
    return False


def runtime_of(raw: Json, find: Finder) -> Json | None:
    """The runtime that KServe takes: by name from the namespace, then from the cluster; else the best that fits."""
    want = wanted(raw)
    if want is None:
        return None
    namespace = namespace_of(raw)
    if want.name:
        return find("ServingRuntime", namespace, want.name) or find("ClusterServingRuntime", "", want.name)
    for kind, where in (("ServingRuntime", namespace), ("ClusterServingRuntime", "")):
        listed = table(find(kind, where, ""))
        several = dig(raw, "spec.predictor.workerSpec") is not None
        fitting = [
            r
            for r in rows(listed.get("items"))
            if supports(r, want) and isinstance(dig(r, "spec.workerSpec"), dict) == several
        ]
        if fitting:
            return max(fitting, key=lambda r: _priority(r, want.format))
    return None


def _priority(runtime: Json, form: str) -> int:
    for row in rows(runtime, "spec.supportedModelFormats"):
        if row.get("name") == form and isinstance(row.get("priority"), int):
            return int(row["priority"])
    return 0


def _model(predictor: Json) -> tuple[Json | None, str]:
    for key in ("model", *FRAMEWORKS):
        if isinstance(predictor.get(key), dict):
            return predictor[key], key
    return None, ""


def inference_service(raw: Json, find: Finder) -> list[Template]:
    """The predictor, its workers on other nodes, and the transformer."""
    found = []
    predictor = table(dig(raw, "spec.predictor"))
    model, key = _model(predictor)
    if model is not None:
        found += _of_model(raw, predictor, model, key, runtime_of(raw, find))
    elif predictor.get("containers"):
        found.append(_plain(raw, "predictor"))
    found += [_plain(raw, part) for part in ("transformer", "explainer") if dig(raw, f"spec.{part}.containers")]
    return found


def _plain(raw: Json, part: str) -> Template:
    """A component whose pod spec stands in the object, as it is."""
    spec = table(dig(raw, f"spec.{part}"))
    return Template(
        raw=raw,
        pod={"metadata": {"labels": {_COMPONENT: part}}, "spec": spec},
        places=(("", f"/spec/{part}"),),
        part=part,
        labels={_COMPONENT: part},
    )


def _of_model(raw: Json, predictor: Json, model: Json, key: str, runtime: Json | None) -> list[Template]:
    workers = predictor.get("workerSpec")
    several = isinstance(workers, dict)
    sizes = _sizes(workers, dig(runtime, "spec.workerSpec")) if several else {}
    container = {k: v for k, v in model.items() if k not in _OF_MODEL}
    spec = table(dig(runtime, "spec"))
    base = next((c for c in rows(spec.get("containers")) if c.get("name") == "kserve-container"), None)
    merged, places = _merged(container, base, f"/spec/predictor/{key}", raw)
    merged = {**merged, "name": "kserve-container"}
    if sizes:
        merged["env"] = named(merged.get("env"), [{"name": k, "value": str(v)} for k, v in sizes.items()])
    sidecars = [c for c in rows(predictor.get("containers")) if c.get("name") != "kserve-container"]
    pod = _pod_of(predictor, spec, [merged, *sidecars])
    own = [i for i, c in enumerate(rows(predictor.get("containers"))) if c.get("name") != "kserve-container"]
    places = [("", "/spec/predictor"), ("/containers", ""), *places]
    places += [(f"/containers/{i + 1}", f"/spec/predictor/containers/{j}") for i, j in enumerate(own)]
    mine = len(rows(predictor.get("volumes")))
    borrowed = rows(pod.get("volumes"))[mine:]
    lender = (str((runtime or {}).get("kind")), namespace_of(runtime or {}), name_of(runtime or {}))
    places += [(f"/volumes/{mine + i}", "") for i in range(len(borrowed))]
    told: tuple[Told, ...] = ()
    if not merged.get("image"):
        told = _told_by_format(merged, str(dig(model, "modelFormat.name") or key), str(model.get("runtime") or ""))
    labels = {_COMPONENT: "predictor"}
    nodes = 1 + max(0, int(sizes.get("PIPELINE_PARALLEL_SIZE", 2)) - 1) if several else 1
    head = Template(
        raw=raw,
        pod={"metadata": {"labels": labels}, "spec": pod},
        places=tuple(places),
        part="predictor",
        labels=labels,
        nodes=nodes,
        partial=runtime is None,
        borrowed=dict.fromkeys((str(volume.get("name")) for volume in borrowed), lender),
        told=told,
    )
    if not several:
        return [head]
    return [head, _workers(raw, table(workers), table(spec.get("workerSpec")), runtime is None, nodes)]


def _workers(raw: Json, mine: Json, base: Json, partial: bool, nodes: int) -> Template:
    own = rows(mine.get("containers"))
    worker = own[0] if own else {}
    beneath = next((c for c in rows(base.get("containers")) if c.get("name") == "worker-container"), None)
    merged, places = _merged(worker, beneath, "/spec/predictor/workerSpec/containers/0", raw)
    merged = {**merged, "name": "worker-container"}
    labels = {_COMPONENT: "predictor"}
    return Template(
        raw=raw,
        pod={"metadata": {"labels": labels}, "spec": _pod_of(mine, base, [merged, *own[1:]])},
        places=(("", "/spec/predictor/workerSpec"), *places),
        part="workers",
        labels=labels,
        nodes=nodes,
        partial=partial,
    )


def _sizes(mine: Any, base: Any) -> dict[str, int]:
    """The parallel sizes that KServe hands to the containers as variables."""
    found = {}
    for field, name in (
        ("tensorParallelSize", "TENSOR_PARALLEL_SIZE"),
        ("pipelineParallelSize", "PIPELINE_PARALLEL_SIZE"),
    ):
        size = next((s for tree in (mine, base) if isinstance(s := table(tree).get(field), int)), None)
        if size is not None:
            found[name] = size
    return found


def _merged(mine: Json, base: Json | None, at: str, raw: Json) -> tuple[Json, list[tuple[str, str]]]:
    """A container of the service on that of the runtime, and where its fields are edited."""
    places = [("/containers/0", at)]
    if base is None:
        return mine, places
    merged = {**base, **mine}
    for key in ("env", "volumeMounts", "ports", "envFrom"):
        if mine.get(key) or base.get(key):
            merged[key] = (
                named(mine.get(key), base.get(key))
                if key != "envFrom"
                else [*rows(mine.get(key)), *rows(base.get(key))]
            )
    if isinstance(mine.get("resources"), dict) and isinstance(base.get("resources"), dict):
        both = {**base["resources"], **mine["resources"]}
        for kind in ("limits", "requests"):
            if kind in both:
                both[kind] = {**table(base["resources"].get(kind)), **table(mine["resources"].get(kind))}
        merged["resources"] = both
    before = words_of(base.get("args"))
    after = words_of(mine.get("args"))
    merged["args"] = [filled(word, raw) for word in before] + after
    if isinstance(base.get("command"), list) and "command" not in mine:
        merged["command"] = [filled(word, raw) for word in words_of(base["command"])]
        places.append(("/containers/0/command", ""))
    merged["env"] = [
        {**v, "value": filled(v["value"], raw)} if isinstance(v.get("value"), str) else v
        for v in rows(merged.get("env"))
    ]
    if before:
        places += [("/containers/0/args", ""), ("/containers/0/args/-", f"{at}/args/-")]
        places += [(f"/containers/0/args/{len(before) + i}", f"{at}/args/{i}") for i in range(len(after))]
    return merged, places


def _pod_of(mine: Json, base: Json, containers: list[Json]) -> Json:
    """A pod spec of the service with what KServe takes of the runtime."""
    fields = ("minReplicas", "maxReplicas", "model", "workerSpec", "containers", *FRAMEWORKS)
    pod = {key: value for key, value in mine.items() if key not in fields}
    for key in _OF_RUNTIME:
        if key in ("volumes", "imagePullSecrets", "resourceClaims"):
            if both := named(pod.get(key), base.get(key)):
                pod[key] = both
        elif key not in pod and base.get(key) is not None:
            pod[key] = base[key]
    pod["containers"] = containers
    return pod


def _told_by_format(container: Json, form: str, runtime: str) -> tuple[Told, ...]:
    """The server of a runtime that is not here, where the format leaves no doubt."""
    image = _SERVERS.get(form.lower(), "")
    if not image or (runtime and form.lower() not in runtime.lower() and image != "vllm"):
        return ()
    args = words_of(container.get("args"))
    argv = ("vllm", "serve", *args) if image == "vllm" else tuple(args)
    skip = 2 if image == "vllm" else 0
    return (
        Told(
            container=str(container.get("name") or ""),
            argv=argv,
            skip=skip,
            texts=tuple(args),
            places=tuple(f"spec.predictor.model.args[{i}]" for i in range(len(args))),
            path="spec.predictor.model.args",
            image="" if image == "vllm" else image,
        ),
    )


# --- LLMInferenceService ------------------------------------------------------------------------------------------------

_Part = tuple[str, str, tuple[str, ...]]

#: Parts of an LLMInferenceService: where the pod spec stands, and the components that the labels of its pods name.
_PARTS: tuple[_Part, ...] = (
    ("template", "workload", ("llminferenceservice-workload", "llminferenceservice-workload-leader")),
    ("worker", "worker", ("llminferenceservice-workload-worker",)),
)
_PREFILL: tuple[_Part, ...] = (
    ("template", "prefill", ("llminferenceservice-workload-prefill", "llminferenceservice-workload-leader-prefill")),
    ("worker", "prefill worker", ("llminferenceservice-workload-worker-prefill",)),
)

#: The preset's image, whose tag depends on the release of KServe.
_PRESET_IMAGE = "ghcr.io/llm-d/llm-d-cuda"


def llm_inference_service(raw: Json, find: Finder) -> list[Template]:
    """The servers: decode (or both) and prefill, each with its workers on other nodes."""
    spec = table(raw.get("spec"))
    bases = _bases(raw, find)
    # the proxy of what decodes has the port that is asked
    port = 8001 if any(isinstance(one.get("prefill"), dict) for one in (spec, *bases)) else _PORT
    found = [t for t in (_llm(raw, spec, "/spec", part, bases, port) for part in _PARTS) if t]
    if isinstance(spec.get("prefill"), dict):
        inside = [table(b.get("prefill")) for b in bases]
        found += [t for t in (_llm(raw, spec["prefill"], "/spec/prefill", p, inside, _PORT) for p in _PREFILL) if t]
    return found


def _bases(raw: Json, find: Finder) -> list[Json]:
    """The specs of the configurations that it names, the last one first, as later ones win."""
    found = []
    for ref in reversed(rows(raw, "spec.baseRefs")):
        name = str(ref.get("name") or "")
        config = find("LLMInferenceServiceConfig", namespace_of(raw), name)
        if config is not None:
            found.append(table(config.get("spec")))
    return found


def _llm(raw: Json, spec: Json, at: str, which: _Part, bases: list[Json], port: int) -> Template | None:
    field, part, components = which
    mine = spec.get(field)
    beneath = [table(b.get(field)) for b in bases if isinstance(b.get(field), dict)]
    if not isinstance(mine, dict) and field == "worker":
        return None
    pod = dict(table(mine))
    for base in beneath:
        containers = [
            {**next((b for b in rows(base.get("containers")) if b.get("name") == c.get("name")), {}), **c}
            for c in rows(pod.get("containers"))
        ]
        pod = {**base, **pod, "containers": named(containers, base.get("containers"))}
        pod["volumes"] = named(table(mine).get("volumes"), base.get("volumes"))
    containers = rows(pod.get("containers"))
    index = next((i for i, c in enumerate(containers) if c.get("name") == "main"), None)
    if index is None:
        containers, index = [{"name": "main"}, *containers], 0
        places = [("", f"{at}/{field}"), ("/containers", "")]
        places += [(f"/containers/{i + 1}", f"{at}/{field}/containers/{i}") for i in range(len(containers) - 1)]
    else:
        places = [("", f"{at}/{field}")]
    main = dict(containers[index])
    preset = not main.get("command")
    told: tuple[Told, ...] = ()
    if preset and _is_script(main):
        main["command"] = ["/bin/bash", "-c"]
        places.append((f"/containers/{index}/command", ""))
    elif preset:
        told = (_vllm(raw, spec, main, f"{places[0][1]}/containers/{index}", at, port),)
    containers[index] = main
    pod = with_shm({**pod, "containers": containers}, index, "1Gi") if preset else {**pod, "containers": containers}
    if preset and port != _PORT:
        pod["initContainers"] = named(pod.get("initContainers"), [_PROXY])
    parallel = table(spec.get("parallelism"))
    labels = {"app.kubernetes.io/component": "|".join(components)}
    return Template(
        raw=raw,
        pod={"metadata": {"labels": table(spec.get("labels"))}, "spec": pod},
        places=tuple(places),
        part=part,
        labels=labels,
        nodes=None if isinstance(spec.get("worker"), dict) or parallel.get("pipeline") or parallel.get("data") else 1,
        partial=True,
        told=told,
    )


def _written(words: Sequence[str]) -> Iterator[str]:
    """Each word as it is quoted: an option together with the value behind it."""
    for word, after in pairwise([*words, "-"]):
        yield f"{word} {after}" if word.startswith("--") and "=" not in word and not after.startswith("-") else word


def _is_script(main: Json) -> bool:
    """Whether the one argument is a whole command line: the preset of 0.15 and 0.16 hands its `args` to `/bin/bash -c`."""
    words = words_of(main.get("args"))
    return len(words) == 1 and re.match(r"\s{0,20}(?:exec )?(?:\S{0,100}/)?(?:python3?|vllm)\s", words[0]) is not None


def _vllm(raw: Json, spec: Json, main: Json, place: str, at: str, port: int) -> Told:
    """What the preset starts: vLLM on the model's folder, with the parallel sizes, the variable and the arguments."""
    import shlex

    path = ".".join(filter(None, place.split("/")))
    argv, texts, places = ["vllm", "serve"], list[str](), list[str]()

    def add(word: str, text: str, where: str) -> None:
        argv.append(word)
        texts.append(text)
        places.append(where)

    add("/mnt/models", f"uri: {dig(raw, 'spec.model.uri')}", "spec.model.uri")
    model = dig(raw, "spec.model.name")
    if isinstance(model, str):
        add(f"--served-model-name={model}", f"name: {model}", "spec.model.name")
    add(f"--port={port}", f"port {port}", "the preset of KServe")
    for field in ("tensor", "pipeline", "data"):
        size = dig(spec, f"parallelism.{field}")
        if isinstance(size, int):
            where = f"{at.strip('/').replace('/', '.')}.parallelism.{field}"
            add(f"--{field}-parallel-size={size}", f"{field}: {size}", where)
    variable = next((v for v in rows(main.get("env")) if v.get("name") == "VLLM_ADDITIONAL_ARGS"), {})
    if isinstance(variable.get("value"), str):
        try:
            extra = shlex.split(variable["value"])
        except ValueError:
            extra = []
        for word, text in zip(extra, _written(extra), strict=True):
            add(word, text, f"{path}.env[VLLM_ADDITIONAL_ARGS]")
    own = words_of(main.get("args"))
    for i, (word, text) in enumerate(zip(own, _written(own), strict=True)):
        add(word, text, f"{path}.args[{i}]")
    return Told(
        container="main",
        argv=tuple(argv),
        skip=2,
        texts=tuple(texts),
        places=tuple(places),
        path=f"{path}.env[VLLM_ADDITIONAL_ARGS]",
        image=str(main.get("image") or _PRESET_IMAGE),
    )

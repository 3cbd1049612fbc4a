"""KubeRay: RayCluster, RayService, RayJob, and AIBrix' fleets of Ray clusters.

KubeRay (ray-operator/controllers/ray/common/pod.go, 1.4 to 1.6) starts `ray start` in the first container of each pod,
after what its own command says; mounts memory at /dev/shm unless something is there or the plasma directory is set; and
gives it probes that ask the raylet. A RayService then deploys what `serveConfigV2` says: with Ray Serve LLM
(`ray.serve.llm`, Ray 2.43 on) an `LLMConfig` per model, whose `engine_kwargs` are vLLM's engine arguments.
"""

from __future__ import annotations

import re
from typing import Any

from kubectl_llmdoctor.platforms.labels import RAY_NODE_TYPE
from kubectl_llmdoctor.tree import dig, numbered, rows, say, table, words
from kubectl_llmdoctor.yamltext import load_yaml

from .pointer import Json
from .template import Finder, Template, Told, with_shm

#: The variables of the vLLM applications that Ray's and GKE's examples deploy, and the flags that they become.
_VARIABLES = {
    "MODEL_ID": "--model",
    "TENSOR_PARALLELISM": "--tensor-parallel-size",
    "PIPELINE_PARALLELISM": "--pipeline-parallel-size",
    "MAX_MODEL_LEN": "--max-model-len",
    "DTYPE": "--dtype",
    "TOKENIZER_MODE": "--tokenizer-mode",
    "MAX_NUM_SEQS": "--max-num-seqs",
    "GPU_MEMORY_UTILIZATION": "--gpu-memory-utilization",
    "QUANTIZATION": "--quantization",
}

#: How Ray names the engines that it may run; vLLM where an LLMConfig does not say.
_ENGINES = {"vllm": ("vllm", "serve"), "sglang": ("sglang", "serve")}

_RAYLET = "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
_OVERWRITE = "ray.io/overwrite-container-cmd"


def ray_cluster(raw: Json, _find: Finder) -> list[Template]:
    """The head and the worker groups."""
    return _groups(raw, "/spec")


def ray_service(raw: Json, _find: Finder) -> list[Template]:
    """The head and the worker groups, with the engines of `serveConfigV2` in the pods that have the GPUs."""
    found = _groups(raw, "/spec/rayClusterConfig")
    engines = _serve_engines(dig(raw, "spec.serveConfigV2"))
    if not engines or not found:
        return found
    host = next((t for t in found if _has_gpu(t)), found[1] if len(found) > 1 else found[0])
    name = str(dig(_first(host), "name") or "")
    told = tuple(_told(name, *engine) for engine in engines)
    return [_with_told(t, told) if t is host else t for t in found]


def ray_job(raw: Json, _find: Finder) -> list[Template]:
    """The head and the worker groups; a job on a cluster that exists has none."""
    return _groups(raw, "/spec/rayClusterSpec")


def ray_cluster_fleet(raw: Json, _find: Finder) -> list[Template]:
    """AIBrix: the cluster that each replica of a fleet is."""
    return _groups(raw, "/spec/template/spec", table(dig(raw, "spec.template.metadata")))


def _groups(raw: Json, base: str, cluster: Json | None = None) -> list[Template]:
    """The templates of a cluster; its metadata, or where it is made of another object, what that gives it as such."""
    spec = dig(raw, base.strip("/").replace("/", "."))
    given = table((cluster if cluster is not None else table(raw.get("metadata"))).get("annotations"))
    own = str(given.get(_OVERWRITE, "")).lower() == "true"
    found = []
    head = dig(spec, "headGroupSpec")
    if isinstance(head, dict):
        found.append(_template(raw, head, f"{base}/headGroupSpec", "head", {RAY_NODE_TYPE: "head"}, own))
    for index, group in numbered(spec, "workerGroupSpecs"):
        name = str(group.get("groupName") or index)
        labels = {RAY_NODE_TYPE: "worker", "ray.io/group": name}
        found.append(_template(raw, group, f"{base}/workerGroupSpecs/{index}", f"workers {name}", labels, own))
    return found


def _template(raw: Json, group: Json, base: str, part: str, labels: dict[str, str], own: bool) -> Template:
    """The pods of one group; `own`: its containers keep their own commands."""
    pod, parameters = table(group.get("template")), table(group.get("rayStartParams"))
    meta, spec = table(pod.get("metadata")), table(pod.get("spec"))
    places = [("", f"{base}/template/spec")]
    containers = rows(spec.get("containers"))
    if containers:
        first = containers[0]
        mine = [*words(first.get("command")), *words(first.get("args"))]
        kept = own or str(table(meta.get("annotations")).get(_OVERWRITE, "")).lower() == "true"
        if not kept and not any("ray start" in word for word in mine):
            start = "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; ray start"
            script = " ".join(mine) + f" && {start}" if mine else start
            first = {**first, "command": ["/bin/bash", "-c", "--"], "args": [script]}
            places += [("/containers/0/command", ""), ("/containers/0/args", "")]
        probe = {"exec": {"command": ["bash", "-c", _RAYLET]}, "timeoutSeconds": 2, "periodSeconds": 5}
        for name, delay, failures in (("livenessProbe", 30, 120), ("readinessProbe", 10, 10)):
            if not isinstance(first.get(name), dict):
                first = {**first, name: {**probe, "initialDelaySeconds": delay, "failureThreshold": failures}}
        spec = {**spec, "containers": [first, *containers[1:]]}
        if "plasma-directory" not in parameters:
            limit = dig(first, "resources.requests.memory") or dig(first, "resources.limits.memory")
            spec = with_shm(spec, 0, limit, "shared-mem")
    merged = {**pod, "metadata": {**meta, "labels": {**table(meta.get("labels")), **labels}}, "spec": spec}
    return Template(raw=raw, pod=merged, places=tuple(places), part=part, labels=labels, nodes=None)


def _first(template: Template) -> Json:
    return next(iter(rows(template.pod, "spec.containers")), {})


def _has_gpu(template: Template) -> bool:
    tables = [table(dig(_first(template), f"resources.{key}")) for key in ("limits", "requests")]
    return any("/" in name and str(count) not in ("0", "") for rs in tables for name, count in rs.items())


def _with_told(template: Template, told: tuple[Told, ...]) -> Template:
    import msgspec

    return msgspec.structs.replace(template, told=told)


#: One engine: its program, each argument with the words of the object and their place, where they stand, and its package.
_Launch = tuple[tuple[str, ...], list[tuple[str, str, str]], str]
_Engine = tuple[tuple[str, ...], list[tuple[str, str, str]], str, str]


def _serve_engines(text: Any) -> list[_Engine]:
    """The engines that a Serve configuration deploys."""
    if not isinstance(text, str) or not text.strip():
        return []
    tree = load_yaml(text)
    found: list[_Engine] = []
    for index, app in enumerate(rows(tree, "applications")):
        base = f"spec.serveConfigV2.applications[{app.get('name') or index}]"
        own = _llm_configs(table(app.get("args")), f"{base}.args") or _of_variables(app, base)
        found += [(program, arguments, path, _package(app, program[0])) for program, arguments, path in own]
    return found


def _package(app: Json, name: str) -> str:
    """The release of the engine that an application's environment installs: `pip: [vllm==0.6.3]`."""
    pip = dig(app, "runtime_env.pip")
    pinned = rf"{name}(?:\[[\w,]{{1,40}}\])? ?== ?(\d[\w.]{{0,40}})(?=[+;,\s]|$)"
    found = (re.match(pinned, text) for text in words(pip) or words(pip, "packages"))
    return next((f"{name}=={one[1]}" for one in found if one), "")


def _llm_configs(args: Json, base: str) -> list[_Launch]:
    """Ray Serve LLM: `llm_configs`, or one configuration each for prefill and decode."""
    listed = [(f"{base}.llm_configs[{i}]", c) for i, c in enumerate(rows(args.get("llm_configs")))]
    listed += [(f"{base}.{k}", args[k]) for k in ("prefill_config", "decode_config") if isinstance(args.get(k), dict)]
    found: list[_Launch] = []
    for path, config in listed:
        engine = str(config.get("llm_engine") or "vllm").lower()
        if engine not in _ENGINES:
            continue
        loading = table(config.get("model_loading_config"))
        model = loading.get("model_source") or loading.get("model_id")
        arguments: list[tuple[str, str, str]] = []
        if isinstance(model, str):
            key = "model_source" if loading.get("model_source") else "model_id"
            flag = "--model-path" if engine == "sglang" else "--model"
            arguments.append((f"{flag}={model}", f"{key}: {model}", f"{path}.model_loading_config.{key}"))
        if isinstance(loading.get("model_id"), str):
            name = loading["model_id"]
            place = f"{path}.model_loading_config.model_id"
            arguments.append((f"--served-model-name={name}", f"model_id: {name}", place))
        for key, value in table(config.get("engine_kwargs")).items():
            word = _word(str(key), value)
            if word:
                arguments.append((word, f"{key}: {_said(value)}", f"{path}.engine_kwargs.{key}"))
        found.append((_ENGINES[engine], arguments, f"{path}.engine_kwargs"))
    return found


def _of_variables(app: Json, base: str) -> list[_Launch]:
    """An application of one's own that is named after vLLM: its variables, where they are those of the examples."""
    names = [str(d.get("name")) for d in rows(app.get("deployments"))]
    if not any("vllm" in text.lower() for text in (*names, str(app.get("import_path") or ""))):
        return []
    variables = table(dig(app, "runtime_env.env_vars"))
    path = f"{base}.runtime_env.env_vars"
    arguments = [
        (f"{_VARIABLES[key]}={say(value)}", f"{key}: {say(value)}", f"{path}.{key}")
        for key, value in variables.items()
        if key in _VARIABLES and not isinstance(value, dict | list) and not say(value).startswith("$") and say(value)
    ]
    return [(_ENGINES["vllm"], arguments, path)]


def _word(key: str, value: Any) -> str:
    """A keyword argument of the engine as its command line has it; empty for one that changes nothing."""
    flag = "--" + key.replace("_", "-")
    if value is None:
        return ""
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    return f"{flag}={_said(value)}"


def _said(value: Any) -> str:
    if not isinstance(value, dict | list):
        return say(value)
    import json  # dearer than this module, and few values are objects

    return json.dumps(value)


def _told(
    container: str, program: tuple[str, ...], arguments: list[tuple[str, str, str]], path: str, package: str = ""
) -> Told:
    return Told(
        package=package,
        container=container,
        argv=(*program, *(word for word, _, _ in arguments)),
        skip=len(program),
        texts=tuple(text for _, text, _ in arguments),
        places=tuple(place for _, _, place in arguments),
        path=path,
    )


def clusters_made(raw: Json) -> list[str]:
    """Names of the clusters that a RayService or RayJob has made."""
    places = ("status", "status.activeServiceStatus", "status.pendingServiceStatus")
    return [str(name) for at in places if (name := dig(raw, f"{at}.rayClusterName"))]

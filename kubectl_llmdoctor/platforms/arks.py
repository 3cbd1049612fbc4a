"""Arks: ArksApplication and ArksDisaggregatedApplication (scitix/arks api/v1, internal/controller/arks*application_controller.go).

It becomes a LeaderWorkerSet, or a RoleBasedGroupSet: `size` pods of one server, whose model lies on the claim of an
ArksModel. The operator adds no shared memory and no probes. A worker of vLLM starts Ray alone, one of SGLang the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kubectl_llmdoctor.tree import dig, rows, table, words

from .built import Args
from .pointer import Json
from .template import Claim, Finder, Template, name_of, namespace_of

#: Of each runtime: how it is started, the option for the model, the one for its parallel size, the image without a tag,
#: as the operator's settings may name another.
_RUNTIMES: dict[str, tuple[str, str, str, str]] = {
    "vllm": ("vllm.entrypoints.openai.api_server", "--model", "--tensor-parallel-size", "vllm/vllm-openai"),
    "sglang": ("sglang.launch_server", "--model-path", "--tp", "lmsysorg/sglang"),
}
_RAY = "/vllm-workspace/examples/online_serving/multi-node-serving.sh"
_PORT = 8080

#: Fields of `instanceSpec` that are a pod's; `podSecurityContext` is its `securityContext`.
_OF_POD = (
    *("affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases"),
    *("hostIPC", "hostNetwork", "hostPID", "initContainers", "nodeName", "nodeSelector", "priorityClassName"),
    *("resourceClaims", "runtimeClassName", "schedulerName", "serviceAccountName", "shareProcessNamespace"),
    *("terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints"),
)
_OF_CONTAINER = ("env", "resources", "readinessProbe", "livenessProbe")
_AT = "/spec/instanceSpec"


def application(raw: Json, find: Finder) -> list[Template]:
    """The leader, and the workers where one server takes several pods."""
    spec = table(raw.get("spec"))
    runtime = str(spec.get("runtime") or "vllm")
    if runtime not in _RUNTIMES:
        return []
    nodes, parts = _parts(spec)
    return [_template(raw, spec, runtime, part, nodes, find) for part in parts]


def _parts(workload: Json) -> tuple[int, Sequence[str]]:
    """The pods that one server takes, and what they are."""
    size = workload.get("size")
    return (size, ("leader", "worker")) if isinstance(size, int) and size > 1 else (1, ("leader",))


def _template(raw: Json, spec: Json, runtime: str, part: str, nodes: int, find: Finder) -> Template:
    container: Json = {"name": part, "image": str(spec.get("runtimeImage") or _RUNTIMES[runtime][3])}
    places = [("", ""), ("/containers/0/image", "/spec/runtimeImage")]
    if runtime == "vllm" and part == "worker":
        container["command"] = ["/bin/bash", "-c", f"/bin/bash {_RAY} worker --ray_address=$(LWS_LEADER_ADDRESS)"]
    else:
        args = _arguments(raw, spec, runtime, nodes, find)
        container |= {"command": ["python3", "-m", _RUNTIMES[runtime][0]], "args": args.words}
        places += args.places
    labels = {"arks.ai/work-load-role": part}
    return _made(raw, spec, _AT, container, places, labels, part if nodes > 1 else "", nodes, find)


def _claims(model: Json) -> Iterator[Claim]:
    """The claim that an ArksModel makes, to which a pod of its own downloads the model."""
    stated, hub = table(dig(model, "spec.storage.pvc")), str(dig(model, "spec.model") or "")
    if stated and isinstance(dig(model, "spec.source.huggingface"), dict):
        size = "/spec/storage/pvc/spec/resources/requests/storage"
        yield Claim(
            name=str(stated.get("name") or "models"), spec=table(stated.get("spec")), raw=model, pointer=size, model=hub
        )


def disaggregated(raw: Json, find: Finder) -> list[Template]:
    """The servers that compute prompts, and those that answer; the router before them is no engine.

    Only SGLang is supported, and the default. Each group of `size` pods has a leader, which takes requests, and workers
    besides. A command of the object's own finds the operator's in a variable.
    """
    spec = table(raw.get("spec"))
    if str(spec.get("runtime") or "sglang") != "sglang":
        return []
    found = []
    for role in ("prefill", "decode"):
        workload = table(spec.get(role))
        nodes, parts = _parts(workload)
        found += [_member(raw, spec, workload, role, part, nodes, find) for part in parts]
    return found


def _member(raw: Json, spec: Json, workload: Json, role: str, part: str, nodes: int, find: Finder) -> Template:
    container: Json = {"name": "main", "image": str(spec.get("runtimeImage") or _RUNTIMES["sglang"][3])}
    places = [("", ""), ("/containers/0/image", "/spec/runtimeImage")]
    own = workload.get(f"{part}CommandOverride")
    if isinstance(own, list) and own:
        container["command"] = own
        places.append(("/containers/0/command", f"/spec/{role}/{part}CommandOverride"))
    else:
        args = _member_arguments(raw, spec, workload, role, part, find)
        container |= {"command": ["python3", "-m", _RUNTIMES["sglang"][0]], "args": args.words}
        places += args.places
    labels = {"arks.ai/disaggregation-role": role, "arks.ai/work-load-role": part}
    name = role if nodes == 1 else f"{role} {part}"
    return _made(raw, spec, f"/spec/{role}/instanceSpec", container, places, labels, name, nodes, find)


def _member_arguments(raw: Json, spec: Json, workload: Json, role: str, part: str, find: Finder) -> Args:
    """What the operator writes into one line of a shell, as words: what is added there may stand in several of them."""
    args = Args()
    args.words += ["--dist-init-addr", "$(LWS_LEADER_ADDRESS):20000", "--nnodes", "$(LWS_GROUP_SIZE)"]
    args.words += ["--node-rank", "$(LWS_WORKER_INDEX)", "--trust-remote-code"]
    if part == "leader":
        args.words += ["--host", "0.0.0.0", "--port", str(_PORT)]  # noqa: S104 (what the operator does)
    common = words(workload.get("runtimeCommonArgs"))
    given = " ".join(common)
    for index, text in enumerate(common):
        if len(text.split()) == 1:
            args.places.append((f"/containers/0/args/{len(args.words)}", f"/spec/{role}/runtimeCommonArgs/{index}"))
        args.words += text.split()
    args.places.append(("/containers/0/args/-", f"/spec/{role}/runtimeCommonArgs/-"))
    name = str(dig(spec, "model.name") or "")
    for flag, value in (
        ("--model-path", f"/models/{_inside(raw, spec, find)}"),
        ("--served-model-name", spec.get("servedModelName") or name),
        ("--disaggregation-mode", role),
    ):
        if flag not in given:
            args.words += [flag, str(value)]
    if "--enable-metrics" not in given:
        args.words.append("--enable-metrics")
    return args


def _made(
    raw: Json,
    spec: Json,
    at: str,
    container: Json,
    places: list[tuple[str, str]],
    labels: dict[str, str],
    part: str,
    nodes: int,
    find: Finder,
) -> Template:
    """The template of one container by the object's `instanceSpec`, which stands at `at`; its places are added."""
    base, leads = at.strip("/").replace("/", "."), labels["arks.ai/work-load-role"] == "leader"
    instance, model = table(dig(raw, base)), _model(raw, spec, find)
    for field in _OF_CONTAINER if leads else _OF_CONTAINER[:2]:
        if field in instance:
            container[field] = instance[field]
        places.append((f"/containers/0/{field}", f"{at}/{field}"))
    pod = {field: instance[field] for field in _OF_POD if field in instance}
    places += [(f"/{field}", f"{at}/{field}") for field in _OF_POD]
    if isinstance(instance.get("podSecurityContext"), dict):
        pod["securityContext"] = instance["podSecurityContext"]
    places.append(("/securityContext", f"{at}/podSecurityContext"))
    # what the object states stands first, so that the places of its volumes stay those of the object
    name = dig(model, "spec.storage.pvc.name")
    claim = [{"name": "models", "persistentVolumeClaim": {"claimName": str(name or "models")}}]
    mount: Json = {"name": "models", "mountPath": "/models", "readOnly": True}
    container["volumeMounts"] = [*rows(instance.get("volumeMounts")), mount]
    container["ports"] = [{"containerPort": _PORT}] if leads else []
    pod |= {"containers": [container], "volumes": [*rows(instance.get("volumes")), *claim]}
    places += [("/volumes", f"{at}/volumes"), ("/containers/0/volumeMounts", f"{at}/volumeMounts")]
    every = {**table(instance.get("labels")), "arks.ai/application": name_of(raw), **labels}
    return Template(
        raw=raw,
        pod={"metadata": {"labels": every}, "spec": pod},
        places=tuple(places),
        part=part,
        base=base,
        labels=labels,
        nodes=nodes,
        claims=tuple(_claims(model)),
    )


def _model(raw: Json, spec: Json, find: Finder) -> Json:
    return table(find("ArksModel", namespace_of(raw), str(dig(spec, "model.name") or "")))


def _inside(raw: Json, spec: Json, find: Finder) -> str:
    """Where on the claim the model lies."""
    stated = dig(_model(raw, spec, find), "spec.storage.subPath")
    return str(stated or f"models/{namespace_of(raw)}/{dig(spec, 'model.name') or ''}")


def _arguments(raw: Json, spec: Json, runtime: str, nodes: int, find: Finder) -> Args:
    _, model_option, parallel, _ = _RUNTIMES[runtime]
    name = str(dig(spec, "model.name") or "")
    inside = _inside(raw, spec, find)
    args = Args()
    args.words += ["--port", str(_PORT)]
    if runtime == "sglang":
        args.words += ["--host", "0.0.0.0", "--trust-remote-code"]  # noqa: S104 (what the operator does)
        if nodes > 1:
            args.words += ["--nnodes", str(nodes), "--dist-init-addr", "$(LWS_LEADER_ADDRESS):20000"]
    args.add(model_option, f"/models/{inside}", "/spec/model/name")
    args.add("--served-model-name", spec.get("servedModelName") or name, "/spec/servedModelName")
    args.add(parallel, spec.get("tensorParallelSize"), "/spec/tensorParallelSize")
    args.rest(*_extra(spec))
    return args


def _extra(spec: Json) -> tuple[Any, str]:
    """The arguments of the object's own, and where they stand; the field had another name in the first releases."""
    field = next((f for f in ("runtimeCommonArgs", "extraOptions") if f in spec), "runtimeCommonArgs")
    return spec.get(field), f"/spec/{field}"

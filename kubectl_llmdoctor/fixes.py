"""Fixes that can be pasted: a patch of the object that a person edits, as value and as command.

Arguments are changed by JSON patches that touch one element: what stands beside it may be masked here and must survive.
"""

from __future__ import annotations

import shlex
from typing import Any, Literal

import msgspec

from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.pod import Container, Pod
from kubectl_llmdoctor.facts.subject import workload_of
from kubectl_llmdoctor.facts.workload import TEMPLATES, Workload
from kubectl_llmdoctor.report.document import Fix, Patch

Owner = Literal["model", "platform"]


def edited(pod: Pod) -> str:
    """The object that a person edits: `Deployment/llama`, or `Pod/llama` for a bare pod."""
    workload = workload_of(pod)
    return workload.ref if workload else f"Pod/{pod.name}"


def advice(summary: str, *commands: str, owner: Owner = "model") -> Fix:
    """A fix without a patch."""
    return Fix(summary=summary, owner=owner, commands=commands)


def patch(pod: Pod, summary: str, operations: list[dict[str, Any]], *, owner: Owner = "model") -> Fix:
    """A JSON patch of the pod's template; `operations` have paths inside the pod spec.

    Without an editable template (a bare pod, an operator's own kind) the summary stands alone and names the object.
    """
    workload, path = _template(pod)
    if workload is None and not pod.exists and pod.item:  # a Pod in a manifest is edited there
        body = [{**op, "path": "/spec" + op["path"]} for op in operations]
        target = f"{pod.item.api_version} Pod/{pod.name}"
        return Fix(summary=summary, owner=owner, patch=Patch(target=target, type="json", body=body))
    if workload is None or path is None:
        where = workload.ref if workload else f"Pod/{pod.name}, which must be deleted and made anew"
        return Fix(summary=f"{summary} (in {where})", owner=owner)
    prefix = "/" + f"{path}.spec".lstrip(".").replace(".", "/")
    body = [{**op, "path": prefix + op["path"]} for op in operations]
    if workload.by_helm:
        summary += " (Helm manages it: change the release's values too, or the next upgrade undoes this)"
    return Fix(
        summary=summary,
        owner=owner,
        commands=(_command(workload, body),),
        patch=Patch(target=f"{workload.api_version} {workload.ref}", type="json", body=body),
    )


def _template(pod: Pod) -> tuple[Workload | None, str | None]:
    """The object to edit, and the path of the template that this pod came from."""
    workload = workload_of(pod)
    if workload is None or workload.kind in ("Job", "Revision"):  # their templates cannot be changed
        return workload, None
    paths = TEMPLATES.get(workload.item.kind, ())
    if workload.kind == "LeaderWorkerSet":
        index = str(pod.obj.metadata.labels.get("leaderworkerset.sigs.k8s.io/worker-index", "0"))
        have = {path for path, _ in workload.templates}
        wanted = [p for p in paths if p.endswith("leaderTemplate") == (index == "0") and p in have]
        return workload, next(iter(wanted or [p for p in paths if p in have]), None)
    if paths and any(t.spec.containers for _, t in workload.templates):
        return workload, paths[0]
    return workload, None


def _command(workload: Workload, body: list[dict[str, Any]]) -> str:
    kind = workload.kind.lower()
    group = workload.api_version.rpartition("/")[0]
    name = f"{kind}.{group}/{workload.name}" if "." in group else f"{kind}/{workload.name}"
    document = msgspec.json.encode(body).decode()
    return f"kubectl -n {shlex.quote(workload.namespace)} patch {name} --type=json -p {shlex.quote(document)}"


def _at(container: Container) -> str:
    return f"/{'containers' if container.role == 'main' else 'initContainers'}/{container.index}"


def set_flag(engine: Engine, name: str, flag: str, value: str, summary: str) -> Fix:
    """Set a flag of the engine: replaces the element that has it, else appends to `args`.

    Gives advice only when the arguments stand in a script, in the image's entrypoint or in a ConfigMap.
    """
    container = engine.container
    spec, at = container.spec, _at(container)
    current = engine.explicit(name)
    words = [str(a) for a in spec.args]
    if current is None:
        if words and engine.found.argv_known and not _script(container):
            operations = [{"op": "add", "path": f"{at}/args/-", "value": f"{flag}={value}"}]
            return patch(container.pod, summary, operations)
        if not words and not spec.command and spec.image:
            return patch(container.pod, summary, [{"op": "add", "path": f"{at}/args", "value": [f"{flag}={value}"]}])
        return advice(f"{summary}: {flag} {value}, in {edited(container.pod)}")
    index = _index(current.path)
    if current.source == "flag" and index is not None and not _script(container) and ".args[" in current.path:
        if words[index].startswith("-") and "=" not in words[index]:
            if index + 1 >= len(words):
                return advice(f"{summary}: {flag} {value}, in {edited(container.pod)}")
            operation = {"op": "replace", "path": f"{at}/args/{index + 1}", "value": value}
        elif words[index].startswith("-"):
            given = words[index].partition("=")[0]
            operation = {"op": "replace", "path": f"{at}/args/{index}", "value": f"{given}={value}"}
        else:
            operation = {"op": "replace", "path": f"{at}/args/{index}", "value": value}
        return patch(container.pod, summary, [operation])
    return advice(f"{summary}: {flag} {value} instead of {current.text}, in {edited(container.pod)}")


def _script(container: Container) -> bool:
    """Whether the arguments are a shell script rather than a vector."""
    words = [str(w) for w in (*container.spec.command, *container.spec.args)]
    return any(w in ("-c", "-lc", "-ec", "-exc", "-xc") for w in words[:4]) or any("\n" in w for w in words)


def _index(path: str) -> int | None:
    tail = path.rpartition("[")[2].rstrip("]")
    return int(tail) if tail.isdigit() else None


def remove_env(container: Container, name: str, summary: str) -> Fix:
    """Remove an environment variable of the container's own `env` list."""
    index = next((i for i, v in enumerate(container.spec.env) if v.name == name), None)
    if index is None:
        return advice(f"{summary} (it comes from a ConfigMap or Secret of {edited(container.pod)})")
    return patch(container.pod, summary, [{"op": "remove", "path": f"{_at(container)}/env/{index}"}])


def set_resource(container: Container, kind: str, resource: str, value: str, summary: str) -> Fix:
    """Set a request or limit (`kind` is `requests` or `limits`).

    An extended resource that stands in both is set in both: the API server refuses a request that differs from its limit.
    """
    at, key = _at(container), resource.replace("~", "~0").replace("/", "~1")
    resources = container.spec.resources
    tables = {"requests": resources.requests, "limits": resources.limits}
    kinds = [k for k in ("limits", "requests") if k == kind or ("/" in resource and resource in tables[k])]
    if not resources.requests and not resources.limits:
        return patch(
            container.pod, summary, [{"op": "add", "path": f"{at}/resources", "value": {kind: {resource: value}}}]
        )
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": f"{at}/resources/{k}/{key}", "value": value}
        if tables[k]
        else {"op": "add", "path": f"{at}/resources/{k}", "value": {resource: value}}
        for k in kinds
    ]
    return patch(container.pod, summary, operations)


def set_image(container: Container, image: str, summary: str) -> Fix:
    """Set the image of a container."""
    return patch(container.pod, summary, [{"op": "replace", "path": f"{_at(container)}/image", "value": image}])


def set_spec(pod: Pod, path: str, value: Any, summary: str, *, owner: Owner = "model") -> Fix:
    """Set a field of the pod spec; `path` is a JSON pointer inside it, such as `/enableServiceLinks`."""
    return patch(pod, summary, [{"op": "add", "path": path, "value": value}], owner=owner)


def set_probe(container: Container, probe: str, value: dict[str, Any], summary: str) -> Fix:
    """Set a probe (`startupProbe`, `livenessProbe`, `readinessProbe`) as a whole."""
    return patch(container.pod, summary, [{"op": "add", "path": f"{_at(container)}/{probe}", "value": value}])


def mount_shm(container: Container, size: str, summary: str) -> Fix:
    """Mount a memory-backed emptyDir at /dev/shm; `size` is a quantity."""
    pod, at = container.pod, _at(container)
    mounted = container.mount_at("/dev/shm")
    memory = {"medium": "Memory", "sizeLimit": size}
    if mounted:
        index = next((i for i, v in enumerate(pod.spec.volumes) if v.name == mounted.name), None)
        if index is None:
            return advice(f"{summary}: the volume {mounted.name} is not declared in {edited(pod)}")
        value = {"name": mounted.name, "emptyDir": memory}
        return patch(pod, summary, [{"op": "replace", "path": f"/volumes/{index}", "value": value}])
    taken = {v.name for v in pod.spec.volumes}
    name = next(n for n in ("dshm", *(f"dshm-{i}" for i in range(2, 99))) if n not in taken)
    mount = {"name": name, "mountPath": "/dev/shm"}
    volume = {"name": name, "emptyDir": memory}
    operations = [
        _append("/volumes", volume, exists=bool(pod.spec.volumes)),
        _append(f"{at}/volumeMounts", mount, exists=bool(container.spec.volume_mounts)),
    ]
    return patch(pod, summary, operations)


def _append(path: str, value: dict[str, Any], *, exists: bool) -> dict[str, Any]:
    """An operation that appends to a list, which it makes where there is none."""
    if exists:
        return {"op": "add", "path": f"{path}/-", "value": value}
    return {"op": "add", "path": path, "value": [value]}

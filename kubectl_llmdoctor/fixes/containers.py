"""What of a container and of its pod a fix sets: variables, resources, image, probes, settings of the node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.nodes import RDMA, rdma_offered
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.put_in import memory_annotations
from kubectl_llmdoctor.facts.units import units
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.fixes.patches import annotate, patch
from kubectl_llmdoctor.fixes.paths import appended
from kubectl_llmdoctor.fixes.words import advice, edited
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.tree import table


class FromSecret(msgspec.Struct, frozen=True):
    """The value that a Secret has under a key, or under the name of the variable."""

    name: str
    key: str = ""


class FromField(msgspec.Struct, frozen=True):
    """The value that the pod has in a field of its own, as `status.podIP`."""

    path: str


def remove_env(container: Container, name: str, summary: str) -> Fix:
    """Remove an environment variable of the container's own `env` list."""
    if all(variable.name != name for variable in container.spec.env):
        return advice(f"{summary} (it comes from a ConfigMap or Secret of {edited(container.pod)})")
    return set_variables(container, {name: None}, summary)


def set_env(container: Container, name: str, value: str, summary: str) -> Fix:
    """Set an environment variable in the container's own `env` list."""
    return set_variables(container, {name: value}, summary)


def set_variables(container: Container, values: Mapping[str, str | FromSecret | FromField | None], summary: str) -> Fix:
    """Set several variables in the container's own `env` list; None removes one.

    What comes from another object is changed there: then the fix is advice.
    """
    operations, elsewhere = variable_operations(container, values)
    if elsewhere:
        return advice(f"{summary} where {elsewhere} comes from ({container.env[elsewhere].origin})")
    return patch(container.pod, summary, operations) if operations else advice(f"{summary} in {edited(container.pod)}")


def set_credential(container: Container, name: str, secret: str, summary: str) -> Fix:
    """Set a variable from the Secret that others of the namespace have it from, else from one that the first command makes."""
    pod = container.pod
    if (had := _had_by_others(pod, name)) is not None:
        return set_variables(
            container, {name: had}, f"{summary}, from key {had.key} of the Secret {had.name}, as others have it"
        )
    make = f'kubectl -n {pod.namespace} create secret generic {secret} --from-literal={name}="${{{name}:?}}"'
    if pod.cluster.item(
        "Secret", pod.namespace, secret
    ):  # it keeps its other keys, of which other pods may take theirs
        make += f" --dry-run=client -o json | kubectl -n {pod.namespace} patch secret {secret} --patch-file /dev/stdin"
    fix = set_variables(
        container,
        {name: FromSecret(secret)},
        f"{summary}, from the Secret {secret}, into which the first command puts it",
    )
    return msgspec.structs.replace(fix, commands=(make, *fix.commands))


def _had_by_others(pod: Pod, name: str) -> FromSecret | None:
    """The key of a Secret, not known to lack it, from which another workload of the namespace has the same variable."""
    for kind in ("Deployment", "StatefulSet"):
        for item in pod.cluster.items(kind, pod.namespace):
            for _, template in Workload(item, pod.cluster).templates:
                for variable in (one for other in template.spec.containers for one in other.env if one.name == name):
                    ref = variable.value_from.secret_key_ref if variable.value_from else None
                    if ref and ref.name and ref.key and not _is_missing(pod, ref.name, ref.key):
                        return FromSecret(ref.name, ref.key)
    return None


def _is_missing(pod: Pod, secret: str, key: str) -> bool:
    """Whether a Secret of the pod's namespace is known not to be there, or to be filled without a key."""
    item = pod.cluster.item("Secret", pod.namespace, secret)
    keys = [*table(item.raw.get("data")), *table(item.raw.get("stringData"))] if item else []
    return key not in keys if keys else pod.cluster.exists("Secret", pod.namespace, secret) is False


def variable_operations(
    container: Container, values: Mapping[str, str | FromSecret | FromField | None]
) -> tuple[list[dict[str, Any]], str]:
    """The operations that set variables, and the first of them that comes from another object, where it is changed."""
    at, own = f"{container.pointer}/env", container.spec.env
    places = {variable.name: index for index, variable in enumerate(own)}
    added: list[dict[str, Any]] = []
    removed: list[int] = []
    for name, value in values.items():
        index = places.get(name)
        elsewhere = own[index].value_from is not None if index is not None else name in container.env
        if elsewhere and (value is None) == (index is None):
            return [], name
        if value is None:
            removed += [] if index is None else [index]
            continue
        if isinstance(value, FromSecret):
            entry: dict[str, Any] = {
                "name": name,
                "valueFrom": {"secretKeyRef": {"name": value.name, "key": value.key or name}},
            }
        elif isinstance(value, FromField):
            entry = {"name": name, "valueFrom": {"fieldRef": {"fieldPath": value.path}}}
        else:
            entry = {"name": name, "value": value}
        if index is None:
            added += appended(at, entry, exists=bool(own or added))
        else:
            added.append({"op": "replace", "path": f"{at}/{index}", "value": entry})
    # the last first, so that the places of the others hold
    return added + [{"op": "remove", "path": f"{at}/{index}"} for index in sorted(removed, reverse=True)], ""


def set_resource(container: Container, kind: str, resource: str, value: str, summary: str) -> Fix:
    """Set a request or limit (`kind` is `requests` or `limits`).

    An extended resource that stands in both is set where it differs: the API server refuses a request that differs from its limit.
    The memory limit of a container that a webhook puts in is an annotation of the pods.
    """
    if (kind, resource) == ("limits", "memory") and (values := memory_annotations(container, value)):
        told = " and ".join(f"{name}: {amount}" for name, amount in values.items())
        many = "s" if len(values) > 1 else ""
        return annotate(container.pod, values, f"{summary}, by the annotation{many} {told} of the pods")
    return patch(container.pod, summary, resource_operations(container, kind, resource, value))


def resource_operations(container: Container, kind: str, resource: str, value: str) -> list[dict[str, Any]]:
    """Of a device limit and request are one: the other is set, too, where it says something else."""
    key, resources = pointer.escaped(resource), container.spec.resources
    tables = {"limits": resources.limits, "requests": resources.requests}
    other = {k for k, t in tables.items() if "/" in resource and units(t.get(resource)) not in (None, units(value))}
    kinds = [k for k in tables if k == kind or k in other]
    return [{"op": "add", "path": f"{container.pointer}/resources/{k}/{key}", "value": value} for k in kinds]


def request_rdma(container: Container, summary: str) -> Fix | None:
    """Ask for the RDMA devices that the pod's node offers, or others with GPUs; None where none does, or the container has them.

    In the summary `{rdma}` is the resource with how many of it, `{container}` the container.
    """
    offered = rdma_offered(container.pod.cluster, container.gpus, container.pod.spec.node_name)
    limits = container.spec.resources.limits
    if offered is None or any(re.fullmatch(RDMA, name.lower()) for name in limits):
        return None
    name, amount = offered
    told = summary.format(rdma=f"{name}: {amount}", container=container.name)
    return set_resource(container, "limits", name, str(amount), told)


def set_image(container: Container, image: str, summary: str) -> Fix:
    return patch(container.pod, summary, [{"op": "replace", "path": f"{container.pointer}/image", "value": image}])


def set_spec(pod: Pod, path: str, value: Any, summary: str) -> Fix:
    """Set a field of the pod spec; `path` is a JSON pointer inside it, such as `/enableServiceLinks`."""
    return patch(pod, summary, [{"op": "add", "path": path, "value": value}])


def set_sysctl(pod: Pod, name: str, value: str, summary: str) -> Fix:
    """Set a kernel parameter of the pod."""
    own = pod.spec.security_context.sysctls
    at = next((i for i, one in enumerate(own) if one.name == name), None)
    entry = {"name": name, "value": value}
    if at is not None:
        return patch(pod, summary, [{"op": "replace", "path": f"/securityContext/sysctls/{at}", "value": entry}])
    return patch(pod, summary, appended("/securityContext/sysctls", entry, exists=bool(own)))


def set_pull_secret(pod: Pod, name: str, summary: str) -> Fix:
    """Let the pod pull its images with a Secret of its namespace."""
    return patch(pod, summary, appended("/imagePullSecrets", {"name": name}, exists=bool(pod.spec.image_pull_secrets)))


def set_probe(container: Container, probe: str, value: dict[str, Any], summary: str) -> Fix:
    """Set a probe (`startupProbe`, `livenessProbe`, `readinessProbe`) as a whole."""
    return patch(container.pod, summary, [{"op": "add", "path": f"{container.pointer}/{probe}", "value": value}])

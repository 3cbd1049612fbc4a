"""What the API server refuses of a manifest by its own rules: types, names, references inside the object, quantities.

Sources: Kubernetes pkg/apis/core/validation and pkg/apis/apps/validation, staging/.../util/validation, and the Go types of
k8s.io/api, into which a number does not fit where a string is due.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from kubectl_llmdoctor.api import Pod, dig, expression, is_accelerator, milli, rows, units

#: Where something stands, below the spec of the pod unless it begins with `metadata` or `spec.`, and what is wrong with it.
Fault = tuple[str, str]

#: Where the template stands in the kinds that the API server itself validates.
_TEMPLATES = {
    "Deployment": "spec.template",
    "StatefulSet": "spec.template",
    "DaemonSet": "spec.template",
    "ReplicaSet": "spec.template",
    "Job": "spec.template",
    "CronJob": "spec.jobTemplate.spec.template",
    "Pod": "",
}
#: Kinds whose controllers make pods of their templates as they are: the API server refuses these pods.
_MADE_OF_TEMPLATES = frozenset({"LeaderWorkerSet", "Rollout", "JobSet", "PodCliqueSet", "CloneSet"})
_FOREVER = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"})

_LABEL = expression(r"(?:[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_DNS_LABEL = expression(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DNS_NAME = expression(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_PORT = expression(r"(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_QUANTITY = expression(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?", re.ASCII)
#: Signs of a value that another program fills in, or of a placeholder, which is a fault of its own.
_OPEN = expression(r"[${}<>@%\[\]]|__|[A-Z]_[A-Z]")

#: What an element of `envFrom` takes variables from, and words that stand in it, or one level too high.
_SOURCES = ("configMapRef", "secretRef")
_OF_SOURCE = frozenset({*_SOURCES, "name", "optional", "prefix"})

#: Other objects that a pod names, and the form that is demanded of these names.
_NAMES = {
    "nodeName": "DNS name",
    "serviceAccountName": "DNS name",
    "runtimeClassName": "DNS name",
    "priorityClassName": "DNS name",
    "hostname": "DNS label",
    "subdomain": "DNS label",
}

_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_HANDLERS = ("httpGet", "tcpSocket", "exec", "grpc")
_SECONDS = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold")
_PULL = ("Always", "IfNotPresent", "Never")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def refused(pod: Pod) -> Iterator[Fault]:
    """What is wrong with a pod's manifest, or with that of the workload whose template it is."""
    item = pod.template_of or pod.item
    if (
        item is not None
        and item.kind in _MADE_OF_TEMPLATES
        and pod.template
        and not (pod.exists or pod.partial or pod.completed)
    ):
        spec = dig(pod.template.pod, "spec")
        yield from _of_pod(spec, set(_claims_within(item.raw))) if isinstance(spec, dict) else ()
        return
    if (
        item is None
        or item.kind not in _TEMPLATES
        or str(item.raw.get("apiVersion")) not in ("v1", "apps/v1", "batch/v1")
    ):
        return
    path = _TEMPLATES[item.kind]
    template = dig(item.raw, path) if path else item.raw
    spec = dig(template, "spec")
    if not isinstance(template, dict) or not isinstance(spec, dict):
        return
    name = dig(item.raw, "metadata.name")
    if isinstance(name, str) and not _OPEN.search(name) and not _DNS_NAME.fullmatch(name):
        yield "metadata.name", f"{name} is no name: lower-case letters, digits, '-' and '.' only"
    yield from _of_metadata(item.raw, "metadata")
    if path:
        yield from _of_metadata(template, f"{path}.metadata")
        yield from _of_workload(item.raw, item.kind, template, spec)
    yield from _of_pod(spec, _claims(item.raw))


def _claims(raw: dict[str, Any]) -> set[str]:
    """Volumes that a StatefulSet makes for each of its pods."""
    return {str(dig(row, "metadata.name")) for row in rows(raw, "spec.volumeClaimTemplates")}


def _claims_within(raw: object) -> Iterator[str]:
    """The same, wherever these kinds have them; a JobSet has some for its jobs together, too."""
    for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ():
        if key == "volumeClaimTemplates":
            yield from _claims({"spec": {key: value}})
        elif key == "volumeClaimPolicies":
            for policy in rows(value):
                yield from _claims({"spec": {"volumeClaimTemplates": policy.get("templates")}})
        else:
            yield from _claims_within(value)


def _of_metadata(raw: dict[str, Any], path: str) -> Iterator[Fault]:
    for group in ("labels", "annotations"):
        table = dig(raw, f"metadata.{group}")
        for key, value in table.items() if isinstance(table, dict) else ():
            if _no_string(value):
                yield f"{path}.{group}[{key}]", f"{_say(value)} is no string: quote it"
            elif group == "labels" and _no_label(value):
                yield (
                    f"{path}.{group}[{key}]",
                    f"{value} is no value of a label: 63 letters, digits, '-', '_' and '.' at most",
                )


def _of_workload(raw: dict[str, Any], kind: str, template: dict[str, Any], spec: dict[str, Any]) -> Iterator[Fault]:
    selector, labels = dig(raw, "spec.selector.matchLabels"), dig(template, "metadata.labels")
    labels = labels if isinstance(labels, dict) else {}
    open_labels = any(_OPEN.search(str(word)) for pair in labels.items() for word in pair)
    # kustomize gives a base that states none of them its namespace, its labels and the selector; and its patches need no ports
    ports = all(rows(container, "ports") for container in rows(spec, "containers"))
    whole = bool(labels) or (bool(dig(raw, "metadata.namespace")) and ports)
    if kind in _FOREVER and whole and dig(raw, "spec.selector") is None:
        of = (
            f"of the template's labels ({', '.join(map(str, labels))})"
            if labels
            else "and labels of the template, which has none"
        )
        yield "spec.selector", f"missing: matchLabels {of}"
    for key, value in selector.items() if kind in _FOREVER and isinstance(selector, dict) else ():
        if _no_string(value):
            yield f"spec.selector.matchLabels[{key}]", f"{_say(value)} is no string: quote it"
        elif open_labels or _OPEN.search(f"{key} {value}"):
            continue  # what fills them in may make them the same
        elif key not in labels:
            yield f"spec.selector.matchLabels[{key}]", f"the template has no label {key}"
        elif str(labels[key]) != value:
            yield f"spec.selector.matchLabels[{key}]", f"{value}, and the template has {labels[key]}"
    policy = str(spec.get("restartPolicy") or "Always")
    if not _OPEN.search(policy) and (policy == "Always") != (kind in _FOREVER):
        yield "restartPolicy", f"{policy}, where {kind} wants {'Always' if kind in _FOREVER else 'Never or OnFailure'}"
    replicas = dig(raw, "spec.replicas")
    if isinstance(replicas, str) and replicas.isdigit():
        yield "spec.replicas", f'"{replicas}" is a string: take the quotes away'
    strategy = dig(raw, "spec.strategy")
    if kind == "Deployment" and isinstance(strategy, dict) and isinstance(strategy.get("rollingUpdate"), dict):
        rolling = strategy["rollingUpdate"]
        if strategy.get("type") == "Recreate" and rolling:
            yield "spec.strategy.rollingUpdate", "not allowed with the type Recreate"
        elif all(str(rolling.get(key)) in ("0", "0%") for key in ("maxSurge", "maxUnavailable")):
            yield "spec.strategy.rollingUpdate", "maxSurge and maxUnavailable are both 0"


def _of_pod(spec: dict[str, Any], claims: set[str]) -> Iterator[Fault]:
    selector = spec.get("nodeSelector")
    for key, value in selector.items() if isinstance(selector, dict) else ():
        if _no_string(value):
            yield f"nodeSelector[{key}]", f"{_say(value)} is no string: quote it"
        elif _no_label(value):
            yield f"nodeSelector[{key}]", f"{value} is no value of a label"
    for field, form in _NAMES.items():
        name = spec.get(field)
        if not name or not isinstance(name, str) or _OPEN.search(name):
            continue
        if not (_DNS_NAME if form == "DNS name" else _DNS_LABEL).fullmatch(name):
            signs = "lower-case letters, digits" + (", '-' and '.' only" if form == "DNS name" else " and '-' only")
            yield field, f"{name} is no name that anything can have: {signs}"
    yield from _of_tolerations(spec)
    yield from _of_volumes(spec)
    declared = {str(volume.get("name")) for volume in rows(spec, "volumes")}
    groups = {group: rows(spec, group) for group in ("containers", "initContainers")}
    yield from _twice("containers", [str(row.get("name")) for group in groups.values() for row in group])
    for group, listed in groups.items():
        for row in listed:
            for path, text in _of_container(row, declared | claims):
                yield f"{group}[{row.get('name')}].{path}", text


def _of_tolerations(spec: dict[str, Any]) -> Iterator[Fault]:
    for index, row in enumerate(rows(spec, "tolerations")):
        operator, value = row.get("operator") or "Equal", row.get("value")
        if _no_string(value):
            yield f"tolerations[{index}].value", f"{_say(value)} is no string: quote it"
        elif operator == "Exists" and value:
            yield f"tolerations[{index}].value", f"{value}, which the operator Exists does not allow"
        elif operator == "Equal" and not row.get("key"):
            yield f"tolerations[{index}].operator", "must be Exists where there is no key"
        if row.get("effect") and row["effect"] not in _EFFECTS and not _OPEN.search(str(row["effect"])):
            yield f"tolerations[{index}].effect", f"{row['effect']} is no effect of a taint"


def _of_volumes(spec: dict[str, Any]) -> Iterator[Fault]:
    volumes = rows(spec, "volumes")
    for volume in volumes:
        name, kinds = str(volume.get("name")), [key for key in volume if key != "name"]
        if _no_name(name):
            yield f"volumes[{name}].name", f"{name} is no name of a volume"
        if len(kinds) > 1:
            yield f"volumes[{name}]", f"has more than one kind ({', '.join(kinds)})"
        if _no_quantity(size := dig(volume, "emptyDir.sizeLimit")):
            yield f"volumes[{name}].emptyDir.sizeLimit", f"{size} is no quantity"
    yield from _twice("volumes", [str(volume.get("name")) for volume in volumes])


def _of_container(row: dict[str, Any], volumes: set[str]) -> Iterator[Fault]:
    if _no_name(name := str(row.get("name"))):
        yield "name", f"{name} is no name of a container: lower-case letters, digits and '-' only"
    if not row.get("image"):
        yield "image", "missing"
    policy = row.get("imagePullPolicy")
    if policy and policy not in _PULL and not _OPEN.search(str(policy)):
        yield "imagePullPolicy", f"{policy} is none of {', '.join(_PULL)}"
    yield from _of_words(row)
    yield from _of_ports(row)
    mounts = rows(row, "volumeMounts")
    for mount in mounts:
        if (name := str(mount.get("name"))) not in volumes and not _OPEN.search(name):
            yield f"volumeMounts[{name}].name", f"the pod declares no volume {name}"
    yield from _twice("volumeMounts", [str(mount.get("mountPath")) for mount in mounts])
    for probe in _PROBES:
        if isinstance(own := row.get(probe), dict):
            yield from ((f"{probe}{path}", text) for path, text in _of_probe(own, probe))
    yield from _of_resources(row)


def _of_words(row: dict[str, Any]) -> Iterator[Fault]:
    """Its command line and its variables."""
    for group in ("command", "args"):
        words = row.get(group)
        for index, word in enumerate(words if isinstance(words, list) else ()):
            if _no_string(word):
                yield f"{group}[{index}]", f"{_say(word)} is no string: quote it"
        if words is not None and not isinstance(words, list):
            yield group, "is no list of strings"
    for variable in rows(row, "env"):
        value, source = variable.get("value"), variable.get("valueFrom")
        if _no_string(value):
            yield f"env[{variable.get('name')}].value", f"{_say(value)} is no string: quote it"
        elif value and source:
            yield f"env[{variable.get('name')}]", "has value and valueFrom"
    for index, source in enumerate(rows(row, "envFrom")):
        if not any(isinstance(source.get(kind), dict) for kind in _SOURCES) and set(source) <= _OF_SOURCE:
            yield f"envFrom[{index}]", "names neither a configMapRef nor a secretRef"


def _of_ports(row: dict[str, Any]) -> Iterator[Fault]:
    ports = rows(row, "ports")
    for port in ports:
        number, name = port.get("containerPort"), str(port.get("name") or "")
        if isinstance(number, str) and number.isdigit():
            yield f"ports[{name or number}].containerPort", f'"{number}" is a string: take the quotes away'
        if name and not _OPEN.search(name) and not _PORT.fullmatch(name):
            yield f"ports[{name}].name", f"{name} is no name of a port: 15 lower-case letters, digits and '-' at most"
    yield from _twice("ports", [str(port["name"]) for port in ports if port.get("name")])


def _of_probe(probe: dict[str, Any], name: str) -> Iterator[Fault]:
    handlers = [key for key in _HANDLERS if probe.get(key) is not None]
    if len(handlers) != 1:
        yield "", f"has {'no handler' if not handlers else ' and '.join(handlers)}"
    for key in _SECONDS:
        if isinstance(value := probe.get(key), str) and value.isdigit():
            yield f".{key}", f'"{value}" is a string: take the quotes away'
    if name != "readinessProbe" and probe.get("successThreshold", 1) not in (1, 0, "1"):
        yield ".successThreshold", "must be 1"
    for key in ("httpGet", "tcpSocket"):
        if isinstance(port := dig(probe, f"{key}.port"), str) and port.isdigit():
            yield f".{key}.port", f'"{port}" is taken for a name, which has a letter: take the quotes away'


def _of_resources(row: dict[str, Any]) -> Iterator[Fault]:
    limits, requests = dig(row, "resources.limits"), dig(row, "resources.requests")
    for kind, given in (("limits", limits), ("requests", requests)):
        for resource, value in given.items() if isinstance(given, dict) else ():
            place = f"resources.{kind}[{resource}]"
            if "/" not in resource and resource not in _STANDARD and not resource.startswith("hugepages-"):
                if not _OPEN.search(resource):
                    yield place, "is no resource of Kubernetes, and has no domain"
            elif _no_quantity(value):
                yield place, f"{value} is no quantity"
            elif is_accelerator(resource) and (share := milli(value)) is not None and share % 1000:
                yield place, f"{value} is no whole number"
    if not isinstance(limits, dict) or not isinstance(requests, dict):
        return
    for resource in ("cpu", "memory", "ephemeral-storage"):
        read = milli if resource == "cpu" else units
        most, asked = read(limits.get(resource)), read(requests.get(resource))
        if most is not None and asked is not None and asked > most:
            text = f"{requests[resource]} is more than the limit of {limits[resource]}"
            yield f"resources.requests[{resource}]", text


def _no_string(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _say(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _no_label(value: object) -> bool:
    text = str(value)
    return value is not None and not _OPEN.search(text) and not _LABEL.fullmatch(text)


def _no_name(name: str) -> bool:
    return not _OPEN.search(name) and not _DNS_LABEL.fullmatch(name)


def _no_quantity(value: object) -> bool:
    return isinstance(value, str) and not _OPEN.search(value) and not _QUANTITY.fullmatch(value.strip())


def _twice(place: str, names: Iterable[str]) -> Iterator[Fault]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place}[{name}]", f"stands there {'twice' if count == 2 else f'{count} times'}"

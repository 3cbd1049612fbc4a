"""What the API server refuses of a manifest by its own rules: types, names, references inside the object, quantities.

Sources: Kubernetes pkg/apis/core/validation and pkg/apis/apps/validation, staging/.../util/validation, and the Go types of
k8s.io/api, into which a number does not fit where a string is due.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kubectl_llmdoctor.api import (
    Item,
    Pod,
    dig,
    escaped,
    expression,
    is_accelerator,
    milli,
    rows,
    say_flow,
    table,
    units,
)

#: A fault of which nobody can say what is meant, and one that is mended by taking away what stands there.
OPEN: Any = object()
GONE: Any = object()


class Fault(NamedTuple):
    """Where something stands, below the spec of the pod unless it begins with `metadata` or `spec.`, and what is wrong with it."""

    place: str
    text: str
    #: What should stand there, or where `at` says; of what is open, `at` says what to do in words.
    write: Any = OPEN
    at: str = ""

    @property
    def told(self) -> str:
        """What to write, in words."""
        if self.write is OPEN:
            return self.at or f"correct {self.place} ({self.text})"
        if self.write is GONE:
            return f"take {self.at or self.place} away"
        return f"{self.at or self.place}: {say_flow(self.write, _scalar)}"


def _scalar(value: Any) -> str:
    """A scalar as YAML has it: in quotes where it would be taken for something else than a string."""
    return f'"{value}"' if isinstance(value, str) and not _plain(value) else str(value)


def _plain(text: str) -> bool:
    """Whether YAML takes a word for a string without quotes."""
    return (
        bool(text)
        and text.lower() not in ("true", "false", "yes", "no", "null", "on", "off")
        and not _NUMBER.fullmatch(text)
    )


def operations(item: Item, template: str, faults: Iterable[Fault]) -> list[dict[str, Any]] | None:
    """A patch of an object that mends faults; None where one of them is open. What is taken away goes last, the last of a list first."""
    written: list[dict[str, Any]] = []
    removed: list[dict[str, Any]] = []
    for fault in faults:
        place = fault.at or fault.place
        inside = place.startswith(("metadata", "spec."))
        found = _pointer(item.raw, place if inside else ".".join(filter(None, (template, "spec", place))))
        if found is None or fault.write is OPEN or fault.place == "metadata.name":
            return None
        path, here = found
        if fault.write is GONE:
            removed.append({"op": "remove", "path": path})
            continue
        if isinstance(fault.write, str) and _no_string(here):
            written.append({"op": "remove", "path": path})  # a number would be written where one stands
        written.append({"op": "add", "path": path, "value": fault.write})
    return written + sorted(removed, key=lambda operation: str(operation["path"]), reverse=True)


def _pointer(tree: Any, place: str) -> tuple[str, Any] | None:
    """The JSON pointer of `spec.containers[vllm].env[HF_TOKEN].value`, and what stands there; a key, place or name in brackets.

    Of a list of plain values nothing is told: one of them cannot be written without those beside it.
    """
    path = ""
    for word, key in re.findall(r"([\w-]{1,100})|\[([^\]]{1,300})\]", place):
        name = word or key
        if isinstance(tree, list):
            named = (n for n, row in enumerate(tree) if isinstance(row, dict) and name in _identities(row))
            index = next(named, int(name) if name.isdecimal() and int(name) < len(tree) else None)
            if index is None or not isinstance(tree[index], dict):
                return None
            path, tree = f"{path}/{index}", tree[index]
        else:
            path, tree = f"{path}/{escaped(name)}", table(tree).get(name)
    return path, tree


def _identities(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("name", "containerPort", "mountPath") if key in row)


#: Where the template stands in the kinds that the API server itself validates.
TEMPLATES = {
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
_NUMBER = expression(r"[+-]?[\d._]{1,40}(?:[eE][+-]?\d{1,10})?|0[xob][\da-fA-F]{1,40}|[\d:-]{1,40}")
#: A size as people write it, whose unit Kubernetes writes otherwise.
_SIZE = expression(r"(?P<number>\d{1,12}(?:\.\d{1,3})?) ?(?P<unit>[kmgtp])(?P<i>i?)b?", re.IGNORECASE)
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
        or item.kind not in TEMPLATES
        or str(item.raw.get("apiVersion")) not in ("v1", "apps/v1", "batch/v1")
    ):
        return
    path = TEMPLATES[item.kind]
    template = dig(item.raw, path) if path else item.raw
    spec = dig(template, "spec")
    if not isinstance(template, dict) or not isinstance(spec, dict):
        return
    name = dig(item.raw, "metadata.name")
    if isinstance(name, str) and not _OPEN.search(name) and not _DNS_NAME.fullmatch(name):
        yield Fault("metadata.name", f"{name} is no name: lower-case letters, digits, '-' and '.' only", _named(name))
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
        for key, value in table(dig(raw, f"metadata.{group}")).items():
            if _no_string(value):
                yield Fault(f"{path}.{group}[{key}]", f"{_say(value)} is no string: quote it", _say(value))
            elif group == "labels" and _no_label(value):
                text = f"{value} is no value of a label: 63 letters, digits, '-', '_' and '.' at most"
                yield Fault(f"{path}.{group}[{key}]", text, _label(value))


def _of_workload(raw: dict[str, Any], kind: str, template: dict[str, Any], spec: dict[str, Any]) -> Iterator[Fault]:
    yield from _of_selector(raw, kind, template, spec)
    policy = str(spec.get("restartPolicy") or "Always")
    if not _OPEN.search(policy) and (policy == "Always") != (kind in _FOREVER):
        text = f"{policy}, where {kind} wants {'Always' if kind in _FOREVER else 'Never or OnFailure'}"
        yield Fault("restartPolicy", text, "Always" if kind in _FOREVER else "OnFailure")
    replicas = dig(raw, "spec.replicas")
    if isinstance(replicas, str) and replicas.isdigit():
        yield Fault("spec.replicas", f'"{replicas}" is a string: take the quotes away', int(replicas))
    strategy = table(dig(raw, "spec.strategy")) if kind == "Deployment" else {}
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "Recreate" and isinstance(rolling, dict) and rolling:
        yield Fault("spec.strategy.rollingUpdate", "not allowed with the type Recreate", GONE)
    elif isinstance(rolling, dict) and all(
        str(rolling.get(key)) in ("0", "0%") for key in ("maxSurge", "maxUnavailable")
    ):
        at = "spec.strategy.rollingUpdate.maxUnavailable"
        yield Fault("spec.strategy.rollingUpdate", "maxSurge and maxUnavailable are both 0", 1, at)


def _of_selector(raw: dict[str, Any], kind: str, template: dict[str, Any], spec: dict[str, Any]) -> Iterator[Fault]:
    """A selector that is missing, or that does not select the labels of the template."""
    if kind not in _FOREVER:
        return
    selector, labels = dig(raw, "spec.selector.matchLabels"), table(dig(template, "metadata.labels"))
    # kustomize gives a base that states none of them its namespace, its labels and the selector; and its patches need no ports
    ports = all(rows(container, "ports") for container in rows(spec, "containers"))
    whole = bool(labels) or (bool(dig(raw, "metadata.namespace")) and ports)
    if whole and dig(raw, "spec.selector") is None:
        yield _no_selector(str(dig(raw, "metadata.name")), labels)
    open_labels = any(_OPEN.search(str(word)) for pair in labels.items() for word in pair)
    for key, value in selector.items() if isinstance(selector, dict) else ():
        at = f"spec.selector.matchLabels[{key}]"
        if _no_string(value):
            yield Fault(at, f"{_say(value)} is no string: quote it", _say(value))
        elif open_labels or _OPEN.search(f"{key} {value}"):
            continue  # what fills them in may make them the same
        elif key not in labels:
            yield Fault(at, f"the template has no label {key}", value, f"{TEMPLATES[kind]}.metadata.labels[{key}]")
        elif str(labels[key]) != value:
            yield Fault(at, f"{value}, and the template has {labels[key]}", str(labels[key]))


def _no_selector(name: str, labels: dict[str, Any]) -> Fault:
    if labels:
        text = f"missing: matchLabels of the template's labels ({', '.join(map(str, labels))})"
        return Fault("spec.selector", text, {"matchLabels": labels})
    own = f"{{app: {name}}}"
    both = f"spec.selector: {{matchLabels: {own}}}, and spec.template.metadata.labels: {own}"
    return Fault("spec.selector", "missing: matchLabels and labels of the template, which has none", OPEN, both)


def _of_pod(spec: dict[str, Any], claims: set[str]) -> Iterator[Fault]:
    for key, value in table(spec.get("nodeSelector")).items():
        if _no_string(value):
            yield Fault(f"nodeSelector[{key}]", f"{_say(value)} is no string: quote it", _say(value))
        elif _no_label(value):
            yield Fault(f"nodeSelector[{key}]", f"{value} is no value of a label")
    for field, form in _NAMES.items():
        name = spec.get(field)
        if not name or not isinstance(name, str) or _OPEN.search(name):
            continue
        if not (_DNS_NAME if form == "DNS name" else _DNS_LABEL).fullmatch(name):
            signs = "lower-case letters, digits" + (", '-' and '.' only" if form == "DNS name" else " and '-' only")
            # what a guide has there stands for a name that nobody filled in
            yield Fault(
                field, f"{name} is no name that anything can have: {signs}", GONE if field == "nodeName" else OPEN
            )
    yield from _of_tolerations(spec)
    yield from _of_volumes(spec)
    declared = {str(volume.get("name")) for volume in rows(spec, "volumes")}
    groups = {group: rows(spec, group) for group in ("containers", "initContainers")}
    mounted = {str(m.get("name")) for group in groups.values() for row in group for m in rows(row, "volumeMounts")}
    spare = sorted(declared - mounted)
    yield from _twice("containers", [str(row.get("name")) for group in groups.values() for row in group])
    for group, listed in groups.items():
        for row in listed:
            at = f"{group}[{row.get('name')}]"
            for fault in _of_container(row, declared | claims, spare):
                yield fault._replace(
                    place=f"{at}.{fault.place}",
                    at=f"{at}.{fault.at}" if fault.at and fault.write is not OPEN else fault.at,
                )


def _of_tolerations(spec: dict[str, Any]) -> Iterator[Fault]:
    for index, row in enumerate(rows(spec, "tolerations")):
        operator, value = row.get("operator") or "Equal", row.get("value")
        if _no_string(value):
            yield Fault(f"tolerations[{index}].value", f"{_say(value)} is no string: quote it", _say(value))
        elif operator == "Exists" and value:
            text = f"{value}, which the operator Exists does not allow"
            yield Fault(f"tolerations[{index}].value", text, GONE)
        elif operator == "Equal" and not row.get("key"):
            yield Fault(f"tolerations[{index}].operator", "must be Exists where there is no key", "Exists")
        if row.get("effect") and row["effect"] not in _EFFECTS and not _OPEN.search(str(row["effect"])):
            text = f"{row['effect']} is no effect of a taint"  # without one every effect is tolerated
            yield Fault(f"tolerations[{index}].effect", text, GONE)


def _of_volumes(spec: dict[str, Any]) -> Iterator[Fault]:
    volumes = rows(spec, "volumes")
    for volume in volumes:
        name, kinds = str(volume.get("name")), [key for key in volume if key != "name"]
        if _no_name(name):
            to = _named(name).replace(".", "-")
            at = f"call volume {name} {to}, in its mounts, too"
            yield Fault(f"volumes[{name}].name", f"{name} is no name of a volume", OPEN, at)
        if len(kinds) > 1:
            empty = kinds.index("emptyDir") if len(kinds) == 2 and "emptyDir" in kinds else None
            at = f"volumes[{name}].emptyDir" if empty is not None else ""  # what lasts is what is meant
            text = f"has more than one kind ({', '.join(kinds)})"
            yield Fault(f"volumes[{name}]", text, GONE if at else OPEN, at)
            if at:
                continue
        if _no_quantity(size := dig(volume, "emptyDir.sizeLimit")):
            yield Fault(f"volumes[{name}].emptyDir.sizeLimit", f"{size} is no quantity", _size(size))
    yield from _twice("volumes", [str(volume.get("name")) for volume in volumes])


def _of_container(row: dict[str, Any], volumes: set[str], spare: list[str]) -> Iterator[Fault]:
    """`spare` are volumes that are declared, and mounted nowhere."""
    if _no_name(name := str(row.get("name"))):
        text = f"{name} is no name of a container: lower-case letters, digits and '-' only"
        yield Fault("name", text, _named(name).replace(".", "-"))
    if not row.get("image"):
        yield Fault("image", "missing", OPEN, f"name an image for container {row.get('name')}")
    policy = row.get("imagePullPolicy")
    if policy and policy not in _PULL and not _OPEN.search(str(policy)):
        yield Fault("imagePullPolicy", f"{policy} is none of {', '.join(_PULL)}", "IfNotPresent")
    yield from _of_words(row)
    yield from _of_ports(row)
    mounts = rows(row, "volumeMounts")
    for mount in mounts:
        if (name := str(mount.get("name"))) not in volumes and not _OPEN.search(name):
            text = f"the pod declares no volume {name}"
            mine = f"declare volume {name} of {row.get('name')} in spec.volumes, or take its mount away"
            yield Fault(f"volumeMounts[{name}].name", text, *((spare[0],) if len(spare) == 1 else (OPEN, mine)))
    yield from _twice("volumeMounts", [str(mount.get("mountPath")) for mount in mounts])
    for probe in _PROBES:
        if isinstance(own := row.get(probe), dict):
            yield from (
                f._replace(place=f"{probe}{f.place}", at=f"{probe}{f.at}" if f.at else "")
                for f in _of_probe(own, probe)
            )
    yield from _of_resources(row)


def _of_words(row: dict[str, Any]) -> Iterator[Fault]:
    """Its command line and its variables."""
    for group in ("command", "args"):
        words = row.get(group)
        for index, word in enumerate(words if isinstance(words, list) else ()):
            if _no_string(word):
                yield Fault(f"{group}[{index}]", f"{_say(word)} is no string: quote it", _say(word))
        if words is not None and not isinstance(words, list):
            yield Fault(group, "is no list of strings")
    for variable in rows(row, "env"):
        value, source = variable.get("value"), variable.get("valueFrom")
        if _no_string(value):
            yield Fault(f"env[{variable.get('name')}].value", f"{_say(value)} is no string: quote it", _say(value))
        elif value and source:
            place = f"env[{variable.get('name')}]"
            yield Fault(place, "has value and valueFrom", GONE, f"{place}.value")
    for index, source in enumerate(rows(row, "envFrom")):
        if not any(isinstance(source.get(kind), dict) for kind in _SOURCES) and set(source) <= _OF_SOURCE:
            name = source.get("name")
            told = (
                f"envFrom[{index}]: {{configMapRef: {{name: {name}}}}}, or secretRef where {name} is a Secret"
                if name
                else ""
            )
            yield Fault(f"envFrom[{index}]", "names neither a configMapRef nor a secretRef", OPEN, told)


def _of_ports(row: dict[str, Any]) -> Iterator[Fault]:
    ports = rows(row, "ports")
    for port in ports:
        number, name = port.get("containerPort"), str(port.get("name") or "")
        if isinstance(number, str) and number.isdigit():
            text = f'"{number}" is a string: take the quotes away'
            yield Fault(f"ports[{name or number}].containerPort", text, int(number))
        if name and not _OPEN.search(name) and not _PORT.fullmatch(name):
            text = f"{name} is no name of a port: 15 lower-case letters, digits and '-' at most"
            short = re.sub(r"-{2,}", "-", _named(name).replace(".", "-"))[:15].strip("-")
            yield Fault(f"ports[{name}].name", text, short if _PORT.fullmatch(short) else OPEN)
    yield from _twice("ports", [str(port["name"]) for port in ports if port.get("name")])


def _of_probe(probe: dict[str, Any], name: str) -> Iterator[Fault]:
    handlers = [key for key in _HANDLERS if probe.get(key) is not None]
    if len(handlers) != 1:
        extra = next((key for key in handlers if key == "tcpSocket"), "") if len(handlers) == 2 else ""
        text = f"has {'no handler' if not handlers else ' and '.join(handlers)}"
        yield Fault("", text, GONE if extra else OPEN, f".{extra}" if extra else "")
    for key in _SECONDS:
        if isinstance(value := probe.get(key), str) and value.isdigit():
            yield Fault(f".{key}", f'"{value}" is a string: take the quotes away', int(value))
    if name != "readinessProbe" and probe.get("successThreshold", 1) not in (1, 0, "1"):
        yield Fault(".successThreshold", "must be 1", 1)
    for key in ("httpGet", "tcpSocket"):
        if isinstance(port := dig(probe, f"{key}.port"), str) and port.isdigit():
            text = f'"{port}" is taken for a name, which has a letter: take the quotes away'
            yield Fault(f".{key}.port", text, int(port))


def _of_resources(row: dict[str, Any]) -> Iterator[Fault]:
    limits, requests = table(dig(row, "resources.limits")), table(dig(row, "resources.requests"))
    for kind, given in (("limits", limits), ("requests", requests)):
        for resource, value in given.items():
            place = f"resources.{kind}[{resource}]"
            if "/" not in resource and resource not in _STANDARD and not resource.startswith("hugepages-"):
                if not _OPEN.search(resource):
                    meant = f"nvidia.com/gpu in place of {resource} ({place})" if "gpu" in resource.lower() else ""
                    yield Fault(place, "is no resource of Kubernetes, and has no domain", OPEN, meant)
            elif _no_quantity(value):
                yield Fault(place, f"{value} is no quantity", _size(value))
            elif is_accelerator(resource) and (share := milli(value)) is not None and share % 1000:
                yield Fault(place, f"{value} is no whole number", str(-(-share // 1000)))
    for resource in ("cpu", "memory", "ephemeral-storage"):
        read = milli if resource == "cpu" else units
        most, asked = read(limits.get(resource)), read(requests.get(resource))
        if most is not None and asked is not None and asked > most:
            text = f"{requests[resource]} is more than the limit of {limits[resource]}"
            yield Fault(
                f"resources.requests[{resource}]", text, str(requests[resource]), f"resources.limits[{resource}]"
            )


def _no_string(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _say(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named(text: str) -> str:
    """The nearest name of an object."""
    return re.sub(r"[^a-z0-9.-]{1,253}", "-", text.lower()).strip("-.")


def _label(value: object) -> str:
    """The nearest value of a label."""
    return re.sub(r"[^\w.-]{1,253}", "-", str(value), flags=re.ASCII)[:63].strip("-_.")


def _size(value: object) -> Any:
    """The quantity that a size is; `48GB` is `48G`, `48gib` is `48Gi`."""
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        return OPEN
    unit = found["unit"].upper() if found["i"] or found["unit"] not in "kK" else "k"
    return f"{found['number']}{unit}{'i' if found['i'] else ''}"


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
            text = f"stands there {'twice' if count == 2 else f'{count} times'}"
            yield Fault(f"{place}[{name}]", text, OPEN, f"leave only one of {place} {name}")

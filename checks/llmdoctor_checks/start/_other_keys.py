"""What a pod finds in a Secret or ConfigMap in place of the key that it names.

Sources: kubelet pkg/kubelet/kubelet_pods.go (variables) and pkg/volume (files); runc, which is given a folder for a file that is not there.
"""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Events,
    Evidence,
    Finding,
    Fix,
    Item,
    Pod,
    dig,
    event_evidence,
    expression,
    fixes,
    letters,
    object_evidence,
    pod_evidence,
)
from llmdoctor_checks._consequences import CRASHED

_NO_KEY = expression(
    r"couldn't find key (?P<key>[\w.-]{1,253}) in (?P<kind>Secret|ConfigMap) (?:[\w.-]{1,63}/)?(?P<name>[\w.-]{1,253})"
)
_NO_ITEM = expression(
    r'volume "(?P<volume>[^"]{1,253})" ?: (?:configmap )?references non-existent (?:secret|config) key: (?P<key>[\w.-]{1,253})'
)
_NO_FILE = expression(r'error mounting "[^"]{1,400}" to rootfs at "(?P<path>[^"]{1,400})".{0,1000}?not a directory')
_EXPLAINS = ("volume-mount-failed", *CRASHED, "pod-pending")
#: Before the finding that has the kubelet's words alone.
_MORE = -2.0
#: Keys that are named.
_MOST = 6


def misnamed_keys(pod: Pod, events: Events | None) -> Iterator[Finding]:
    """Keys that a failing pod names, of an object whose keys are known and which has not that one."""
    if not pod.failing:
        return
    for container in pod.containers:
        waiting, ended = container.waiting, container.terminated
        said = f"{waiting.message if waiting else ''} {ended.message if ended else ''}"
        if found := _NO_KEY.search(said):
            yield from _of_variable(container, found["kind"], found["name"], found["key"])
        elif found := _NO_FILE.search(said):
            yield from _of_file(container, found["path"], said)
    told = [e for e in events or () if e.kind == "Pod" and e.name == pod.name and e.reason == "FailedMount"]
    if told and (found := _NO_ITEM.search(told[-1].message)):
        yield from _of_item(pod, found["volume"], found["key"], event_evidence(told[-1], pod.cluster))


def _of_variable(container: Container, kind: str, name: str, key: str) -> Iterator[Finding]:
    pod, field = container.pod, "secretKeyRef" if kind == "Secret" else "configMapKeyRef"
    item = pod.cluster.item(kind, pod.namespace, name)
    for index, variable in enumerate(container.spec.env):
        source = variable.value_from
        ref = source and (source.secret_key_ref if kind == "Secret" else source.config_map_key_ref)
        if item is None or not ref or (ref.name, ref.key) != (name, key):
            continue
        place = f"env[{variable.name}].valueFrom.{field}"
        pointer = f"{container.pointer}/env/{index}/valueFrom/{field}/key"
        said = pod_evidence(container, place, f"name: {name}, key: {key}")
        yield from _finding(
            pod, item, key, f"variable {variable.name} of {container.name}", pointer, said, variable.name
        )
        return


def _of_item(pod: Pod, volume: str, key: str, said: Evidence) -> Iterator[Finding]:
    for index, one in enumerate(pod.spec.volumes):
        if one.name != volume or not (one.secret or one.config_map):
            continue
        kind, name, items = (
            ("Secret", one.secret.secret_name, one.secret.items)
            if one.secret
            else ("ConfigMap", one.config_map.name, one.config_map.items)
            if one.config_map
            else ("", "", ())
        )
        item = pod.cluster.item(kind, pod.namespace, name)
        at = next((n for n, mapped in enumerate(items) if mapped.key == key), None)
        if item is not None and at is not None:
            field = "secret" if kind == "Secret" else "configMap"
            yield from _finding(pod, item, key, f"volume {volume}", f"/volumes/{index}/{field}/items/{at}/key", said)


def _of_file(container: Container, path: str, told: str) -> Iterator[Finding]:
    """A file of a volume that is mounted by itself (subPath), for which a folder was made as the key is not there."""
    pod = container.pod
    for index, mount in enumerate(container.spec.volume_mounts):
        volume = pod.volume(mount.name)
        if mount.mount_path != path or not mount.sub_path or volume is None or not (volume.secret or volume.config_map):
            continue
        source = volume.secret or volume.config_map
        if source is None or source.items:
            return  # its files have other names than the keys
        kind = "Secret" if volume.secret else "ConfigMap"
        name = volume.secret.secret_name if volume.secret else volume.config_map.name if volume.config_map else ""
        item = pod.cluster.item(kind, pod.namespace, name)
        if item is not None:
            said = pod_evidence(container, "state", " ".join(told.split())[:300])
            at = f"{container.pointer}/volumeMounts/{index}/subPath"
            yield from _finding(pod, item, mount.sub_path, f"subPath of {path} in {container.name}", at, said)
        return


def _finding(
    pod: Pod, item: Item, key: str, who: str, pointer: str, said: Evidence, meant: str = ""
) -> Iterator[Finding]:
    keys = sorted({str(k) for field in ("data", "stringData", "binaryData") for k in dig(item.raw, field) or {}})
    if not keys or key in keys:
        return  # written since, or not known
    has = ", ".join(keys[:_MOST]) + (" and others" if len(keys) > _MOST else "")
    yield Finding(
        confidence="certain",
        summary=f"{item.kind} {item.name} has no key {key}, which {who} names; it has {has}.",
        evidence=(said, object_evidence(item, "", f"keys: {has}")),
        explains=_EXPLAINS,
        fixes=tuple(_fixes(pod, item, key, keys, pointer, meant)),
        order=_MORE,
    )


def _fixes(pod: Pod, item: Item, key: str, keys: list[str], pointer: str, meant: str) -> Iterator[Fix]:
    near = [k for k in keys if k == meant or letters(k) == letters(key)]
    if len(keys) == 1 and _words(keys[0]) & _words(f"{key}-{meant}"):
        near = keys  # it is about the same thing
    elif not near:
        same = set.intersection(*map(_words, keys))  # an ending, say, which all of them have
        like = [k for k in keys if (_words(k) - same) & _words(key)]
        near = like if len(like) == 1 else []
    has = ", ".join(keys[:_MOST])
    if near:
        operation = {"op": "replace", "path": pointer, "value": near[0]}
        yield fixes.patch(pod, f"Name the key {near[0]}, which {item.kind} {item.name} has", [operation])
    elif len(keys) > 1:
        yield fixes.advice(f"Name one of the keys that {item.kind} {item.name} has ({has}) in {fixes.edited(pod)}")
    field = "stringData" if item.kind == "Secret" else "data"
    yield fixes.advice(
        f"Add the key {key} to {item.kind} {item.name}",
        f"kubectl -n {pod.namespace} patch {item.kind.lower()} {item.name} --type=merge -p "
        f"""'{{"{field}":{{"{key}":"VALUE"}}}}'""",
    )


def _words(key: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]{2,}", key.lower()))

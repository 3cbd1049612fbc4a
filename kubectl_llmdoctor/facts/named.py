"""What a pod names of a Secret or ConfigMap, by which such an object can be made for it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.cluster import Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.k8s import ConfigMapVolume, EnvFrom, KeyRef, SecretVolume, ValueFrom
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.tree import dig

#: So alike two names, or parts of them, are where one is the other misspelt; those that count apart are not.
_ALIKE = 0.8
_PARTS = expression(r"[-._]")
_NUMBERS = expression(r"\d{1,40}")
#: What an object may have as a key.
_KEY = expression(r"[\w.-]{1,253}")
#: What is the object's own, and its owners: none of them is in another namespace.
_OWN = "/^  ownerReferences:/,/^    uid:/d;/^  (namespace|uid|resourceVersion|creationTimestamp):/d;"
#: A Secret that the cluster makes for one service account.
_OF_AN_ACCOUNT = "kubernetes.io/service-account-token"


def _of_source(source: ValueFrom, kind: str) -> KeyRef | None:
    return source.secret_key_ref if kind == "Secret" else source.config_map_key_ref


def _of_whole(source: EnvFrom, kind: str) -> str:
    ref = source.secret_ref if kind == "Secret" else source.config_map_ref
    return ref.name if ref else ""


def _of_volume(volume: Any, kind: str) -> tuple[str, SecretVolume | ConfigMapVolume | None]:
    if kind == "Secret":
        return (volume.secret.secret_name if volume.secret else ""), volume.secret
    return (volume.config_map.name if volume.config_map else ""), volume.config_map


def keys_named(pod: Pod, kind: str, name: str) -> list[str]:
    """The keys of an object that a pod names: of variables, of the items of volumes, of a subPath, of files that arguments name."""
    found: list[str] = []
    for container in pod.containers:
        for variable in container.spec.env:
            ref = _of_source(variable.value_from, kind) if variable.value_from else None
            found += [ref.key] if ref and ref.name == name else []
    for volume in pod.spec.volumes:
        called, source = _of_volume(volume, kind)
        if source is None or called != name:
            continue
        found += [item.key for item in source.items]
        if not source.items:
            found += [key for container in pod.containers for key in _files(container, volume.name)]
    return list(dict.fromkeys(key for key in found if _KEY.fullmatch(key)))


def _files(container: Container, volume: str) -> Iterator[str]:
    """The files of a volume that a container names: by a subPath of its mount, or in its arguments and variables."""
    words = " ".join([*map(str, container.spec.argv), *(v.value or "" for v in container.env.values())])
    for mount in container.spec.volume_mounts:
        if mount.name != volume:
            continue
        if mount.sub_path:
            yield mount.sub_path
        else:
            yield from re.findall(re.escape(mount.mount_path.rstrip("/")) + r"/([\w.-]{1,200})(?![\w./-])", words)


def making(pod: Pod, kind: str, name: str) -> tuple[str, str]:
    """The command that makes an object which the pod names in its namespace, and where it copies one from: another namespace."""
    where, resource, called = shlex.quote(pod.namespace), kind.lower(), shlex.quote(name)
    keys = keys_named(pod, kind, name)
    listed = (item for item in pod.cluster.items(kind) if item.name == name and item.raw.get("type") != _OF_AN_ACCOUNT)
    same = [item for item in listed if _keys(item).issuperset(keys)]
    if other := next((item.namespace for item in same if item.namespace != pod.namespace), ""):
        return (
            f"kubectl -n {shlex.quote(other)} get {resource} {called} -o yaml | "
            f"sed -E '/^metadata:/,${{{_OWN}}}' | kubectl -n {where} create -f -"
        ), other
    if kind == "Secret" and any(one.name == name for one in pod.spec.image_pull_secrets):
        return "", ""
    values = [f'--from-literal={key}="${_variable(key)}"' for key in keys if "." not in key]
    values += [f"--from-file={key}" for key in keys if "." in key]
    if not values:
        return "", ""
    generic = "secret generic" if kind == "Secret" else "configmap"
    return f"kubectl -n {where} create {generic} {called} {' '.join(values)}", ""


def _variable(key: str) -> str:
    """What a shell may call the value of a key."""
    return re.sub("[^A-Z0-9]|^(?=[0-9])", "_", key.upper())


def _keys(item: Item) -> set[str]:
    """The keys of a Secret or ConfigMap."""
    tables = [dig(item.raw, field) for field in ("data", "stringData", "binaryData")]
    return {key for table in tables if isinstance(table, dict) for key in table}


def alike(pod: Pod, kind: str, name: str) -> str:
    """An object of the namespace that has nearly this name and all keys that the pod names; empty where there is not just one."""
    wanted = set(keys_named(pod, kind, name))
    listed = pod.cluster.items(kind, pod.namespace)
    near = [item.name for item in listed if _keys(item) >= wanted and _misspelt(name, item.name)]
    return near[0] if len(near) == 1 and wanted else ""


def _misspelt(name: str, other: str) -> bool:
    """Whether a name is another one misspelt: `team-a-key` is not `team-b-key`, nor `key-1` `key-2`."""
    mine, theirs = _PARTS.split(name), _PARTS.split(other)
    pairs = [*zip(mine, theirs, strict=True)] if len(mine) == len(theirs) else []
    return _NUMBERS.findall(name) == _NUMBERS.findall(other) and all(
        difflib.SequenceMatcher(None, one, two).ratio() >= _ALIKE for one, two in [*pairs, (name, other)]
    )


def renamed(pod: Pod, kind: str, name: str, other: str) -> list[dict[str, Any]]:
    """The operations that let a pod name another object: in its variables and volumes."""
    operations: list[dict[str, Any]] = []
    field = "secretKeyRef" if kind == "Secret" else "configMapKeyRef"
    for container in pod.containers:
        for index, variable in enumerate(container.spec.env):
            ref = _of_source(variable.value_from, kind) if variable.value_from else None
            if ref and ref.name == name:
                path = f"{container.pointer}/env/{index}/valueFrom/{field}/name"
                operations.append({"op": "replace", "path": path, "value": other})
        whole = "secretRef" if kind == "Secret" else "configMapRef"
        for index, source in enumerate(container.spec.env_from):
            if _of_whole(source, kind) == name:
                path = f"{container.pointer}/envFrom/{index}/{whole}/name"
                operations.append({"op": "replace", "path": path, "value": other})
    for index, volume in enumerate(pod.spec.volumes):
        if _of_volume(volume, kind)[0] == name:
            tail = "secret/secretName" if kind == "Secret" else "configMap/name"
            operations.append({"op": "replace", "path": f"/volumes/{index}/{tail}", "value": other})
    return operations

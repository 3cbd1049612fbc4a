"""Volumes that a fix mounts or grows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.place import filled
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.units import GIB, units
from kubectl_llmdoctor.fixes.patches import patch, patch_object
from kubectl_llmdoctor.fixes.paths import appended
from kubectl_llmdoctor.fixes.words import advice, edited
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.tree import dig


def _place_of(mount: k8s.VolumeMount, pod: Pod) -> int | None:
    """Which of the pod's volumes a mount is of; None where none has that name."""
    return next((at for at, volume in enumerate(pod.spec.volumes) if volume.name == mount.name), None)


def mount_shm(container: Container, size: str, summary: str) -> Fix:
    """Mount a memory-backed emptyDir at /dev/shm; `size` is a quantity."""
    pod = container.pod
    mount = container.mount_at("/dev/shm")
    memory = {"medium": "Memory", "sizeLimit": size}
    if mount:
        index = _place_of(mount, pod)
        if index is None:
            return advice(f"{summary}: the volume {mount.name} is not declared in {edited(pod)}")
        value = {"name": mount.name, "emptyDir": memory}
        return patch(pod, summary, [{"op": "replace", "path": f"/volumes/{index}", "value": value}])
    if spare := _spare_memory(pod, size):
        text = f"Mount the volume {spare}, which no container mounts, at /dev/shm"
        mounts = appended(
            f"{container.pointer}/volumeMounts",
            {"name": spare, "mountPath": "/dev/shm"},
            exists=bool(container.spec.volume_mounts),
        )
        return patch(pod, text, mounts)
    volume = {"name": free_name(pod, "dshm"), "emptyDir": memory}
    return patch(pod, summary, mounted(container, volume, "/dev/shm"))


def _spare_memory(pod: Pod, size: str) -> str:
    """The memory-backed volume that is declared and forgotten, where it has so much room; empty where there is none."""
    taken = {mount.name for container in pod.containers for mount in container.spec.volume_mounts}
    for volume in pod.spec.volumes:
        scratch = volume.empty_dir if volume.name not in taken else None
        # GKE's sidecar takes those that are called as it calls them
        if scratch and scratch.medium == "Memory" and not volume.name.startswith("gke-gcsfuse-"):
            room = units(scratch.size_limit)
            return volume.name if room is None or room >= (units(size) or 0) else ""
    return ""


def mount_scratch(container: Container, paths: Sequence[str], summary: str) -> Fix:
    """Mount directories of one new emptyDir at `paths`, at which nothing is mounted."""
    name = free_name(container.pod, "scratch")
    mounts = [{"name": name, "mountPath": path, "subPath": path.strip("/").replace("/", "-")} for path in paths]
    operations = appended("/volumes", {"name": name, "emptyDir": {}}, exists=bool(container.pod.spec.volumes))
    operations += appended(f"{container.pointer}/volumeMounts", *mounts, exists=bool(container.spec.volume_mounts))
    return patch(container.pod, summary, operations)


def grow(container: Container, mount: k8s.VolumeMount, least: int | None, summary: str) -> Fix | None:
    """Give a volume twice the room that it has, or so much that `least` bytes fit: a larger claim, or one in place of an emptyDir.

    The limit of an emptyDir is no wall: what writes more is evicted, and what meets the end of the disk has that of the node.
    """
    pod = container.pod
    index = _place_of(mount, pod)
    volume = pod.spec.volumes[index] if index is not None else None
    claim = volume.persistent_volume_claim if volume else None
    if mount.read_only or (claim and claim.read_only):  # nothing that is written there fills it
        return None
    item = pod.cluster.item("PersistentVolumeClaim", pod.namespace, claim.claim_name) if claim else None
    if item is not None:
        if _stays_as_it_is(item, pod.cluster):
            return None
        at = "spec.resources.requests.storage"
        told = (units(dig(item.raw, path)) or 0 for path in ("status.capacity.storage", at))
        size = larger(max(told), least)
        operation = {"op": "replace", "path": "/" + at.replace(".", "/"), "value": size}
        return patch_object(item, summary.format(size=size, what=f"claim {item.name}"), [operation]) if size else None
    scratch = volume.empty_dir if volume else None
    if volume is None or scratch is None or scratch.medium == "Memory" or filled(container, volume):
        return None
    # who may write into an emptyDir, and not into a claim
    if not container.may_be_root and pod.spec.security_context.fs_group is None:
        return None
    meant = (units(scratch.size_limit) or 0) * 3 // 4
    if not (size := larger(None, max(meant, least or 0))):
        return None
    instead = {"op": "replace", "path": f"/volumes/{index}", "value": _made_with_each_pod(mount.name, size)}
    return patch(pod, summary.format(size=size, what=f"emptyDir {mount.name}"), [instead])


def _made_with_each_pod(name: str, size: str) -> dict[str, Any]:
    """A volume for a claim that each pod has of its own, as an emptyDir."""
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": asked}}}


def _stays_as_it_is(claim: Item, cluster: Cluster) -> bool:
    """Whether the API server refuses a larger request of a claim: it is bound to nothing, or its class lets none grow."""
    name, phase = dig(claim.raw, "spec.storageClassName"), dig(claim.raw, "status.phase")
    known = cluster.item("StorageClass", "", str(name)) if name else None
    return phase == "Pending" or name == "" or (known is not None and known.raw.get("allowVolumeExpansion") is not True)


def larger(have: int | None, least: int | None) -> str:
    """Twice an amount of bytes, or a third more than what must fit, in tens of GiB; empty where nothing is known."""
    wanted = max(2 * (have or 0), (least or 0) * 4 // 3)
    return f"{-(-wanted // (10 * GIB)) * 10}Gi" if wanted else ""


def mount_new_claim(container: Container, path: str, name: str, size: str, summary: str) -> Fix:
    """Make a claim, and mount it at `path`, at which nothing is mounted: it outlasts the pod."""
    pod = container.pod
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }
    volume = {"name": free_name(pod, "model-cache"), "persistentVolumeClaim": {"claimName": name}}
    made = patch(pod, summary, mounted(container, volume, path))
    document = shlex.quote(msgspec.json.encode(claim).decode())
    create = f"echo {document} | kubectl -n {shlex.quote(pod.namespace)} create -f -"
    return msgspec.structs.replace(made, commands=(create, *made.commands))


def mount_claim(container: Container, path: str, size: str, summary: str) -> Fix:
    """Mount a volume of its own, made with each pod, at `path`, at which nothing is mounted."""
    pod, name = container.pod, free_name(container.pod, "model-cache")
    return patch(pod, summary, mounted(container, _made_with_each_pod(name, size), path))


#: Where a private authority is mounted, and the variables by which OpenSSL, Go, Rust and Python's libraries find it.
_AUTHORITY, _AUTHORITY_AT = "private-ca", "/etc/private-ca"


_AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def mount_authority(container: Container, summary: str) -> Fix:
    """Mount the ConfigMap private-ca, and name its file ca.crt where programs look for authorities."""
    if any(name in container.env for name in _AUTHORITY_VARIABLES):
        named = ", ".join(f"{n} ({container.env[n].origin})" for n in _AUTHORITY_VARIABLES if n in container.env)
        return advice(f"{summary}: put the authority into the file that {named} of {edited(container.pod)} names")
    name = free_name(container.pod, _AUTHORITY)
    volume = {"name": name, "configMap": {"name": _AUTHORITY}}
    variables = [{"name": variable, "value": f"{_AUTHORITY_AT}/ca.crt"} for variable in _AUTHORITY_VARIABLES]
    added = appended(f"{container.pointer}/env", *variables, exists=bool(container.spec.env))
    return patch(container.pod, summary, mounted(container, volume, _AUTHORITY_AT) + added)


def free_name(pod: Pod, name: str) -> str:
    """A name that no volume of the pod has."""
    taken = {volume.name for volume in pod.spec.volumes}
    return next(n for i in range(1, 99) if (n := f"{name}-{i}" if i > 1 else name) not in taken)


def mounted(container: Container, volume: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """The operations that add a volume to the pod and mount it."""
    mount = {"name": volume["name"], "mountPath": path}
    added = appended("/volumes", volume, exists=bool(container.pod.spec.volumes))
    return added + appended(f"{container.pointer}/volumeMounts", mount, exists=bool(container.spec.volume_mounts))

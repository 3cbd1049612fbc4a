"""A program that ends since a folder is where it opens a file: a ConfigMap or Secret is mounted at the name of one of its files."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    endings,
    fixes,
    k8s,
    last_words,
    log_evidence,
    log_of,
    pod_evidence,
)
from llmdoctor_checks._consequences import FAILED_START

#: errno's text for EISDIR, as Python, Go and C print it with the path.
LITERALS = ("Is a directory", "is a directory")
_FOLDER = (
    r"Is a directory: '(?P<quoted>/[^'\n]{1,300})'"
    r"|\b(?:read|open) (?P<go>/[^\s:\"]{1,300}): is a directory"
    r"|(?<![\w.-])(?P<bare>/[\w./+@-]{1,300}): Is a directory"
)


def folder_for_file(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """Whose last words are of a folder, at which its container mounts a volume that holds files."""
    for ending in endings(pod) if logs is not None else ():
        log = log_of(ending, logs) if ending.code else None
        last = last_words(log) if log is not None else set()
        for line in (x for x in (log.find(*LITERALS) if log is not None else ()) if x.number in last):
            said = re.search(_FOLDER, line.text[:4000])
            path = next((one for one in said.groups() if one), "").rstrip("/") if said else ""
            mount = ending.container.mount_at(path) if path else None
            volume = pod.volume(mount.name) if mount else None
            if mount is not None and volume is not None and (volume.config_map or volume.secret):
                brought = _keys(volume, pod, cluster)
                # a folder that is meant to be one, or a key that came since
                if not any(f"{key}/".startswith(f"{mount.sub_path}/") for key in brought[1] if mount.sub_path):
                    yield _finding(pod, ending.container, line, mount, brought)
                return


def _keys(volume: k8s.Volume, pod: Pod, cluster: Cluster) -> tuple[str, tuple[str, ...]]:
    """`ConfigMap litellm`, and the files that it brings, as far as they are known."""
    kind, name = ("ConfigMap", volume.config_map.name) if volume.config_map else ("Secret", "")
    items = volume.config_map.items if volume.config_map else ()
    if volume.secret:
        name, items = volume.secret.secret_name, volume.secret.items
    data = cluster.field(kind, pod.namespace, name, "data")
    listed = [one.path for one in items] or ([str(key) for key in data] if isinstance(data, dict) else [])
    return f"{kind} {name}", tuple(listed)


def _finding(
    pod: Pod, container: Container, line: Line, mount: k8s.VolumeMount, brought: tuple[str, tuple[str, ...]]
) -> Finding:
    source, keys = brought
    path, name = mount.mount_path, mount.mount_path.rstrip("/").rpartition("/")[2]
    at = f"volumeMounts[{mount.name}]"
    if mount.sub_path:
        why = f"{source} has no {mount.sub_path} (subPath), so that the kubelet made an empty folder there"
        shown = pod_evidence(container, f"{at}.subPath", mount.sub_path)
    else:
        why = f"{source} is mounted there as a whole, without a subPath"
        shown = pod_evidence(container, at, f"mountPath {path}, no subPath")
    return Finding(
        confidence="certain",
        summary=f"{container.name} opens {path} as a file, and it is a folder: {why}.",
        evidence=(log_evidence(line), shown),
        explains=("engine-args-invalid", "model-not-found", *FAILED_START),
        fix=_one_file(pod, container, mount, name, keys),
        order=line.order,
    )


def _one_file(pod: Pod, container: Container, mount: k8s.VolumeMount, name: str, keys: tuple[str, ...]) -> Fix:
    """The file of the path's own name, or the only one that there is."""
    key = name if name in keys else keys[0] if len(keys) == 1 else ""
    if not key:
        listed = f" ({', '.join(keys[:6])})" if keys else ""
        return fixes.advice(
            f"Set subPath of the mount at {mount.mount_path} to the key that holds the file{listed}, in {fixes.edited(pod)}"
        )
    index = container.spec.volume_mounts.index(mount)
    at = f"{container.pointer}/volumeMounts/{index}/subPath"
    return fixes.set_spec(pod, at, key, f"Mount the file {key} alone at {mount.mount_path} (subPath)")

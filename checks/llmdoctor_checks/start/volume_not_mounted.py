"""A volume that the server needs, mounted elsewhere or nowhere."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Setting,
    check,
    fixes,
    k8s,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks._consequences import FAILED_START

#: How servers say that a file is not there: Python, llama.cpp.
_ABSENT_TEXTS = ("No such file or directory: '/", "failed to open file '/")
_ABSENT = r"(?:No such file or directory: |failed to open file )'(?P<path>/[^'\n]{1,300})'"

_EXPLAINS = ("model-not-found", "chat-template-missing", "lora-adapter-missing", "engine-args-invalid", *FAILED_START)


@check("volume-not-mounted", since="0.2", severity="warning", literals=_ABSENT_TEXTS)
def volume_not_mounted(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A volume that the server needs is declared, and not mounted in its container.

    `volumes` only says what the pod may mount; each container must name it under `volumeMounts`. An init container that
    downloads the model to a volume leaves nothing in the server's container unless that mounts the same volume, and a
    model path without a mount is looked for in the image: vLLM then takes it for a repository of the Hub and says that
    it is not a valid id.

    It is a risk where the engine's model lies under a path at which another container mounts the volume, and the cause where the
    server failed. An emptyDir that the server alone mounts there is no help: nobody puts a model into it. It is so, too, where its
    model lies under no mount and no container mounts the one volume that may hold it.
    The same holds of another file that its arguments or variables name (a chat template, an adapter) and that it did not find.
    A volume that no container mounts is noted: it still has to be bound and attached before the pod starts.

    ## Fix

    Mount the volume in the engine's container, at the path that the model's name begins with:

        volumeMounts: [{name: models, mountPath: /models}]

    ## References

    - https://kubernetes.io/docs/concepts/storage/volumes/
    """
    if pod.completed or pod.log_only or (pod.exists and pod.ready):
        return
    container, model = engine.container, engine.explicit("model")
    path = str(model.value) if model is not None else ""
    own = container.mount_over(path)
    if model is not None and path.startswith("/") and (own is None or _nobody_fills(container, own)):
        other = _elsewhere(container, path)
        if other:
            whose, mount = other
            instead = f", which has the empty {own.name} there" if own else ""
            failing = container.crashed
            yield Finding(
                role="cause" if failing else "risk",
                severity="critical",
                summary=f"{engine.label} loads its model from {path}, but volume {mount.name} is mounted at {mount.mount_path} "
                f"only in {whose.name}, not in {container.name}{instead}.",
                evidence=(
                    setting_evidence(container, model),
                    pod_evidence(whose, f"volumeMounts[{mount.name}]", mount.mount_path),
                    pod_evidence(container, "volumeMounts", _mounts(container)),
                ),
                explains=("model-not-found", "crash-loop", "not-ready") if failing else (),
                fix=_mount(container, mount),
            )
            return
    if pod.exists:
        if model is not None and path.startswith("/"):
            yield from _forgotten(pod, engine, model)
        yield from _missed(pod, engine, logs)
        return
    if unused := [volume for volume in _unmounted(pod) if _meant(volume)]:
        names = ", ".join(volume.name for volume in unused)
        yield Finding(
            role="note",
            confidence="certain",
            summary=f"No container mounts the declared {'volumes' if len(unused) > 1 else 'volume'} {names}.",
            evidence=tuple(_declared(pod, volume) for volume in unused),
            fix=fixes.advice(f"Mount {names} in {container.name} or take the declaration out, in {fixes.edited(pod)}"),
        )


def _forgotten(pod: Pod, engine: Engine, model: Setting) -> Iterator[Finding]:
    """A server that failed, whose model lies under no mount, while a volume that may hold it is mounted by nobody."""
    container = engine.container
    failing = container.crashed
    unused = [volume for volume in _unmounted(pod) if _stores(volume)]
    if not failing or container.mount_over(str(model.value)) is not None or len(unused) != 1:
        return
    yield Finding(
        severity="critical",
        summary=f"{engine.label} loads its model from {model.value}, where {container.name} mounts nothing; no container mounts the "
        f"volume {unused[0].name}.",
        evidence=(
            setting_evidence(container, model),
            _declared(pod, unused[0]),
            pod_evidence(container, "volumeMounts", _mounts(container)),
        ),
        explains=("model-not-found", *FAILED_START),
        fix=fixes.advice(
            f"Mount the volume {unused[0].name} in {container.name} so that it brings {model.value} "
            f"(at {_above(str(model.value))} or a folder above), in {fixes.edited(pod)}"
        ),
    )


def _above(path: str) -> str:
    """The folder in which a file or folder lies; itself below the root."""
    return path.rpartition("/")[0] or path


def _missed(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A server that failed for a file that it was told of, whose path lies under no mount: a volume for it is left over."""
    container = engine.container
    if not container.crashed:
        return
    for path, line in _absent(container, logs):
        other = _elsewhere(container, path)
        unused = [volume for volume in _unmounted(pod) if _brings(volume)]
        if other:
            whose, mount = other
            said = f"volume {mount.name} is mounted at {mount.mount_path} only in {whose.name}, not in {container.name}"
            evidence = pod_evidence(whose, f"volumeMounts[{mount.name}]", mount.mount_path)
            fix = _mount(container, mount)
        elif len(unused) == 1:
            name = unused[0].name
            said = f"{container.name} mounts nothing there, and no container mounts the volume {name}"
            evidence = _declared(pod, unused[0])
            fix = fixes.advice(
                f"Mount the volume {name} in {container.name} so that it brings {path} "
                f"(at {_above(path)} or a folder above), in {fixes.edited(pod)}"
            )
        else:
            continue
        yield Finding(
            severity="critical",
            summary=f"{engine.label} was told of {path} and did not find it: {said}.",
            evidence=(log_evidence(line), evidence, pod_evidence(container, "volumeMounts", _mounts(container))),
            explains=_EXPLAINS,
            fix=fix,
            order=line.order,
        )
        return


def _absent(container: Container, logs: Logs | None) -> Iterator[tuple[str, Line]]:
    """Files that the container's arguments or variables name, that the log says are absent, and that no mount holds."""
    spec = container.spec
    told = "\n".join(str(word) for word in (*spec.argv, *(v.value or "" for v in spec.env)))
    for log in container.own_logs(logs):
        for line, said in log.matching(_ABSENT, *_ABSENT_TEXTS):
            if said["path"] in told and container.mount_over(said["path"]) is None:
                yield said["path"], line


def _brings(volume: k8s.Volume) -> bool:
    """Whether a volume may hold a file before the pod starts."""
    return _stores(volume) or volume.config_map is not None or volume.secret is not None


def _stores(volume: k8s.Volume) -> bool:
    """Whether a volume may hold a model before the pod starts."""
    return _meant(volume) and bool(volume.persistent_volume_claim or volume.host_path)


def _elsewhere(container: Container, path: str) -> tuple[Container, k8s.VolumeMount] | None:
    """Another container that mounts a volume over the path, if the volume is not in this one under another path."""
    mine = {mount.name for mount in container.spec.volume_mounts}
    for other in container.pod.containers:
        mount = other.mount_over(path) if other is not container else None
        if mount and mount.mount_path != "/" and mount.name not in mine:
            return other, mount
    return None


def _nobody_fills(container: Container, mount: k8s.VolumeMount) -> bool:
    """Whether a mount is of an emptyDir that no other container mounts, in a container that runs no script to fill it."""
    volume = container.pod.volume(mount.name)
    others = [c for c in container.pod.containers if c is not container]
    shell = any(re.search(r"(?:^|/)(?:ba|da)?sh$", str(word)) for word in container.spec.command[:1])
    return (
        volume is not None
        and volume.empty_dir is not None
        and not shell
        and not any(m.name == mount.name for c in others for m in c.spec.volume_mounts)
    )


def _mount(container: Container, mount: k8s.VolumeMount) -> Fix:
    for index, own in enumerate(container.spec.volume_mounts):
        if own.mount_path.rstrip("/") == mount.mount_path.rstrip("/"):
            replaced = {"op": "replace", "path": f"{container.pointer}/volumeMounts/{index}/name", "value": mount.name}
            return fixes.patch(container.pod, f"Mount {mount.name} at {own.mount_path} in {container.name}", [replaced])
    value: dict[str, object] = {"name": mount.name, "mountPath": mount.mount_path}
    if mount.sub_path:
        value["subPath"] = mount.sub_path
    has = bool(container.spec.volume_mounts)
    path = f"{container.pointer}/volumeMounts"
    return fixes.set_spec(
        container.pod,
        f"{path}/-" if has else path,
        value if has else [value],
        f"Mount {mount.name} at {mount.mount_path} in {container.name}",
    )


def _mounts(container: Container) -> str:
    return ", ".join(m.mount_path for m in container.spec.volume_mounts) or "none"


def _unmounted(pod: Pod) -> list[k8s.Volume]:
    mounted = {mount.name for container in pod.containers for mount in container.spec.volume_mounts}
    return [volume for volume in pod.spec.volumes if volume.name not in mounted]


def _meant(volume: k8s.Volume) -> bool:
    """Whether a volume is one that a person meant to be used: a block device is named under volumeDevices instead.

    GKE's sidecar for Cloud Storage mounts what is declared under its own names.
    """
    if volume.name.startswith("gke-gcsfuse-"):
        return False
    return bool(volume.empty_dir or volume.host_path or volume.config_map or volume.secret) or (
        volume.persistent_volume_claim is not None
    )


def _declared(pod: Pod, volume: k8s.Volume) -> Evidence:
    claim = volume.persistent_volume_claim
    text = f"persistentVolumeClaim: {claim.claim_name}" if claim else "declared"
    return pod_evidence(pod, f"volumes[{volume.name}]", text)

"""A model that only the leader of a group downloads, to a volume of its own; a repository without one."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Logs,
    Pod,
    Setting,
    Subject,
    check,
    dig,
    fixes,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks._raw import QUOTED

#: How Triton heads the table of its models (server.cc), whose rows stand between two lines of dashes.
_TABLE = "| Model | Version | Status |"
#: What brings files to a directory.
_BRINGS = (
    r"\b(?:download|snapshot_download|git clone|aws s3|gsutil|gcloud storage|s5cmd|rclone|rsync|wget|curl|azcopy)\b"
)
#: What may make a path within the container itself: a command, or a script.
_MAKES = r"\b(?:cp|mv|ln|mkdir|mount|tar|unzip|git|hf|dvc|mc)\s|download|fetch|pull|(?<!a)sync|\.(?:sh|bash|py)\b"
#: The images of the projects themselves, which hold no model.
_PUBLISHED = (
    r"^(?:(?:docker\.io/)?(?:vllm/vllm-openai(?:-cpu|-rocm)?|lmsysorg/sglang|openmmlab/lmdeploy)"
    r"|ghcr\.io/(?:huggingface/text-(?:generation|embeddings)-inference|ggml-org/llama\.cpp))(?:$|[:@])"
)
#: Where KServe mounts what storageUri names, and the claim of a pvc:// beside it.
_OF_KSERVE = ("/mnt/models/", "/mnt/pvc/")
_KSERVE = ("serving.kserve.io/", "serving.kubeflow.org/")
#: Settings by which llama.cpp downloads the model, to the very path that it is given beside them.
_DOWNLOADS = ("model_repo", "model_url", "model_image")


@check("model-not-found", since="0.1", literals=(_TABLE,))
def model_not_found(pod: Pod, engine: Engine, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The model is not where the engine looks.

    The name, path, revision or file that the engine was given does not exist: a mistyped repository, a folder that no volume
    brings into this container, a branch that is not there, a folder with only part of a model, or a repository in another
    format (GGUF only, an adapter only). A path that does not exist is taken for a repository of the hub, so the message may
    speak of repository names. An anonymous or expired token gives similar last lines; then the line above says so.

    Triton starts without any model where its repository is empty, as after a copy of a prefix under which nothing lies: it is
    up, and what asks for a model of it gets 400.

    In a manifest it is a risk where a project's own image, which holds no model, is to read one from a path that no volume
    brings: a mount is missing, or the path is another than that of the mount (KServe's is /mnt/models). It is one as well where
    an engine over several pods reads its model from a path that the leader alone fills: the leader's script or init container
    downloads to an emptyDir, and that of each worker at the same path stays empty. Every rank reads the weights from its own
    disk.

    ## Fix

    Compare the name with the model's page; look into the volume from a pod that mounts it; give the engine the folder that holds
    config.json.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    - https://huggingface.co/docs/huggingface_hub/guides/download
    """
    if pod.exists:
        if engine.name == "triton" and logs is not None and not pod.ready:
            yield from _repository_of_nothing(engine, logs)
        return
    model = engine.explicit("model")
    path = str(model.value).rstrip("/") if model else ""
    if model is None or not path.startswith("/"):
        return
    yield from _brought_by_nothing(engine, model, path)
    if len(subject.pods) < 2 or engine.value("nnodes", 1) != 1:
        return
    own, workers = engine.container.devices, engine.workers
    if not pod.template or pod.template.part != "leader" or not own or not workers or workers <= own:
        return
    brought = _brought(pod, path)
    if brought is None:
        return
    for worker in subject.pods:
        if worker is pod or not worker.template or worker.template.part != "worker":
            continue
        empty = _empty_dir(worker, path)
        if empty is None or _brought(worker, path) is not None:
            continue
        yield Finding(
            role="risk",
            severity="critical",
            confidence="likely",
            summary=f"Only the leader downloads the model to {path}; the workers of {engine.title} have an emptyDir of their own there, "
            "which stays empty, and each reads the weights from its own.",
            evidence=(
                brought,
                pod_evidence(worker, f"volumes[{empty}].emptyDir", "an emptyDir of the worker"),
                setting_evidence(engine.container, model),
            ),
            fixes=(
                fixes.advice(
                    f"Download in the template of the workers as well, or mount a volume that all pods read, in {fixes.edited(pod)}"
                ),
            ),
        )
        return


def _brought_by_nothing(engine: Engine, model: Setting, path: str) -> Iterator[Finding]:
    """A path to the model in an image without any, over which the template mounts nothing."""
    pod, container = engine.pod, engine.container
    if pod.completed or pod.lent or not re.search(_PUBLISHED, container.spec.image):
        return
    inside = any(mount.mount_path.startswith(f"{path}/") for mount in container.spec.volume_mounts)
    if inside or container.mount_over(path) or any(engine.value(name) for name in _DOWNLOADS):
        return
    if container.spec.lifecycle or any(re.search(f"{_BRINGS}|{_MAKES}", text) for _, text in container.words):
        return
    raw = pod.template.raw if pod.template else {}
    of_kserve = str(raw.get("apiVersion", "")).startswith(_KSERVE)
    if of_kserve and (f"{path}/".startswith(_OF_KSERVE) or dig(raw, "spec.predictor.model.storageUris")):
        return
    kserve = of_kserve and (
        any(dig(raw, f"spec.predictor.model.{name}") for name in ("storageUri", "storage"))
        or "STORAGE_URI" in container.env
    )
    where = "KServe puts the model at /mnt/models" if kserve else "no volume is mounted there"
    yield Finding(
        role="risk",
        severity="critical",
        confidence="likely",
        summary=f"{engine.title} is to read its model from {path}, where its image has nothing: {where}.",
        evidence=(setting_evidence(container, model), pod_evidence(container, "image", container.spec.image)),
        fixes=(
            fixes.advice(
                (
                    f"Give {model.flag or 'the engine'} /mnt/models"
                    if kserve
                    else f"Mount the volume that holds the model at {path}"
                )
                + f" in {fixes.edited(pod)}"
            ),
        ),
    )


def _repository_of_nothing(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A Triton that is up, and whose table of models has no row: it found none in its repository."""
    if engine.value("model_control_mode", "none") != "none":
        return  # which models it has is up to its clients, or to the next look at the repository
    log = logs.current(engine.container.name)
    line = next(iter(log.find(_TABLE)), None) if log else None
    if log is None or line is None:
        return
    below = [after.text for after in log.lines(line.number + 1, line.number + 2)]
    if len(below) < 2 or not all(text.startswith("+--") for text in below):
        return
    repository = engine.explicit("model_repository")
    yield Finding(
        role="cause",
        severity="critical",
        confidence="likely",
        summary=f"{engine.title} found no model in its repository"
        + (f" {repository.value}" if repository else "")
        + ": it is up, and serves none.",
        evidence=(log_evidence(line), *([setting_evidence(engine.container, repository)] if repository else [])),
        explains=("storage-initializer-failed", "not-ready", "rollout-stuck"),
        fixes=(
            fixes.advice(
                "Look at what lies there (one folder for each model, with a folder for each version in it), and at the prefix or "
                f"claim that it is from, in {fixes.edited(engine.pod)}"
            ),
        ),
        order=line.order,
        pods=(engine.pod.name,),
    )


def _empty_dir(pod: Pod, path: str) -> str | None:
    """The emptyDir under a path of the pod's GPU container."""
    for container in pod.containers:
        mount = container.mount_over(path) if container.role != "init" and container.devices else None
        volume = pod.volume(mount.name) if mount else None
        if mount and volume is not None and volume.empty_dir is not None:
            return mount.name
    return None


def _brought(pod: Pod, path: str) -> Evidence | None:
    """What brings the model to the emptyDir under a path: an init container, of which little need be known, or a script."""
    name = _empty_dir(pod, path)
    mounting = [c for c in pod.containers if name and any(mount.name == name for mount in c.spec.volume_mounts)]
    for container in mounting:
        if found := _fetches(container):
            return found
    return next((pod_evidence(c, "image", c.spec.image) for c in mounting if c.role == "init"), None)


def _fetches(container: Container) -> Evidence | None:
    for path, text in container.words:
        if found := re.search(_BRINGS, text):
            line = text[max(found.start() - 40, 0) :].partition("\n")[0]
            return pod_evidence(container, path, line[:QUOTED])
    return None

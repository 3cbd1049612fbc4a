"""A model that only the leader of a group downloads, to a volume of its own; a repository without one."""

import re
from collections.abc import Iterator
from posixpath import basename, dirname, normpath

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Setting,
    Subject,
    check,
    dig,
    expression,
    fixes,
    k8s,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks.start._init_containers import script_of
from llmdoctor_checks.start._scripts import quoted

#: How Triton heads the table of its models (server.cc), whose rows stand between two lines of dashes.
_TABLE, _LOADED = "| Model | Version | Status |", "successfully loaded '"
#: A row of the table of its options, which it prints below that one.
_MODE = "| model_control_mode "
_MODES = expression(r"\| model_control_mode {1,80}\| MODE_(\w{1,20})")
#: What brings files to a directory.
_BRINGS = (
    r"\b(?:download|snapshot_download|git clone|aws s3|gsutil|gcloud storage|s5cmd|rclone|rsync|wget|curl|azcopy)\b"
)
#: What may make a path within the container itself: a command, or a script.
_MAKES = r"\b(?:cp|mv|ln|mkdir|mount|tar|unzip|git|hf|dvc|mc)\s|download|fetch|pull|(?<!a)sync|\.(?:sh|bash|py)\b"
#: Where a download goes, in an option of the Hub's clients or as the target of a copy from a bucket.
_INTO = (
    r"(?:--local-dir|--local_dir|--output-dir|local_dir)[ =]{1,3}[\"']?(?P<to>/[\w./-]{1,200})"
    r"(?=[\"'\s),;]|$)"
)
#: What else may bring or move files in such a script.
_MOVES = r"\b(?:cp|mv|ln|cd|tar|unzip|git clone|aws s3|gsutil|gcloud storage|s5cmd|rclone|rsync|wget|curl|azcopy)\b"
#: The images of the projects themselves, which hold no model.
_PUBLISHED = (
    r"^(?:(?:docker\.io/)?(?:vllm/vllm-openai(?:-cpu|-rocm)?|lmsysorg/sglang|openmmlab/lmdeploy)"
    r"|ghcr\.io/(?:huggingface/text-(?:generation|embeddings)-inference|ggml-org/llama\.cpp)"
    r"|nvcr\.io/nvidia/tritonserver)(?:$|[:@])"
)
#: Where KServe mounts what storageUri names, and the claim of a pvc:// beside it.
_OF_KSERVE = ("/mnt/models/", "/mnt/pvc/")
_KSERVE = ("serving.kserve.io/", "serving.kubeflow.org/")
_MADE_BY_KSERVE = frozenset(f"{group}inferenceservice" for group in _KSERVE)
#: A model that is one file.
_OF_A_FILE = r"\.(?:gguf|bin|safetensors)$"
#: The label by which Datashim's webhook mounts a dataset at /mnt/datasets/NAME.
_DATASET = r"dataset\.\d{1,3}\.id"
#: Engines that read a folder or a repository, and what is packed into one file.
_READS_FOLDERS = frozenset({"vllm", "sglang", "tgi", "lmdeploy"})
_ARCHIVE = r"(?i)\.(?:tar|tar\.(?:gz|zst|xz|bz2)|tgz|zip)$"
#: Settings by which llama.cpp downloads the model, to the very path that it is given beside them.
_DOWNLOADS = ("model_repo", "model_url", "model_image")


#: llama-server without a model of its own (`server.cpp`, `server-models.cpp`): how many it knows, and that it starts one.
_HAS, _ROUTES, _SPAWNS = "operator(): Available models (", "starting server in router mode", "spawning server instance"
#: How many it has read from its cache, of a folder and of presets; and how it refuses a request for one that it does not know.
_READ, _REFUSED = "load_models: Loaded ", r"\"message\": ?\"model '[^']{1,300}' not found\""
_OF_A_URL = ("--model-url", "LLAMA_ARG_MODEL_URL")


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """A folder to which an init container downloads; `folder` is where it lies in the volume, None outside of it."""

    container: Container
    path: str
    line: str
    text: str
    folder: str | None


#: What `ollama pull` prints of a name or tag that the registry does not have (cmd and server/images.go), and how a script calls it.
_NO_MANIFEST = "pull model manifest: file does not exist"
#: What curl prints of Ollama's answer to such a request, and ends with exit code 0.
_ANSWERED = '{"error":"model \''
_PULLS = expression(
    r"\bollama[\"',\s]{1,8}pull[\"',\s]{1,8}(?P<name>[\w.:/@-]{1,200})"
    r"|/api/pull\b[^{]{0,300}\{[^{}]{0,100}?\\?\"(?:model|name)\\?\"\s{0,4}:\s{0,4}\\?\"(?P<by_curl>[^\"\\\s]{1,200})"
)
#: What Go's fmt puts in the place of a value that a program left out.
_LEFT_OUT = "%!"
#: Requests that name a model, in Ollama's access log: 404 is for one that it does not have.
_ASKED = r'^\[GIN\].{1,60}\| (?:404|200) \|.{1,80}\| POST +"(?:/api/(?:generate|chat|embed)|/v1/)'


@check(
    "model-not-found",
    since="0.1",
    literals=(_TABLE, _LOADED, _MODE, _HAS, _ROUTES, _SPAWNS, _NO_MANIFEST, _ANSWERED, "| 404 |"),
)
def model_not_found(pod: Pod, engine: Engine, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The model is not where the engine looks.

    The name, path, revision or file that the engine was given does not exist: a mistyped repository, a folder that no volume
    brings into this container, a branch that is not there, a folder with only part of a model, or a repository in another
    format (GGUF only, an adapter only). A path that does not exist is taken for a repository of the hub, so the message may
    speak of repository names. An anonymous or expired token gives similar last lines; then the line above says so.

    An init container that runs `ollama pull`, or asks /api/pull by curl, and does not end with its exit code hides that the model's name
    is wrong: Ollama is up, and answers 404.

    Triton starts without any model where its repository is empty, as after a copy of a prefix under which nothing lies: it is
    up, and what asks for a model of it gets 400. llama-server does the same with neither -m nor a repository: it is a router then,
    which has the models of --models-dir and of its cache. --model-url alone makes it one, too, and is never read.

    In a manifest it is a risk where a project's own image, which holds no model, should read one from a path that no volume
    brings: a mount is missing, or the path is another than that of the mount (KServe's is /mnt/models); of Triton, its
    repository. It is one as well where an engine over several pods reads its model from a path that the leader alone fills:
    the leader's script or init container downloads to an emptyDir, and that of each worker at the same path stays empty.
    Every rank reads the weights from its own disk. And so it is where the model should lie in an emptyDir that nobody fills:
    no other container mounts it, the script that should fill it has only comments, or an init container downloads to another
    folder.

    ## Fix

    Compare the name with the model's page; look into the volume from a pod that mounts it; give the engine the folder that holds
    config.json.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    - https://huggingface.co/docs/huggingface_hub/guides/download
    """
    if pod.exists:
        if engine.name == "triton" and logs is not None:
            yield from _repository_of_nothing(engine, logs)
        elif engine.name == "llama.cpp" and logs is not None:
            yield from _router_of_nothing(engine, logs)
        elif engine.name == "ollama" and logs is not None:
            yield from _pulled_in_vain(engine, logs)
        return
    model = engine.explicit("model_repository" if engine.name == "triton" else "model")
    path = str(model.value).rstrip("/") if model else ""
    if model is None or (engine.name == "triton" and engine.value("model_control_mode", "none") == "explicit"):
        return  # whom its clients ask to load a model they may send the files as well
    if engine.name in _READS_FOLDERS and re.search(_ARCHIVE, path) and not pod.completed:
        yield _archive(engine, model)
    if not path.startswith("/"):
        return
    yield from _brought_by_nothing(engine, model, path)
    yield from _into_an_empty_dir(engine, model, path)
    yield from _to_the_leader_alone(engine, model, path, subject)


def _pulled_in_vain(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """An init container that ended well although the registry of Ollama has no model of the name that it asked for."""
    pod, own = engine.pod, logs.current(engine.container.name)
    answers = [x for x in own.find("| 404 |", "| 200 |") if re.search(_ASKED, x.text[:2000])] if own is not None else []
    # who asks by another name since gets an answer
    last = max(answers, key=lambda line: line.number, default=None)
    asked = last if last is not None and "| 404 |" in last.text else None
    # of a server that is not ready, and whose log nobody has read, nothing else says why
    unread = own is None and pod.failing and engine.container.running
    for container in pod.containers:
        ended = container.terminated if container.role == "init" else None
        if ended is None or ended.exit_code != 0:
            continue
        line = next((one for log in logs.of(container.name) for one in log.find(_NO_MANIFEST, _ANSWERED)), None)
        if line is None:
            continue
        names = {found["name"] or found["by_curl"] for found in _PULLS.finditer(script_of(container))}
        name = names.pop() if len(names) == 1 else ""
        wanted = name or "one of the models that it should have pulled"
        at = f"status.initContainerStatuses[{container.name}].state.terminated"
        yield Finding(
            role="cause" if asked or unread else "risk",
            severity="critical" if asked or unread else "warning",
            confidence="possible" if unread else "likely",
            summary=f"Init container {container.name} did not get {wanted}, which Ollama's registry does not have by that name, and ended "
            f"with exit code 0 all the same: Ollama runs without it{', and answers 404' if asked else ''}.",
            evidence=(
                log_evidence(line),
                pod_evidence(pod, at, f"exitCode: 0, reason: {ended.reason}"),
                *((log_evidence(asked),) if asked else ()),
            ),
            explains=("not-ready",) if unread else (),
            fix=_pulled_by_name(container, name),
        )
        return


def _pulled_by_name(container: Container, name: str) -> Fix:
    """What lets an init container get a model from Ollama's registry."""
    pod = container.pod
    if name.startswith(_LEFT_OUT):
        return fixes.platform(
            f"Upgrade the operator or generator that made {pod.name}, and have it make the pod again: it put no name into the request of "
            f"{container.name} ({name} is what Go prints for a value that was left out). Until then pull the model by hand "
            "(ollama pull NAME, in the server that has the store)"
        )
    return fixes.advice(
        f"Have container {container.name} pull a model by name and tag that https://ollama.com/library has"
        f"{f', in place of {name}' if name else ''}, and end with the pull's exit code (set -e before it, curl --fail), in "
        f"{fixes.edited(pod)}"
    )


def _to_the_leader_alone(engine: Engine, model: Setting, path: str, subject: Subject) -> Iterator[Finding]:
    """A download in the template of the leader, where each worker reads the weights from a volume of its own."""
    pod, own, workers = engine.pod, engine.container.devices, engine.workers
    if len(subject.pods) < 2 or engine.value("nnodes", 1) != 1:
        return
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
            summary=f"Only the leader downloads the model to {path}; the workers of {engine.title} have an emptyDir of their own there, "
            "which stays empty, and each reads the weights from its own.",
            evidence=(
                brought,
                pod_evidence(worker, f"volumes[{empty}].emptyDir", "an emptyDir of the worker"),
                setting_evidence(engine.container, model),
            ),
            fix=fixes.advice(
                f"Download in the template of the workers as well, or mount a volume that all pods read, in {fixes.edited(pod)}"
            ),
        )
        return


def _archive(engine: Engine, model: Setting) -> Finding:
    """A model in an archive, of which no engine looks for a config.json."""
    return Finding(
        role="risk",
        severity="critical",
        summary=f"{engine.title} is told to read its model from {model.value}, an archive: it looks for config.json in a folder or a "
        "repository.",
        evidence=(setting_evidence(engine.container, model),),
        fix=fixes.advice(
            f"Unpack it, and name the folder that holds config.json and the weights in {fixes.edited(engine.pod)}"
        ),
    )


def _brought_by_nothing(engine: Engine, model: Setting, path: str) -> Iterator[Finding]:
    """A path to the model in an image without any, over which the template mounts nothing."""
    pod, container = engine.pod, engine.container
    if pod.completed or pod.lent or not re.search(_PUBLISHED, container.spec.image):
        return
    if any(
        re.fullmatch(_DATASET, label) and f"{path}/".startswith(f"/mnt/datasets/{name}/")
        for label, name in pod.labels.items()
    ):
        return
    inside = any(mount.mount_path.startswith(f"{path}/") for mount in container.spec.volume_mounts)
    if inside or container.mount_over(path) or any(engine.value(name) for name in _DOWNLOADS):
        return
    if any(other.mount_over(path) for other in pod.containers):
        return  # that it is not mounted here is told where volumes are
    if container.spec.lifecycle or any(re.search(f"{_BRINGS}|{_MAKES}", text) for _, text in container.words):
        return
    if not pod.exists and f"{path}/".startswith(_OF_KSERVE) and _MADE_BY_KSERVE.intersection(pod.labels):
        return  # what KServe makes of its object has no volume yet: its webhook gives it to the pods
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
        summary=f"{engine.title} is told to read its model from {path}, where its image has nothing: {where}.",
        evidence=(setting_evidence(container, model), pod_evidence(container, "image", container.spec.image)),
        fix=fixes.set_flag(
            engine,
            "model",
            model.flag,
            _by_kserve(path),
            f"Give {model.flag} {_by_kserve(path)}, where KServe puts the model",
        )
        if kserve and model.flag
        else fixes.advice(f"Mount the volume that holds the model at {_folder(path)} in {fixes.edited(pod)}"),
    )


def _folder(path: str) -> str:
    """Where a volume is mounted for a path: a file lies in a folder of it."""
    return dirname(path) if re.search(_OF_A_FILE, path) and dirname(path) != "/" else path


def _by_kserve(path: str) -> str:
    """Where KServe puts what an engine is to read: into a folder, in which a file keeps its name."""
    return f"/mnt/models/{basename(path)}" if re.search(_OF_A_FILE, path) else "/mnt/models"


def _into_an_empty_dir(engine: Engine, model: Setting, path: str) -> Iterator[Finding]:
    """A path to the model in an emptyDir into which nobody brings it."""
    pod, container = engine.pod, engine.container
    mount = container.mount_over(path)
    volume = pod.volume(mount.name) if mount else None
    if mount is None or volume is None or volume.empty_dir is None or mount.sub_path or pod.completed or pod.lent:
        return
    if _fills_it_itself(engine):
        return
    mounting = [c for c in pod.containers if any(m.name == mount.name for m in c.spec.volume_mounts)]
    others = [c for c in mounting if c is not container]
    if any(c.role != "init" for c in others):
        return
    brought = [target for c in pod.containers if c.role == "init" and (target := _target(c, mount.name))]
    if brought:
        told = _brought_elsewhere(brought, others, mount, path)
    else:
        told = _brought_by_nobody(container, others, mount)
    if told is None:
        return
    why, evidence, fix = told
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"{engine.title} is told to read its model from {path}, in the emptyDir {mount.name}, {why}: nothing is there.",
        evidence=(setting_evidence(container, model), evidence),
        fix=fixes.advice(f"{fix} in {fixes.edited(pod)}"),
    )


def _fills_it_itself(engine: Engine) -> bool:
    """Whether the engine's own container may bring the model: by a hook, its script, or what the engine downloads."""
    container = engine.container
    own = [*(text for _, text in container.words), *container.files.values()]
    return (
        container.spec.lifecycle is not None
        or any(re.search(f"{_BRINGS}|{_MAKES}", text) for text in own)
        or any(engine.value(name) for name in _DOWNLOADS)
    )


def _brought_by_nobody(
    container: Container, others: list[Container], mount: k8s.VolumeMount
) -> tuple[str, Evidence, str] | None:
    """Why nothing is in a volume to which no container downloads, what shows it, and what helps."""
    if not all(map(_does_nothing, others)):
        return None
    if not others and not re.search(_PUBLISHED, container.spec.image):
        return None  # an image of one's own may fill it when it starts
    why = "which no other container mounts" if not others else f"and the script of {others[0].name} does nothing"
    evidence = pod_evidence(container.pod, f"volumes[{mount.name}].emptyDir", "an emptyDir")
    return (
        why,
        evidence,
        f"Mount a volume that holds the model at {mount.mount_path}, or have an init container download it there,",
    )


def _brought_elsewhere(
    brought: list[_Target], others: list[Container], mount: k8s.VolumeMount, path: str
) -> tuple[str, Evidence, str] | None:
    """The same where containers download, and none of them to the path that the engine reads."""
    inside = path.removeprefix(mount.mount_path.rstrip("/"))
    # one whose target is not known may bring it
    if any(all(target.container is not c for target in brought) for c in others):
        return None
    if any(target.folder is not None and _meets(target.folder, inside) for target in brought):
        return None
    target = brought[0]
    name, outside = target.container.name, ", outside of it" if target.folder is None else ""
    there = _seen_by(target.container, mount.name, inside)
    return (
        f"and {name} downloads to {target.text}{outside}",
        pod_evidence(target.container, target.path, target.line),
        f"Have {name} download to {there}, or name the folder of the download as the model,",
    )


def _meets(one: str, other: str) -> bool:
    """Whether two folders are the same, or one lies in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _seen_by(container: Container, volume: str, folder: str) -> str:
    at = next((m.mount_path.rstrip("/") for m in container.spec.volume_mounts if m.name == volume), "")
    return f"{at}{folder}" if at else "the volume that the server mounts"


def _target(container: Container, volume: str) -> _Target | None:
    """Where the script of an init container downloads to, if that is said once and in plain words."""
    lines = [
        (path, line)
        for path, text in container.words
        for line in text.splitlines()
        if not line.lstrip().startswith("#")
    ]
    found = [(path, line, said) for path, line in lines for said in re.finditer(_INTO, line)]
    if len(found) != 1 or any(re.search(_MOVES, line) for _, line in lines):
        return None
    path, line, said = found[0]
    where = normpath(said["to"])
    # a folder of the volume that the script names besides may be where it brings the download
    seen = [
        m.mount_path.rstrip("/") for m in container.spec.volume_mounts if m.name == volume and m.mount_path.strip("/")
    ]
    rest = "\n".join(text for _, text in lines).replace(said["to"], "")
    if any(re.search(rf"(?<![\w.-]){re.escape(at)}(?![\w.-])", rest) for at in seen):
        return None
    mount = container.mount_over(where)
    if mount is not None and (mount.name != volume or mount.sub_path):
        return None  # another volume, whose part in it nobody knows
    folder = None if mount is None else where.removeprefix(mount.mount_path.rstrip("/"))
    return _Target(container=container, path=path, line=quoted(line.strip()), text=where, folder=folder)


def _does_nothing(container: Container) -> bool:
    """Whether it runs a shell's script that has only comments, waits and words."""
    script = [text for _, text in container.words][-1:]
    lines = [line.strip() for text in script for line in text.splitlines()]
    shell = any(re.search(r"(?:^|/)(?:ba|da)?sh$", text) for _, text in container.words)
    return shell and all(re.match(r"#|$|set [-+]|echo\b[^>|]*$|sleep\b|exit\b|true$", line) for line in lines)


def _repository_of_nothing(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A Triton that is up, and whose table of models has no row: it found none in its repository."""
    log = logs.current(engine.container.name)
    # a script may start it again
    line = log.last(_TABLE) if log else None
    if log is None or line is None or not _takes_none_later(engine, log):
        return
    below = [after.text for after in log.lines(line.number + 1, line.number + 2)]
    if len(below) < 2 or not all(text.startswith("+--") for text in below):
        return
    if any(loaded.number > line.number for loaded in log.find(_LOADED)):
        return  # a client, or a script that started it, has told it to load one
    repository = engine.explicit("model_repository")
    yield Finding(
        severity="warning" if engine.pod.ready else None,
        summary=f"{engine.title} found no model in its repository"
        + (f" {repository.value}" if repository else "")
        + ": it is up, and serves none.",
        evidence=(log_evidence(line), *([setting_evidence(engine.container, repository)] if repository else [])),
        explains=("storage-initializer-failed", "not-ready", "rollout-stuck"),
        fix=fixes.advice(
            "Look at what lies there (one folder for each model, with a folder for each version in it), and at the prefix or "
            f"claim that it is from, in {fixes.edited(engine.pod)}"
        ),
        order=line.order,
    )


def _router_of_nothing(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A llama-server that serves as a router, and knows no model: whoever asks for one is refused."""
    log = logs.current(engine.container.name)
    line = _knows_none(log) if log else None
    if log is None or line is None:
        return
    refused = next((said for said, _ in log.matching(_REFUSED, "' not found", most=2000)), None)
    model, folder = engine.explicit("model"), engine.explicit("models_dir")
    url = model if model and model.flag in _OF_A_URL else None
    meant = url or folder
    why = "nothing names a model for it"
    fix = "Name the model's file with -m, or its repository with -hf"
    if url:
        why = f"{url.flag} without -m is never read"
        fix = "Name with -m as well where the file should lie, on a volume: llama-server then fetches it from the URL and serves it"
    elif folder:
        why = f"{folder.value} holds no GGUF file"
        fix = f"Bring the models to {folder.value} (each a .gguf file, or a folder of its parts), or correct the path"
    yield Finding(
        role="cause" if meant or refused else "risk",
        severity="warning" if engine.pod.ready else None,
        summary=f"llama-server is up as a router that has no model: {why}.",
        evidence=(
            log_evidence(line),
            *([log_evidence(refused)] if refused else []),
            *([setting_evidence(engine.container, meant)] if meant else []),
        ),
        explains=("not-ready", "rollout-stuck"),
        fix=fixes.advice(f"{fix} ({fixes.edited(engine.pod)})"),
        order=line.order,
    )


def _knows_none(log: Log) -> Line | None:
    """Where a llama-server that is a router says that it knows no model, by its table or by what it read; None once it starts one."""
    line = log.last(_HAS)
    if log.holds(_SPAWNS):
        return None
    if line is not None:
        return line if _HAS + "0)" in line.text and log.holds(_ROUTES) else None
    read = list(log.find(_READ))
    return read[-1] if read and all(f"{_READ}0 " in one.text for one in read) else None


def _takes_none_later(engine: Engine, log: Log) -> bool:
    """Whether a Triton has for good what it found at its start, by the options that it prints, or else by its arguments.

    Elsewhere which models it has is up to its clients, or to the next look at the repository.
    """
    if printed := [said[1] for _, said in log.matching(_MODES, _MODE, most=2000)]:
        return printed[-1] == "NONE"
    mode = engine.get("model_control_mode")
    return mode.value == "none" if mode else engine.found.argv_known and not engine.announced


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
            return pod_evidence(container, path, quoted(line))
    return None

"""A placeholder that nobody replaced."""

import re
from collections.abc import Iterator
from itertools import pairwise

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Events,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    Subject,
    check,
    dig,
    event_evidence,
    fixes,
    k8s,
    log_evidence,
    object_evidence,
    pod_evidence,
    setting_evidence,
    table,
)
from llmdoctor_checks._consequences import FAILED_START

#: What people write for "put yours here". A chat template's `<image>` is none, and `${HF_TOKEN}` is for another tool.
_PLACEHOLDER = (
    r"< ?(?:[Yy]our|YOUR|my|MY|[Ii]nsert|INSERT|[Ee]nter|ENTER|[Rr]eplace|REPLACE|[Cc]hange|CHANGE|[Aa]dd|ADD|[Pp]aste|PASTE"
    r"|[Ii]nput|INPUT|[Ff]ill|FILL)[-_ ][\w .:/-]{1,60}>"
    r"|<[A-Z][A-Z0-9]*(?:[_-][A-Z0-9]+)+>"
    r"|<(?:[a-z0-9]+[-_])+(?:token|key|secret|password|id|name|url|bucket|registry)>"
    r"|\b(?:REPLACE|CHANGE|FILL)[_-]?(?:(?:ME|THIS)(?:_\w{1,60})?|IN)\b|\bREPLACE[_-]WITH[_-]\w{2,60}"
    r"|\bYOUR[_-][A-Z0-9_-]{2,40}\b"
    r"|\b(?:hf_|sk-|nvapi-)?(?:your|insert)[-_](?:[a-z]+[-_]){0,3}(?:token|key|secret|password|here)\b"
    r"|\bhf_(?:x{4,}|X{4,}|\*{4,}|\.{3,}|YOUR\w*)"
    r"|\byour[-_](?:org|organi[sz]ation|username)/[\w.-]{1,60}"
    r"|(?<=://)your-(?:[a-z]{2,12}-){0,2}bucket(?:-name)?\b"
    r"|(?<![\w./-])/?path/to/[\w./-]{1,60}"
)

#: What every one of them has: few values have any, and the expression takes as long as many checks.
_HINTS = ("<", "REPLACE", "CHANGE", "FILL", "YOUR", "your", "insert", "hf_", "path/to")

#: No image reference has angle brackets: whatever stands between them was to be replaced. `<%` opens a template's code.
#: `your-registry/`, `docker.io/yourusername/`: what a guide calls the reader's own. A digest of zeros stands for one to come.
_IN_IMAGE = (
    r"<[^<>%\s][^<>]*>"
    r"|(?<=@)sha256:0{64}$"
    r"|(?:(?<=/)|^)your[-_.]?(?:docker-?)?(?:account|company|hub|name|namespace|org|organi[sz]ation|project|registry|repo|repository"
    r"|user|username)\b[^/]*(?=/)"
)

#: A name that says itself what it is: MODEL_ID_PLACEHOLDER.
_NAMED = r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+){0,6}_PLACEHOLDER\b"

#: A whole value that tells its reader what to put there.
_TOLD = r"(?i)(?:please )?(?:insert|enter|paste|put|add|type) (?:in )?(?:your|the) [\w ]{2,40}"

#: A name in capitals, which no repository of an image may have: ACCOUNT_ID.dkr.ecr…, registry.example/PROJECT/vllm.
_CAPITALS = r"\b(?:[A-Z][A-Z0-9]*(?:[_-][A-Z0-9]+)+|[A-Z]{4,})\b"

#: What the Hub's client sends with every request once it is set: a wrong one is refused even for public models.
_TOKENS = frozenset(
    {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HF_API_TOKEN", "HUGGINGFACE_HUB_TOKEN"}
)

#: A model that is none.
_NO_MODEL = r"(?i)(?:placeholder|dummy|changeme|todo)(?:[-_ ]|$)"

#: A token has neither brackets nor spaces. Whoever shows a manifest to others hides it so, and Argo CD's plugin for Vault fills in a path
#: or what goes through a pipe.
_IN_BRACKETS = (
    r"<(?!(?i:(?:value[ _-])?(?:redacted|masked|hidden|removed|omitted|censored|stripped|none|nil|path:)))[^<>|]{1,60}>"
)

#: Who needs none is to take it out: `<your token, if needed>`.
_OPTIONAL = r"(?i)\b(?:if (?:needed|necessary|required|applicable|any)|optional(?:ly)?)\b"

#: What a claim says in words that the API server reads.
_OF_CLAIM = ("spec.resources.requests.storage", "spec.storageClassName", "spec.volumeName")

#: With it a NIM downloads its model.
_OF_NIM = "NGC_API_KEY"

#: Nor is one that is the name of its variable, or of another one for it, or that of the Secret which holds one.
_NO_TOKEN = rf"{_IN_BRACKETS}|(?i:{'|'.join(sorted({*_TOKENS, _OF_NIM}))})|(?:[a-z]{{1,12}}-){{1,3}}(?:token|secret)"

#: The options by which engines are told the token for the Hub (vLLM and TEI).
_HUB_OPTION = r"--hf-(?:api-)?token"

#: What the Hub's client says of a token that is none.
_REFUSED = (
    "401 Client Error",
    "Invalid credentials in Authorization header",
    "Invalid user token",
    "Invalid username or password",
)

_COMPLAINS = r"(?i)error|exception|fail|invalid|not found|cannot|could ?n.t|does ?n.t exist|no such|refused|unable"

_CONSEQUENCES = (
    "hf-unauthorized", "hf-unreachable", "model-not-found", "model-registry-failed", "image-pull-failed",
    "pvc-unbound", "secret-missing", *FAILED_START, "pod-pending", "rollout-stuck",
)  # fmt: skip


@check("placeholder-left", since="0.2", severity="warning")
def placeholder_left(pod: Pod, subject: Subject, logs: Logs | None, events: Events | None) -> Iterator[Finding]:
    """A placeholder was never replaced by a real value.

    `<YOUR_HF_TOKEN>` or `REPLACE_ME` is a valid string: the API server accepts it and the program starts with it. A token
    that is none is worse than no token, since the Hub answers 401 to it even for public models. A model, an address or a
    bucket of that name does not exist, and an image reference with `<` in it is refused by the kubelet
    (InvalidImageName), one with a digest of zeros by every registry. The name of a Secret is no token either.

    It is the cause where the pod fails and what it says names the placeholder, or the Hub refuses its token. It is a risk
    where the engine of an object in a cluster uses the value: its arguments and what they take from variables, its image,
    its token for the Hub, the volumes that it mounts. In the file of a manifest it is noted: that is a form, which its
    reader or CI fills in, and what was forgotten is refused at once by its name. Only a token is a risk there too, since
    the API server, the kubelet and the engine take any; but not one in a Secret, which is often filled in apart, nor one
    that says that it may be left out, nor that of an engine which reads its model from a folder. A name in capitals in an
    image (`PROJECT_ID`), which may be somebody's, is noted everywhere.
    `$(VAR)`, `${VAR}` and `{{ … }}`, which a tool fills in, are not meant in an object; where Triton itself finds `${…}` in
    a model's config.pbtxt, nobody filled it in.

    ## Fix

    Put in the real value, a secret one through a Secret:

        kubectl -n NAMESPACE create secret generic hf-token --from-literal=token="${HF_TOKEN:?}"

    ## References

    - https://huggingface.co/docs/hub/security-tokens
    """
    engines = {engine.container.name: engine for engine in subject.engines(pod)}
    found = [] if pod.exists and pod.ready else [*_left(pod, engines)]
    if not found:
        return
    form = _is_form(pod)
    used = [row for row in found if row[4] and (not form or _accepted(row, engines.get(row[0].name)))]
    proven = [(row, proof) for row in used if pod.failing and (proof := _proof(row[0], row[1], row[2], logs, events))]
    container, path, text, evidence, _ = proven[0][0] if proven else (used or found)[0]
    yield Finding(
        role="cause" if proven else "risk" if used else "note",
        severity="critical" if proven else "warning" if used else "info",
        summary=f"{path} of {container.name} still has the placeholder {text}{_then(container, path, text) if used else ''}.",
        evidence=(*(proof for _, proof in proven[:1]), *(row[3] for row in (used or found))),
        explains=_CONSEQUENCES if proven else (),
        fix=_fix(container, path, text, evidence, engines.get(container.name)),
    )


def _left(pod: Pod, engines: dict[str, Engine]) -> Iterator[tuple[Container, str, str, Evidence, bool]]:
    """The placeholders of a server's containers, and of what prepares it."""
    # which engine it is cannot be told by an image that nobody filled in
    unnamed = [c for c in pod.containers if c.gpus and _in_image(c.spec.image)]
    for container in pod.containers if engines or unnamed else ():
        if container.name in engines or container.role == "init" or container in unnamed:
            yield from ((container, *place) for place in _places(container, engines.get(container.name)))


def _fix(container: Container, path: str, text: str, evidence: Evidence, engine: Engine | None) -> Fix:
    """What is to stand in its place; a token goes through a Secret, and not into the object."""
    pod, name = container.pod, path.removeprefix("env[").removesuffix("]")
    own = next((variable for variable in container.spec.env if variable.name == name and path.startswith("env[")), None)
    if own is None or own.value is None or not _is_token(name, engine):
        what = "the placeholder" if text.startswith("in Secret ") else text
        at = "" if what in ("the placeholder", path) else f" in {path} of {container.name}"
        return fixes.advice(f"Replace {what}{at} by {_meant(pod, path)}, in {_where(pod, evidence)}")
    secret = "ngc-api" if name == _OF_NIM else "hf-token"
    return fixes.set_credential(container, name, secret, f"Replace {text} by the real value")


#: So many names are told.
_MOST_NAMED = 4
#: What belongs there, by how the path ends.
_MEANT = {
    "image": "the name of the image that is to run",
    ".bucketName": "the name of the bucket",
    ".persistentVolumeClaim.claimName": "the name of a claim",
    ".hostPath.path": "a folder that each node has on which the pod may run",
    ".nfs.server": "the address of the file server",
    ".nfs.path": "a path that the file server exports",
    ".requests.storage": "a size with room for the model's files",
    ".storageClassName": "the name of a storage class",
}
#: The kinds of which there may be some to choose from.
_CHOICE = {".persistentVolumeClaim.claimName": "PersistentVolumeClaim", ".storageClassName": "StorageClass"}


def _meant(pod: Pod, path: str) -> str:
    """What belongs in the place of a placeholder, with what there is of it."""
    end = next((end for end in _MEANT if path.endswith(end)), "")
    namespace = pod.namespace if end.endswith("claimName") else None
    there = [item.name for item in pod.cluster.items(_CHOICE[end], namespace)] if end in _CHOICE else []
    names = f" ({', '.join(sorted(there)[:_MOST_NAMED])})" if there else ""
    return f"{_MEANT[end]}{names}" if end else "the real value"


def _is_form(pod: Pod) -> bool:
    """Whether it stands in a file that somebody wrote, and not in one that was read from a cluster."""
    item = pod.template_of or pod.item
    return item is not None and item.origin is not None and not item.uid


def _accepted(row: tuple[Container, str, str, Evidence, bool], engine: Engine | None) -> bool:
    """Whether it is a token, which nothing looks at before the model is asked for, and one that is needed there."""
    container, path, text, *_ = row
    model = engine.explicit("model") if engine else None
    if re.search(_OPTIONAL, text) or (model is not None and str(model.value).startswith("/")):
        return False
    return _told_as_token(container, path) or (path == f"env[{_OF_NIM}]" and _is_token(_OF_NIM, engine))


def _own(text: str) -> re.Match[str] | None:
    """The first placeholder in a text, whatever it is for."""
    return re.search(_PLACEHOLDER, text) if any(hint in text for hint in _HINTS) else None


def _in_image(image: str) -> re.Match[str] | None:
    """What in the reference of an image was to be replaced."""
    return re.search(_IN_IMAGE, image) if any(hint in image for hint in ("<", "your", "@sha256:00")) else None


def _proof(container: Container, path: str, text: str, logs: Logs | None, events: Events | None) -> Evidence | None:
    """What names the placeholder when the pod fails, or says that the Hub refuses the token that it is."""
    for log in container.own_logs(logs):
        if _told_as_token(container, path):
            for literal in _REFUSED:
                if (line := next(log.find(literal), None)) is not None:
                    return log_evidence(line)
        for line in log.find(text):
            if re.search(_COMPLAINS, line.text):
                return log_evidence(line)
    for event in events or ():
        if event.warning and text in event.message:
            return event_evidence(event, container.pod.cluster)
    return None


def _told_as_token(container: Container, path: str) -> bool:
    """Whether what stands there is given to the Hub as the token."""
    return path.partition("[")[2].rstrip("]") in _TOKENS or any(place == path for place, *_ in _tokens(container))


def _then(container: Container, path: str, text: str) -> str:
    if path == "image":
        if text.startswith("your"):
            return ", a guide's word for the reader's own: what lies there, if anything, is not what is meant"
        return ": the kubelet refuses the image's name" if "<" in text else ": no registry has an image of that name"
    if path.endswith(".nfs.server"):
        return ": no file server has that address, so nothing is mounted and the pod does not start"
    if path.startswith("nodeSelector["):
        if re.search(r"[^\w.-]", text):
            return ": the API server refuses a label with such signs"
        return ": the pod waits for a node with that label"
    if path.endswith(".nfs.path"):
        return ": no file server exports that path, so nothing is mounted and the pod does not start"
    if path.endswith(_OF_CLAIM):
        return ": the API server refuses the claim, or nothing can be bound to it"
    if path.endswith(".hostPath.path"):
        return ": the node has no such folder, or an empty one is made there"
    if path.startswith("volumes["):
        return f": the pod waits for a {'bucket' if path.endswith('.bucketName') else 'volume'} of that name"
    return (
        ": the Hub answers 401 to it, even for a public model"
        if _told_as_token(container, path)
        else f", which {'it' if container.role == 'init' else 'the engine'} is given as it is"
    )


def _where(pod: Pod, evidence: Evidence) -> str:
    return evidence.ref.partition(" ")[0] if evidence.ref.startswith(("Secret/", "ConfigMap/")) else fixes.edited(pod)


#: Path, the placeholder, evidence, and whether the engine surely uses the value.
_Place = tuple[str, str, Evidence, bool]


def _places(container: Container, engine: Engine | None) -> Iterator[_Place]:
    """Where a placeholder stands."""
    template = _names_a_template(container)
    yield from _in_the_image(container, template=template)
    yield from _in_variables(container, engine)
    yield from _in_config_maps(container, engine)
    yield from ((f"env[{name}]", told[0], told[1], container.pod.exists) for name, told in _in_secrets(container))
    yield from _in_words(container, template=template)
    yield from _tokens(container)
    model = engine.explicit("model") if engine else None
    if model and re.match(_NO_MODEL, str(model.value)):
        yield model.flag or "model", str(model.value), setting_evidence(container, model), True
    yield from _of_volumes(container)
    for label, wanted in container.pod.spec.node_selector.items():
        if own := _own(str(wanted)):
            path = f"nodeSelector[{label}]"
            yield path, own[0], pod_evidence(container.pod, path, str(wanted)), True


def _in_capitals(image: str) -> re.Match[str] | None:
    """A word of the name of an image that stands for another."""
    head, _, last = image.partition("@")[0].rpartition("/")
    return re.search(_CAPITALS, f"{head}/{last.partition(':')[0]}")


def _names_a_template(container: Container) -> bool:
    """Whether a manifest is one of those in which CI and kustomize put a name in the place of such a word."""
    image = container.spec.image
    return bool(_in_capitals(image)) and not container.pod.exists and not any(mark in image for mark in "${<")


def _in_the_image(container: Container, *, template: bool) -> Iterator[_Place]:
    image = container.spec.image
    own = _own(image) or _in_image(image)
    if found := own or (_in_capitals(image) if template else None):
        yield "image", found[0], pod_evidence(container, "image", image), bool(own)


def _in_variables(container: Container, engine: Engine | None) -> Iterator[_Place]:
    settings = [str(setting.value) for setting in engine.found.settings.values()] if engine else []
    for variable in container.spec.env:
        path, value = f"env[{variable.name}]", str(variable.value) if variable.value is not None else ""
        token = _is_token(variable.name, engine)
        own = _own(value) or re.fullmatch(_TOLD, value.strip())
        own = own or (re.fullmatch(_NO_TOKEN, value.strip()) if token else None)
        if own:
            yield path, own[0], pod_evidence(container, path, value), token or any(value in s for s in settings)
        ref = variable.value_from.secret_key_ref if variable.value_from else None
        if told := _in_secret(container, ref) if ref else None:
            # a Secret is often filled in apart from the file that makes it: only what a running pod got is known
            yield path, told[0], told[1], token and container.pod.exists


def _in_words(container: Container, *, template: bool) -> Iterator[_Place]:
    """In the command and its arguments, but not in comments of a script."""
    for path, text in container.words:
        for line in text.splitlines():
            code = line.partition(" #")[0]
            if code.lstrip().startswith("#"):
                continue
            own = _own(code)
            if found := own or re.search(_NAMED, code):
                yield path, found[0], pod_evidence(container, path, line.strip()), bool(own) or not template


def _is_token(name: str, engine: Engine | None) -> bool:
    return name in _TOKENS or (name == _OF_NIM and engine is not None and engine.name == "nim")


def _in_config_maps(container: Container, engine: Engine | None) -> Iterator[tuple[str, str, Evidence, bool]]:
    """Tokens that it takes from a ConfigMap of the same files, which is no place to fill one in later."""
    for name, variable in container.env.items():
        kind, _, place = variable.origin.partition(" ")
        if kind != "ConfigMap" or not _is_token(name, engine) or not variable.value:
            continue
        own = _own(variable.value) or re.fullmatch(_NO_TOKEN, variable.value.strip())
        item = container.pod.config_map(place.partition("/")[0])
        if own and item:
            yield f"env[{name}]", own[0], object_evidence(item, f"data.{place.partition('/')[2]}", variable.value), True


def _tokens(container: Container) -> Iterator[tuple[str, str, Evidence, bool]]:
    """Tokens for the Hub among the arguments that are none."""
    for (path, word), (after, following) in pairwise([*container.words, ("", "")]):
        flag, equals, value = word.partition("=")
        if re.fullmatch(_HUB_OPTION, flag) and re.fullmatch(_NO_TOKEN, given := value if equals else following):
            place = path if equals else after
            yield place, given, pod_evidence(container, place, word if equals else following), True


def _of_volumes(container: Container) -> Iterator[tuple[str, str, Evidence, bool]]:
    """The claims and the buckets of the volumes that it mounts."""
    for name in dict.fromkeys(mount.name for mount in container.spec.volume_mounts):
        volume = container.pod.volume(name)
        values = volume.csi.get("volumeAttributes") if volume is not None and volume.csi is not None else None
        said = [(f"csi.volumeAttributes.{key}", str(value)) for key, value in table(values).items()]
        if volume and volume.persistent_volume_claim:
            said.append(("persistentVolumeClaim.claimName", volume.persistent_volume_claim.claim_name))
        if volume and volume.host_path:
            said.append(("hostPath.path", volume.host_path.path))
        if volume and volume.nfs:
            said += [(f"nfs.{key}", str(volume.nfs.get(key))) for key in ("server", "path")]
        for place, value in said:
            if own := _own(value):
                path = f"volumes[{name}].{place}"
                yield path, own[0], pod_evidence(container.pod, path, value), True
        claim = volume.persistent_volume_claim if volume else None
        yield from _of_claim(container, name, claim.claim_name) if claim else ()


def _of_claim(container: Container, volume: str, name: str) -> Iterator[tuple[str, str, Evidence, bool]]:
    """The claim itself, where it is in the same files: its size is a quantity, its class and volume are names."""
    item = container.pod.cluster.item("PersistentVolumeClaim", container.pod.namespace, name)
    if item is None:
        return
    for field in _OF_CLAIM:
        value = dig(item.raw, field)
        if isinstance(value, str) and (own := re.search(f"{_PLACEHOLDER}|<[^<>\\s]{{1,60}}>", value)):
            yield f"volumes[{volume}].{field}", own[0], object_evidence(item, field, value), True


def _in_secrets(container: Container) -> Iterator[tuple[str, tuple[str, Evidence]]]:
    """Tokens that it takes from whole Secrets, and what stands there for one; what env says of the same name is stronger."""
    named = {variable.name for variable in container.spec.env}
    for source in container.spec.env_from:
        secret = source.secret_ref
        for name in sorted(_TOKENS - named) if secret and not source.prefix else ():
            if secret and (told := _in_secret(container, k8s.KeyRef(name=secret.name, key=name))):
                yield name, told


def _in_secret(container: Container, ref: k8s.KeyRef) -> tuple[str, Evidence] | None:
    """A placeholder under the key of a Secret of the same files; masking keeps placeholders, and says so of coded ones."""
    item = container.pod.cluster.item("Secret", container.pod.namespace, ref.name)
    secret = item.typed() if item else None
    if item is None or not isinstance(secret, k8s.Secret):
        return None
    value = str(secret.string_data.get(ref.key, secret.data.get(ref.key, "")))
    found = _own(value)
    if not found and not value.endswith("+placeholder>"):
        return None
    evidence = object_evidence(item, ref.key, value)
    return (found[0] if found else f"in Secret {item.name}"), evidence

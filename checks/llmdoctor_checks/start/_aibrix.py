"""AIBrix' gateway, which knows models by labels of their pods (`gateway_req_body.go`, `pkg/constants/model.go`)."""

import re
from collections.abc import Iterable

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Line,
    Log,
    Pod,
    dig,
    engines_in,
    fixes,
    log_evidence,
    pod_evidence,
    say_pairs,
    table,
)

UNKNOWN = "model doesn't exist in cache, probably wrong model name"
_ASKED_FOR = r'\bmodel="(?P<name>[^"\s]{1,200})"'
_SERVED_AS = r"--?served[-_]model[-_]name[= ]"
_NAME, _PORT = "model.aibrix.ai/name", "model.aibrix.ai/port"
_MAKERS = ("Deployment", "StatefulSet")
#: What a label may be: a model's name with a slash is none.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


def other_label(pod: Pod, engines: Iterable[Engine]) -> Finding | None:
    """The gateway does not know the name which a server answers to, for its label has another."""
    engines, label = list(engines), pod.labels.get(_NAME, "")
    found = _refused(pod, engines) if pod.ready and label else None
    if found is None or found[1] == label or any(label in own_names(engine) for engine in engines):
        return None  # one name of several: clients have to ask for that of the label
    line, name = found
    fix = (
        fixes.annotate(pod, {_NAME: name}, f"Set the label {_NAME} to {name}, as the server is called", field="labels")
        if re.fullmatch(_LABEL, name)
        else fixes.advice(
            f"Start the server of {fixes.edited(pod)} as {label} (--served-model-name), and have clients ask for that: {name} cannot be "
            "a label"
        )
    )
    return Finding(
        summary=f"The gateway refuses requests for {name}, the name that {pod.name} is started with: it knows this pod by its label "
        f"{_NAME} as {label}.",
        evidence=(log_evidence(line, UNKNOWN), pod_evidence(pod, f"metadata.labels[{_NAME}]", label)),
        fix=fix,
        order=line.order,
    )


def without_label(pod: Pod, engines: Iterable[Engine]) -> Finding | None:
    """The gateway does not know a server, for its pod lacks the label by which it would."""
    engines = list(engines)
    named = pod.labels.get(_NAME) or pod.annotations.get(_NAME)
    found = _refused(pod, engines) if pod.exists and pod.ready and not named else None
    serves = found is not None and (engines or any(c.accelerators for c in pod.containers) or _serves_as(pod, found[1]))
    if found is None or not serves or _known(pod, found[1]):
        return None
    line, name = found
    port = next((e.value("port") for e in engines if isinstance(e.value("port"), int)), None)
    port = port or next((p.container_port for c in pod.containers for p in c.spec.ports), None)
    label = (
        name
        if re.fullmatch(_LABEL, name)
        else re.sub(r"[^A-Za-z0-9_.-]+", "-", name.rsplit("/", 1)[-1])[:63].strip("-_.")
    )
    labels = {_NAME: label or "NAME"} | ({_PORT: str(port)} if port else {})
    summary = f"Give the pods the labels {' and '.join(f'{k}: {v}' for k, v in labels.items())}"
    return Finding(
        summary=f"AIBrix' gateway refuses requests for {name}, by which {pod.name} is started: it knows models by the label {_NAME} of "
        "their pods, and this one has none.",
        evidence=(
            log_evidence(line, UNKNOWN),
            pod_evidence(pod, "metadata.labels", say_pairs(pod.labels)),
        ),
        fix=fixes.annotate(pod, labels, summary, field="labels")
        if label == name
        else fixes.advice(
            f"{summary}, start the server as {labels[_NAME]} (--served-model-name), and have clients ask for that: {name} cannot be a "
            f"label; in {fixes.edited(pod)}. Later releases of AIBrix take it of an annotation {_NAME}, too"
        ),
        order=line.order,
    )


def unlabelled_behind(pod: Pod) -> Finding | None:
    """The same for the gateway itself: a ready server beside it, which it does not know, for its pod lacks the label."""
    if pod.item is None or not any(log.pod == pod.name for log, _ in _lines(pod)):
        return None
    others = (Pod.of(item, pod.cluster) for item in pod.cluster.items("Pod") if item is not pod.item)
    return next((found for other in others if (found := without_label(other, engines_in(other))) is not None), None)


def _known(pod: Pod, name: str) -> bool:
    """Whether some pod, or what makes pods, tells the gateway of a model: by its label, or by an annotation, which may be any name."""
    told = [item.raw.get("metadata") for item in pod.cluster.items("Pod")]
    told += [dig(item.raw, "spec.template.metadata") for kind in _MAKERS for item in pod.cluster.items(kind)]
    return any(name == table(dig(one, field)).get(_NAME) for one in told for field in ("labels", "annotations"))


def _refused(pod: Pod, engines: Iterable[Engine]) -> tuple[Line, str] | None:
    """A request that the gateway refused for a name by which this pod is started."""
    lines = [line for _, found in _lines(pod) for line in found]
    if not lines:
        return None
    own = {name for engine in engines for name in own_names(engine)} or _words(pod)
    said = ((line, re.search(_ASKED_FOR, line.text[:4000])) for line in lines)
    return next(((line, found["name"]) for line, found in said if found is not None and found["name"] in own), None)


def _lines(pod: Pod) -> list[tuple[Log, list[Line]]]:
    """What gateways say of models that they do not know."""
    logs = (Log(text) for text in pod.cluster.snapshot.logs)
    return pod.cluster.once(UNKNOWN, lambda: [(log, found) for log in logs if (found := list(log.find(UNKNOWN)))])


def _serves_as(pod: Pod, name: str) -> bool:
    """Whether a program that is no known engine is told to serve under a name: clients name models, too."""
    told = (" ".join(word for _, word in container.words)[:20_000] for container in pod.containers)
    return any(re.search(rf"{_SERVED_AS}{re.escape(name)}(?![\w./-])", one) for one in told)


def own_names(engine: Engine) -> tuple[str, ...]:
    """The names that a server was told to answer to, or else its model's."""
    named = engine.value("served_model_name") or engine.value("model")
    listed = named if isinstance(named, list | tuple) else str(named or "").split()
    return tuple(str(one) for one in listed)


def _words(pod: Pod) -> set[str]:
    """Every word of the commands of a pod's containers: of a program that is no known engine, one of them is its model's name."""
    told = " ".join(word for container in pod.containers for _, word in container.words)[:20_000]
    return set(re.split(r"[\s='\",;]+", told))

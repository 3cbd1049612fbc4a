"""A Service that leads to servers of different models, so that each gets requests for the others."""

import re
from collections.abc import Iterator
from itertools import takewhile

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Item,
    Line,
    Logs,
    Pod,
    Workload,
    dig,
    engines_of,
    fixes,
    is_headless,
    k8s,
    log_evidence,
    object_evidence,
    rows,
    say_pairs,
)
from llmdoctor_checks.serving._exposure import matches
from llmdoctor_checks.start._routed_ports import routed

#: What vLLM answers who asks for a name that it does not serve.
NOT_SERVED = " does not exist."
#: What names a server otherwise than its model, in arguments and variables.
_NAMES = r"--served[-_]model[-_]name(?:=|$)|(?:\w{1,40}_)?SERVED_MODEL_NAME="
#: What mends it.
_APART = "Give each model a Service of its own, with a label in its selector that only the pods of that model have"
_NAMED = r"The model [`'\\\"]+(?P<name>[^`'\"\\]{1,120})[`'\\\"]+ does not exist\."


def mixed(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """One by which a server is asked for a model that another server serves, which the same Service selects.

    Where a Service leads to the pod alone, it is that which is asked, and the other may be for its metrics.
    """
    unknown = _unknown(pod, logs) if logs is not None else {}
    asked = [item for item in pod.services if not is_headless(item)] if unknown else []
    beside = [(item, list(_beside(item, pod, cluster))) for item in asked]
    for item, others in beside if all(others for _, others in beside) else ():
        for other in others:
            for name, line in unknown.items():
                told = next((x for c in other.containers if (x := _answers_to(name, list(_words(c.spec))))), None)
                if told is None:
                    continue
                own = ", ".join(
                    f"{k}={v}" for k, v in pod.labels.items() if "hash" not in k and other.labels.get(k) != v
                )
                yield Finding(
                    severity="warning",
                    summary=f"Service {item.name} selects {other.name}, which serves {name}, and {pod.name}, which does not: what "
                    "is asked of it goes to either, and the wrong one refuses it.",
                    evidence=(
                        log_evidence(line, NOT_SERVED),
                        object_evidence(
                            item,
                            "spec.selector",
                            say_pairs(dig(item.raw, "spec.selector"), ": "),
                        ),
                        Evidence(source="workload", ref=f"Pod/{other.name} spec.containers", text=told),
                    ),
                    explains=("served-model-name-mismatch", "model-not-found", "http-5xx"),
                    fix=fixes.advice(_APART + (f" (here {own})" if own else "")),
                    order=line.order,
                )
                return


def mixed_when_applied(pod: Pod, engine: Engine, cluster: Cluster) -> Iterator[Finding]:
    """The same of manifests: a way into the cluster, or the one that another object names, leads to both servers."""
    own = _own_names(engine)
    mine = pod.template_of
    if pod.exists or mine is None or engine.name != "vllm" or not own or dig(mine.raw, "spec.replicas") == 0:
        return
    for service in pod.services:
        if is_headless(service) or not _led_to(service, cluster):
            continue
        for other in cluster.items("Deployment", pod.namespace):
            wanted, labels = dig(service.raw, "spec.selector"), dig(other.raw, "spec.template.metadata.labels")
            if other.name == mine.name or dig(other.raw, "spec.replicas") == 0:
                continue
            if not isinstance(labels, dict) or not matches(wanted, {str(k): str(v) for k, v in labels.items()}):
                continue
            names = _named_in(other, cluster)
            if not names or names & own:
                continue
            yield Finding(
                role="risk" if _together(mine, other, cluster) else "note",
                summary=f"Service {service.name} selects the pods of {mine.name}, which serve {min(own)}, and those of {other.name}, "
                f"which serve {min(names)}: what is asked of it goes to either, and the wrong one refuses it.",
                evidence=(
                    object_evidence(service, "spec.selector", say_pairs(wanted, ": ")),
                    object_evidence(other, "spec.template.metadata.labels", say_pairs(labels, ": ")),
                ),
                fix=fixes.advice(_APART),
            )
            return


def _together(one: Item, other: Item, cluster: Cluster) -> bool:
    """Whether two servers are there at a time: in one file, or told apart by a Service. Else one may be had instead of the other."""
    if one.origin is not None and other.origin is not None and one.origin.file == other.origin.file:
        return True
    labels = [
        {str(key): str(value) for key, value in found.items()}
        for item in (one, other)
        if isinstance(found := dig(item.raw, "spec.template.metadata.labels"), dict)
    ]
    selectors = [dig(service.raw, "spec.selector") for service in cluster.items("Service", one.namespace)]
    return any(sum(matches(wanted, have) for have in labels) == 1 for wanted in selectors if isinstance(wanted, dict))


def _led_to(service: Item, cluster: Cluster) -> bool:
    return dig(service.raw, "spec.type") in ("LoadBalancer", "NodePort") or routed(service, cluster) is not None


def _own_names(engine: Engine) -> set[str]:
    named = engine.value("served_model_name") or (engine.value("model") if engine.explicit("model") else None)
    return {str(one) for one in (named if isinstance(named, list | tuple) else str(named or "").split())}


def _named_in(workload: Item, cluster: Cluster) -> set[str]:
    """The names that a workload's vLLM is told to answer to."""
    pods = Pod.planned(Workload(workload, cluster))
    return {name for pod in pods for one in engines_of(pod, Logs([])) if one.name == "vllm" for name in _own_names(one)}


def _unknown(pod: Pod, logs: Logs) -> dict[str, Line]:
    """The models that the server was asked for and does not serve, each with the last line that says so."""
    found: dict[str, Line] = {}
    for container in pod.containers:
        log = logs.current(container.name)
        found |= {said["name"]: line for line, said in (log.matching(_NAMED, NOT_SERVED, most=4000) if log else ())}
    return found


def _beside(service: Item, pod: Pod, cluster: Cluster) -> Iterator[Pod]:
    """Ready pods of other workloads that a Service selects."""
    wanted, mine = dig(service.raw, "spec.selector"), _maker(pod.item) if pod.item else ""
    for item in cluster.items("Pod", pod.namespace) if mine else ():
        if item is pod.item or _maker(item) in ("", mine) or not matches(wanted, item.labels):
            continue
        other = Pod.of(item, cluster)
        if other.ready and not other.leaving:
            yield other


def _maker(item: Item) -> str:
    """What made a pod, by the name that its revisions share; empty for one that stands alone."""
    name = next((str(ref.get("name")) for ref in rows(item.raw, "metadata.ownerReferences")), "")
    return name.removesuffix(f"-{item.labels.get('pod-template-hash')}")


def _answers_to(name: str, words: list[str]) -> str | None:
    """The word by which a server is told to answer to a name: of those that give it names, where there are such."""
    at = next((i for i, word in enumerate(words) if re.match(_NAMES, word)), None)
    if at is None:
        return next((word for word in words if name in word.split("=", 1)), None)
    first, *rest = words[at:]
    own = [first.partition("=")[2], *takewhile(lambda word: not word.startswith("-"), rest)]
    return f"{first} {name}" if first.partition("=")[2] != name and name in own else first if name in own else None


def _words(spec: k8s.Container) -> Iterator[str]:
    """The words of a command line, and variables as they are written."""
    yield from (word for text in spec.argv for word in text.split())
    yield from (f"{variable.name}={variable.value}" for variable in spec.env if variable.value)

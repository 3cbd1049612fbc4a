"""Routers that look for their servers by labels which no pod has, while there is one that they could send to: those of vLLM's production
stack, SGLang and vLLM; and frontends of Dynamo that look in another of its namespaces (`push_router.rs`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Finding,
    Line,
    Logs,
    Pod,
    answered,
    dig,
    engines_in,
    fixes,
    log_evidence,
    pod_evidence,
    say_pairs,
    say_selector,
    sought,
    table,
)
from llmdoctor_checks._unreached import last_answered
from llmdoctor_checks.serving._exposure import lasting, matches

#: What such a router says of requests while it knows no server, and of how many servers it reads metrics; and of one that it found.
LITERALS = (
    "o available workers",
    "o workers available",
    "from 0 serving engine(s)",
    "No available prefill",
    "No available decode",
)
NO_INSTANCE = "no instances found for endpoint"
_FOUND = ("Discovered new serving engine", "Added worker", "Successfully added worker", "Adding pod")

#: By which Dynamo's processes find each other, and its workers.
_SPACE, _PREFIX, _WORKER = "DYN_NAMESPACE", "DYN_NAMESPACE_PREFIX", r"\bdynamo\.(?:vllm|sglang|trtllm|mocker)\b"


def finds_nobody(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The first labels of a router that no pod of its namespace has, while an engine runs there that it finds by none of them."""
    for container in pod.containers if not engines_in(pod) else ():
        every = list(sought(container))
        said = _says_so(container, logs) if every else None
        if every and said is None and answered(container.own_log(logs)):
            continue  # it has servers, whoever they are
        for written, namespace, labels in every:
            pods = [Pod.of(item, cluster) for item in cluster.items("Pod", namespace)]
            known = [one.labels for one in pods] + of_workloads(namespace, cluster)  # scaled to none, or not read
            servers = [
                one
                for one in pods
                if engines_in(one) and not any(matches(wanted, one.labels) for _, _, wanted in every)
            ]
            sure = said is not None or cluster.complete("Pod", namespace)
            if not servers or not sure or any(matches(labels, one) for one in known):
                continue
            yield _finding(container, written, labels, servers, said)
            return


def other_dynamo_namespace(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A frontend of Dynamo that finds no worker, as all that run beside it are in another namespace of Dynamo's own."""
    for container in pod.containers:
        told, log = container.env.get(_SPACE), container.own_log(logs)
        line = log.last(NO_INSTANCE) if log is not None else None
        if told is None or not told.value or line is None or line.number < last_answered(line.log):
            continue
        if "dynamo.frontend" not in " ".join(container.spec.argv):
            continue
        workers = [
            (one, given.value)
            for item in cluster.items("Pod", pod.namespace)
            for one in Pod.of(item, cluster).containers
            if re.search(_WORKER, " ".join(one.spec.argv)[:8000])
            and (given := one.env.get(_SPACE)) is not None
            and given.value
        ]
        theirs = sorted({value for _, value in workers if value})
        if not theirs or told.value in theirs or _PREFIX in container.env:
            continue
        worker = workers[0][0]
        text = f"Set {_SPACE} of {fixes.edited(pod)} to {theirs[0]}, as its workers have it"
        yield Finding(
            severity="warning",
            summary=f"{container.name} looks for workers in Dynamo's namespace {told.value}, and {worker.pod.name} is in "
            f"{' and '.join(theirs)}: it finds none, and requests fail.",
            evidence=(
                log_evidence(line),
                pod_evidence(container, f"env[{_SPACE}]", told.value),
                pod_evidence(worker, f"env[{_SPACE}]", theirs[0]),
            ),
            explains=("http-5xx", "multinode-discovery"),
            fix=fixes.set_env(container, _SPACE, theirs[0], text)
            if len(theirs) == 1
            else fixes.advice(f"Have {_SPACE} of {fixes.edited(pod)} be that of its workers"),
            order=line.order,
        )
        return


def _says_so(container: Container, logs: Logs | None) -> Line | None:
    """The last line of a router that knows no server, and has known none since."""
    log = container.own_log(logs)
    found = [line for words in LITERALS if log is not None and (line := log.last(words)) is not None]
    last = max(found, key=lambda line: line.number, default=None)
    if log is None or last is None:
        return None
    known = max((line.number for line in log.find(*_FOUND)), default=0)
    return last if max(known, last_answered(log)) < last.number else None


def of_workloads(namespace: str, cluster: Cluster) -> list[dict[str, str]]:
    """The labels that workloads give to their pods."""
    return [
        {key: str(value) for key, value in table(dig(item.raw, "spec.template.metadata.labels")).items()}
        for kind in ("Deployment", "StatefulSet")
        for item in cluster.items(kind, namespace)
    ]


def _finding(
    container: Container, written: str, labels: dict[str, str], servers: list[Pod], said: Line | None
) -> Finding:
    server = servers[0]
    own = lasting(server.labels)
    has = say_pairs(own) or "none"
    right = {key: own[key] for key in labels if key in own} or own
    value = say_selector(right)
    return Finding(
        severity="warning",
        confidence="likely" if said else "possible",
        summary=f"{container.name} looks for its servers by the labels {written}, which no pod of {server.namespace} has: it asks "
        f"nobody. {server.name} has {has}.",
        evidence=(
            pod_evidence(container, "args", written),
            pod_evidence(server, "metadata.labels", has),
            *((log_evidence(said),) if said else ()),
        ),
        explains=("http-5xx",),
        fix=fixes.advice(
            f"Write {value} in place of {written} in {fixes.edited(container.pod)}, or give {written} to the pods of {fixes.edited(server)}"
            if len({fixes.edited(one) for one in servers}) == 1 and right
            else f"Have {fixes.edited(container.pod)} look for labels that its servers have, in place of {written}",
            f"kubectl -n {server.namespace} get pods --show-labels",
        ),
    )

"""A model that its server refuses to load for lack of host memory, where only its clients say so."""

import re
from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    GIB,
    Cluster,
    Engine,
    Finding,
    Fix,
    Log,
    Logs,
    Pod,
    Subject,
    check,
    fixes,
    k8s,
    log_evidence,
    often,
    units,
    written_ago,
)
from llmdoctor_checks._clients import told

#: Ollama's refusal, as its clients print it.
_REFUSED = (
    (
        "model requires more system memory",
        r"model requires more system memory \((?P<want>[\d.]{1,9} [KMG]iB)\) than is available \((?P<have>[\d.]{1,9} [KMG]iB)\)",
    ),
)
#: What a client was told longer ago than this may have been mended.
_LATELY = 3600
#: Within so many lines one has a time.
_FIRST_LINES = 50

#: How clients print that a request was answered.
_WELL = ("HTTP/1.1 200", '"status": 200', "status=200")


@check("host-memory-insufficient", since="0.1", literals=(*(words for words, _ in _REFUSED), *_WELL))
def host_memory_insufficient(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The host's memory does not suffice.

    The engine itself, not the kernel, says that host memory is short: Ollama compares the model with what is free before it loads it,
    vLLM's swap space is larger than the memory, llama.cpp or PyTorch get no memory for a buffer, Ray kills workers near its mark.
    It is the container's memory, not the GPU's. Ollama's server lives on and only the request for this model fails; where its own log
    was not read so far back, what its clients print of it within the last hour says so.

    ## Fix

    Raise the container's memory limit (and the node's memory), or take a smaller model, a smaller quantization or a shorter context.
    For vLLM lower the swap space.

    ## References

    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
    - https://docs.ollama.com/faq
    - https://docs.ray.io/en/latest/ray-core/scheduling/ray-oom-prevention.html
    """
    for engine in subject.engines(pod):
        answers = told(pod, engine, cluster, logs, _REFUSED, "500") if engine.name == "ollama" else []
        mine = engine.container.own_log(logs)
        late = [
            (ago, line, said)
            for line, said in answers
            if _lately(ago := written_ago(line, cluster.now)) and not _covers(mine, ago, cluster.now)
        ]
        if not late:
            continue
        ago, line, said = min(late, key=lambda one: (one[0] is None, one[0] or 0, -one[1].number))
        times = sum(1 for _, other, _ in late if other.log is line.log)
        # what was free may have become more since
        unsure = ago is None or any(after.number > line.number for after in line.log.find(*_WELL))
        yield Finding(
            severity="warning",
            confidence="possible" if unsure else "likely",
            summary=f"{line.log.pod} asks {engine.container.name} for a model that needs {said['want']} of host memory, and {said['have']} "
            f"are available: it is refused, {often(times)} in its log.",
            evidence=(log_evidence(line, said[0]),),
            fixes=tuple(_repairs(engine, said, cluster)),
            order=line.order,
        )


def _repairs(engine: Engine, said: re.Match[str], cluster: Cluster) -> Iterator[Fix]:
    """Memory for the model, by a limit or a request with a tenth to spare; or less of a model."""
    container = engine.container
    want, have = (units(said[name].replace(" ", "").removesuffix("B")) or 0 for name in ("want", "have"))
    limit = container.limit("memory")
    least = -(-int((limit + max(want - have, 0)) if limit else want) * 11 // (10 * GIB))
    nodes = [units(node.status.allocatable.get("memory")) or 0 for node in cluster.all(k8s.Node, "Node")]
    largest = max(nodes) // GIB if nodes else None
    enough = -(-least // 8) * 8
    if largest is not None and least <= largest < enough:
        enough = least
    if largest is not None and largest < enough:
        yield fixes.platform(
            f"Take a node with {enough} GiB of memory or more for {fixes.edited(engine.pod)}: no node here has as much"
        )
    elif limit:
        text = f"Raise the memory limit of {container.name} to {enough}Gi, so that {said['want']} are free in it"
        yield fixes.set_resource(container, "limits", "memory", f"{enough}Gi", text)
    else:
        text = f"Have {container.name} request {enough}Gi, so that it comes to a node that has as much"
        yield fixes.set_resource(container, "requests", "memory", f"{enough}Gi", text)
    yield fixes.advice(
        "Ask for a smaller model, quantization or context (num_ctx), or let what else is loaded go (ollama ps, ollama stop)"
    )


def _lately(ago: float | None) -> bool:
    return ago is None or ago <= _LATELY


def _covers(log: Log | None, ago: float | None, now: datetime | None) -> bool:
    """Whether the server's own log, which has no word of it, goes back to when its client was told: Ollama logs each refusal."""
    if log is None or not len(log):
        return False
    firsts = (written_ago(line, now) for line in log.lines(1, min(len(log), _FIRST_LINES)))
    since = next((one for one in firsts if one is not None), None)
    return ago is None or (since is not None and since > ago)

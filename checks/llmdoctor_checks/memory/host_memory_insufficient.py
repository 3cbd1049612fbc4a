"""A model that its server refuses to load for lack of host memory, where only its clients say so."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Finding,
    Fix,
    Logs,
    Pod,
    Subject,
    check,
    fixes,
    log_evidence,
    often,
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


@check("host-memory-insufficient", since="0.1", literals=tuple(words for words, _ in _REFUSED))
def host_memory_insufficient(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The host's memory does not suffice.

    The engine itself, not the kernel, says that host memory is short: Ollama compares the model with what is free before it loads it,
    vLLM's swap space is larger than the memory, llama.cpp or PyTorch get no memory for a buffer, Ray kills workers near its mark.
    It is the container's memory, not the GPU's. Ollama's server lives on and only the request for this model fails; where its own log
    was not read so far, what its clients print of it within the last hour says so.

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
        if not answers or (written_ago(answers[-1][0], cluster.now) or 0) > _LATELY:
            continue
        line, said = answers[-1]
        limit = engine.container.limit("memory")
        raised = (
            f"Raise the memory limit of {engine.container.name} so that {said['want']} are free in it"
            if limit
            else f"Give {engine.container.name} a node on which {said['want']} of memory are free"
        )
        repair: Fix = fixes.advice(
            f"{raised}, in {fixes.edited(pod)}; or ask for a smaller model, quantization or context (num_ctx), or let what else is "
            "loaded go (ollama ps, ollama stop)"
        )
        yield Finding(
            role="cause",
            severity="warning",
            confidence="likely",
            summary=f"{line.log.pod} asks {engine.container.name} for a model that needs {said['want']} of host memory, and {said['have']} "
            f"are available: it is refused, {often(len(answers))} in its log.",
            evidence=(log_evidence(line, said[0]),),
            fixes=(repair,),
            order=line.order,
        )

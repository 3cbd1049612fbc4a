"""Tensor parallelism over several nodes without a fast network between them."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Logs,
    Pod,
    Subject,
    check,
    count_of,
    dig,
    fixes,
    limits_evidence,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks._load import Load, last_load
from llmdoctor_checks.multi_gpu._network import fabric

#: A request that gets fewer tokens in a second waits for something: any GPU on which such models are spread makes several times
#: as many, while it runs few requests at once.
_SLOW_TOKENS, _FEW = 4.0, 16

#: So few prompt tokens in a second keep no such group of GPUs from its other work.
_READS_LITTLE = 500


@check("tp-across-nodes", since="0.1", severity="warning")
def tp_across_nodes(pod: Pod, engine: Engine, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """Tensor parallelism spans several nodes without a fast network between them.

    Tensor parallel ranks exchange their results twice per layer and token. Inside a node NVLink carries that; between
    nodes it needs InfiniBand, RoCE or EFA with GPUDirect, or an NVLink domain over several nodes (GB200 NVL72). Over
    TCP the GPUs mostly wait: tokens come many times slower, and collectives run into their timeout under load. It is the
    cause where a server that runs few requests at once says that each of them gets only some tokens a second.

    ## Fix

    Keep tensor parallelism inside a node and put pipeline parallelism between nodes: tensor parallel size = GPUs of
    one pod, pipeline parallel size = number of pods. Or request the RDMA devices of the nodes.

    ## References

    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    """
    size, container = engine.explicit("tensor_parallel_size"), engine.container
    gpus = container.gpus
    if container.one_process:
        return  # TPU slices have links of their own, and a Neuron device is several ranks
    if size is None or not isinstance(size.value, int) or not gpus or size.value <= gpus or size.value % gpus:
        return
    nodes = _group(engine, subject)
    if nodes is None or size.value > nodes * gpus or engine.explicit("enable_dp_attention"):
        return
    slow = _slow(container, logs)
    if slow is None and any(fabric(one) for one in (pod, *subject.pods)):
        return
    spans = size.value // gpus
    pace = _pace(pod, container, logs) if slow and logs is not None else None
    evidence = [setting_evidence(container, size), *limits_evidence(container, container.accelerators)]
    yield Finding(
        role="cause" if pace else "risk" if slow else "note",
        severity="warning" if slow else "info",
        confidence="likely" if slow else "possible",
        summary=f"{engine.label} spreads tensor parallelism ({size.text}) over {spans} pods of {count_of(gpus, 'GPU')}, "
        + (f"and their network is TCP{pace[0] if pace else ''}." if slow else "and nothing asks for an RDMA device."),
        evidence=(*((slow,) if slow else ()), *(pace[1] if pace else ()), *evidence),
        fixes=(
            fixes.advice(
                f"Set the tensor parallel size to {gpus} and the pipeline parallel size to {spans} in {fixes.edited(pod)}"
            ),
            fixes.request_rdma(container, "Give {container} the RDMA devices of its nodes ({rdma})")
            or fixes.platform(
                "Have an RDMA device plugin offer the nodes' devices, and ask for them: its node offers none",
                "kubectl get nodes -o custom-columns=NAME:.metadata.name,ALLOCATABLE:.status.allocatable",
            ),
        ),
    )


def _pace(pod: Pod, container: Container, logs: Logs) -> tuple[str, tuple[Evidence, ...]] | None:
    """What a server with few requests says of its pace, where that is very slow: words, and the quotations."""
    said = [load for load in last_load(container, logs) if load.tokens and load.running]
    if not pod.ready or len(said) < 2 or not all(load.running <= _FEW and _idle_else(load) for load in said):
        return None
    paces = ((load.made if load.waiting else load.tokens) or 0 for load in said[1:])  # the first may count prompts
    best = max(pace / load.running for pace, load in zip(paces, said[1:], strict=True))
    if best >= _SLOW_TOKENS:
        return None
    text = f": with {count_of(said[-1].running, 'request')} at once each gets {best:.2g} tokens a second"
    return text, (log_evidence(said[-1].line),)


def _idle_else(load: Load) -> bool:
    """Whether nothing but the requests that run takes its time: requests that wait are read between them."""
    return not load.waiting or (load.read is not None and load.read < _READS_LITTLE)


def _group(engine: Engine, subject: Subject) -> int | None:
    """How many pods make one replica; None where it is one, or not known."""
    nodes = engine.value("nnodes")
    if isinstance(nodes, int) and nodes > 1:
        return nodes
    raw = subject.workload.raw if subject.workload else subject.item.raw if subject.item else {}
    size = dig(raw, "spec.leaderWorkerTemplate.size")
    if isinstance(size, int) and size > 1:
        return size
    return len(subject.pods) if len(subject.pods) > 1 else None


def _slow(container: Container, logs: Logs | None) -> Evidence | None:
    """What says that the network is TCP: NCCL's own word, or a variable that forbids InfiniBand."""
    for log in container.own_logs(logs):
        for literal in ("NCCL INFO Using network Socket", "Using network Socket", "] via NET/Socket"):
            if line := next(log.find(literal), None):
                return log_evidence(line)
    off = container.env.get("NCCL_IB_DISABLE")
    if off and off.value == "1":
        return pod_evidence(container, "env[NCCL_IB_DISABLE]", "NCCL_IB_DISABLE=1")
    return None

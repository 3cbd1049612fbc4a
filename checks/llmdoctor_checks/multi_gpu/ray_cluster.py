"""A Serve replica from which Ray hides the GPUs of its pod."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    check,
    expression,
    fixes,
    log_evidence,
    phase_of,
    pod_evidence,
)

_UNSEEN = "No CUDA GPUs are available"
#: How Ray heads what an actor prints, of a replica of Serve.
_REPLICA = expression(r"\(ServeReplica:(?P<name>[\w:.-]{1,120}) pid=\d{1,9}(?:, ip=(?P<ip>[\w.:]{1,45}))?\)")
#: Where an exception was raised in an actor of vLLM's, which asks for its GPU.
_OF_A_WORKER = "ray::RayWorker"
#: A frame of the engine, which the replica makes; others may do without a GPU.
_ENGINE = expression(r"File \"[^\"]{0,300}/(?:vllm|sglang|lmdeploy|tensorrt_llm)/")
#: As long as a traceback through Ray, Serve and vLLM is.
_TRACEBACK = 90


@check("ray-cluster", since="0.1", literals=(_UNSEEN,))
def ray_cluster(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The Ray cluster does not offer what the engine needs.

    An engine over several nodes asks Ray for one GPU per worker (a placement group). It waits or ends when a worker pod has not joined, a
    pod has no GPU, the head cannot be reached, versions differ, or the engine looks for a node by an address that Ray does not know
    (VLLM_HOST_IP). "No available node types" is Ray's way to say that nobody has the resource.
    Ray hides the GPUs of a pod from an actor that asked for none: a Serve replica that makes the engine in itself then sees none, though
    the pod has them.

    ## Fix

    See that all pods of the group run and that `ray status` in the head shows as many GPUs as are asked for. Use one image. Set
    `VLLM_HOST_IP` to the pod's own address.

    ## References

    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    - https://docs.ray.io/en/latest/cluster/kubernetes/troubleshooting/troubleshooting.html
    """
    if logs is None or not pod.failing_by_status:
        return
    for container in pod.containers:
        if container.devices and (found := _hidden(container, logs)) is not None:
            yield _finding(container, *found)
            return


def _hidden(container: Container, logs: Logs) -> tuple[Line, str] | None:
    """The last line of a replica that saw no GPU itself, not by a worker that it made."""
    log = logs.current(container.name)
    for line in reversed(list(log.find(_UNSEEN))) if log else ():
        said = _REPLICA.search(line.text[:400])
        # it names the address of an actor on another node
        if said is None or log is None or said["ip"] not in (None, container.pod.status.pod_ip):
            continue
        before = log.lines(max(1, line.number - _TRACEBACK), line.number - 1)
        above = [other.text for other in before if said["name"] in other.text[:400]]
        heads = [text for text in above if "ray::" in text]
        if not any(_ENGINE.search(text[:2000]) for text in above) or (heads and _OF_A_WORKER in heads[-1]):
            continue
        return None if _came_further(log, line, said["name"]) else (line, said["name"])
    return None


def _came_further(log: Log, line: Line, replica: str) -> bool:
    """Whether the replica, made again, has loaded its weights since."""
    phase = phase_of(log)
    who = _REPLICA.search(phase.line.text[:400]) if phase and phase.name != "downloading the model" else None
    return phase is not None and who is not None and phase.line.number > line.number and who["name"] == replica


def _finding(container: Container, line: Line, replica: str) -> Finding:
    asked = next(iter(container.accelerators))
    return Finding(
        role="cause",
        summary=f"The Serve replica {replica} makes the engine and sees no GPU, though container {container.name} has "
        f"{container.devices}: Ray hides them from an actor that asked for none.",
        evidence=(
            log_evidence(line),
            pod_evidence(container, f"resources.limits[{asked}]", str(container.accelerators[asked])),
        ),
        explains=(
            "gpu-runtime-missing",
            "gpu-request-missing",
            "engine-dead",
            "engine-init-failed",
            "crash-loop",
            "not-ready",
        ),
        fixes=(
            fixes.advice(
                "Give the replica its GPUs in the RayService's serveConfigV2: num_gpus in ray_actor_options where the engine runs in it "
                "alone, else placement_group_bundles whose first bundle has a GPU",
            ),
        ),
        order=line.order,
    )

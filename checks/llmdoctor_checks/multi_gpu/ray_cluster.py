"""A Serve replica from which Ray hides the GPUs of its pod, and a Serve configuration that Ray does not take."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    check,
    event_evidence,
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

#: How KubeRay words that a Serve configuration is none (rayservice_controller.go, updateServeDeployment), or that the head's dashboard
#: refuses it (utils/dashboardclient). What else keeps it from the dashboard passes when the head is up.
_NOT_TAKEN = "FailedToUpdateServeApplications"
_NO_YAML = r"error (?:converting YAML to JSON|unmarshaling JSON|unmarshaling YAML): (?P<why>.{1,300})"
_REFUSED = r"UpdateDeployments fail: (?P<why>4\d\d .{1,300})"


@check("ray-cluster", since="0.1", literals=(_UNSEEN,))
def ray_cluster(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The Ray cluster does not offer what the engine needs.

    An engine over several nodes asks Ray for one GPU per worker (a placement group). It waits or ends when a worker pod has not joined, a
    pod has no GPU, the head cannot be reached, versions differ, or the engine looks for a node by an address that Ray does not know
    (VLLM_HOST_IP). "No available node types" is Ray's way to say that nobody has the resource.
    Ray hides the GPUs of a pod from an actor that asked for none: a Serve replica that makes the engine in itself then sees none, though
    the pod has them.
    A RayService whose `serveConfigV2` is no YAML, or is refused by Ray's dashboard, has a cluster that is ready and no application.

    ## Fix

    See that all pods of the group run and that `ray status` in the head shows as many GPUs as are asked for. Use one image. Set
    `VLLM_HOST_IP` to the pod's own address.

    ## References

    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    - https://docs.ray.io/en/latest/cluster/kubernetes/troubleshooting/troubleshooting.html
    """
    yield from _not_taken(subject)
    if logs is None or not pod.failing_by_status:
        return
    for container in pod.containers:
        if container.devices and (found := _hidden(container, logs)) is not None:
            yield _finding(container, *found)
            return


def _not_taken(subject: Subject) -> Iterator[Finding]:
    """The Serve configuration of a RayService that is not ready, where KubeRay says that it cannot hand it over as it is."""
    for event in reversed([event for event in subject.warned if event.reason == _NOT_TAKEN]):
        broken = re.search(_NO_YAML, event.message, re.DOTALL)
        refused = re.search(_REFUSED, event.message, re.DOTALL)
        if found := broken or refused:
            why = " ".join(found["why"].split()).rstrip(". {}")
            yield Finding(
                role="cause",
                confidence="certain",
                summary=f"serveConfigV2 of RayService/{event.name} {'is no YAML' if broken else 'is refused by Ray'}: {why}. "
                "So Ray runs no application, however ready its pods are.",
                evidence=(event_evidence(event, subject.cluster),),
                explains=("not-ready", "rollout-stuck"),
                fixes=(
                    fixes.advice(
                        f"Correct spec.serveConfigV2 of RayService/{event.name} "
                        + (
                            "(a text of YAML inside the object: its indentation and colons)"
                            if broken
                            else "where Ray names it"
                        ),
                        f"kubectl -n {subject.namespace} get rayservice {event.name} -o jsonpath='{{.spec.serveConfigV2}}'",
                    ),
                ),
            )
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

"""A Serve replica from which Ray hides the GPUs of its pod, and a Serve configuration that Ray does not take."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    answered,
    check,
    event_evidence,
    expression,
    fixes,
    log_evidence,
    of_pod,
    phase_of,
    pod_evidence,
    say_seconds,
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


#: vLLM's `ray_utils.py`, after 10 s, 30 s, 70 s and so on; what Ray's autoscaler says of a node that nobody is; and what shows that the
#: workers came.
_AWAITS, _NO_NODE = "Waiting for creating a placement group of specs for ", "No available node types can fulfill"
_SECONDS = expression(r"of specs for (?P<seconds>\d{2,6}) seconds\.")
#: One request that nobody can fulfil; where Ray tells all those of a placement group together, any of them may be the one.
_NODE = expression(r"can fulfill resource requests? \{[^{}]{0,300}'node:(?P<ip>[\d.]{7,15}|[\da-f:]{3,39})'")
#: The same of a node by a name: Ray calls its nodes by their addresses alone, and its own resources begin with underscores.
_NAMED = expression(
    r"can fulfill resource requests? \{[^{}]{0,300}'node:(?P<name>(?!_|[\d.]{7,15}'|[\da-f:]{3,39}')[^'{}\s][^'{}]{0,252})'"
)
#: What it asks for, a bundle for each worker, and what `ray status` counts in the cluster (autoscaler/_private/util.py): other devices of
#: a node, which Ray took its GPUs for, too.
_BUNDLE = expression(r"\{[^{}]{0,200}'GPU': 1\.0[^{}]{0,200}\}")
_TOTAL = expression(r"[\d.]{1,12}/(?P<all>\d{1,6}\.\d) (?P<what>GPU|TPU|NPU|HPU)")
_COUNTED = (".0 GPU", ".0 TPU", ".0 NPU", ".0 HPU")
_CAME = (
    "NCCL INFO Bootstrap",
    "Application startup complete",
    "Starting to load model",
    "vLLM is using nccl",
    "(RayWorker",  # how Ray heads what a worker prints
)
#: Nobody gets an address that Ray does not know by waiting; a node whose image is pulled joins later.
_AWAITED_SECONDS, _JOINED_SECONDS, _PULLED_SECONDS = 60, 150, 600


@check("ray-cluster", since="0.1", literals=(_UNSEEN, _AWAITS, _NO_NODE, *_CAME))
def ray_cluster(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The Ray cluster does not offer what the engine needs.

    An engine over several nodes asks Ray for one GPU per worker (a placement group). It waits or ends when a worker pod has not joined, a
    pod has no GPU, the head cannot be reached, versions differ, or the engine looks for a node by an address that Ray does not know
    (VLLM_HOST_IP). "No available node types" is Ray's way to say that nobody has the resource.
    Ray hides the GPUs of a pod from an actor that asked for none: a Serve replica that makes the engine in itself then sees none, though
    the pod has them.
    Where no probe asks it, the pod counts as ready all the while that the engine waits.
    A RayService whose `serveConfigV2` is no YAML, or is refused by Ray's dashboard, has a cluster that is ready and no application.

    ## Fix

    See that all pods of the group run and that `ray status` in the head shows as many GPUs as are asked for. Use one image. Set
    `VLLM_HOST_IP` to the pod's own address.

    ## References

    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    - https://docs.ray.io/en/latest/cluster/kubernetes/troubleshooting/troubleshooting.html
    """
    yield from _not_taken(subject)
    if logs is not None and pod.exists:
        yield from _waits(pod, subject, logs)
        yield from _by_a_name(pod, subject, logs)
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
                confidence="certain",
                summary=f"serveConfigV2 of RayService/{event.name} {'is no YAML' if broken else 'is refused by Ray'}: {why}. "
                "So Ray runs no application, however ready its pods are.",
                evidence=(event_evidence(event, subject.cluster),),
                explains=("not-ready", "rollout-stuck"),
                fix=fixes.advice(
                    f"Correct spec.serveConfigV2 of RayService/{event.name} "
                    + (
                        "(a text of YAML inside the object: its indentation and colons)"
                        if broken
                        else "where Ray names it"
                    ),
                    f"kubectl -n {subject.namespace} get rayservice {event.name} -o jsonpath='{{.spec.serveConfigV2}}'",
                ),
            )
            return


def _waits(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """An engine that waits for GPUs of other nodes: it is ready only since no probe asks it, or a pod of its group does not run."""
    for container in pod.containers:
        log = logs.current(container.name)
        awaited = _awaited(pod, container, log) if log is not None else None
        if log is None or awaited is None:
            continue
        line, seconds = awaited
        refused = [one for one in log.find(_NO_NODE) if _NODE.search(one.text[:2000])]
        node = _NODE.search(refused[-1].text[:2000]) if refused else None
        if node is not None and _goes_by(container, node["ip"]):
            node = None
        down = [] if node else [p for p in subject.pods if p is not pod and not any(c.running for c in p.containers)]
        early = seconds < _JOINED_SECONDS if pod.ready else not down
        if (not node and (early or any(_is_young(one) for one in down))) or (node and not pod.ready):
            continue
        whom = (
            f"a node of the address {node['ip']}, which Ray does not know" if node else "all the GPUs that it asked for"
        )
        missing = f"; {down[0].name} does not run" if down else ""
        yield Finding(
            confidence="possible" if down else "likely",
            summary=f"{container.name} waits for Ray to give it {whom} ({say_seconds(seconds)} and more{missing})"
            + (": it does not serve, and counts as ready only since it has no readiness probe." if pod.ready else "."),
            evidence=(*((log_evidence(refused[-1]),) if refused else ()), log_evidence(line)),
            explains=("gpu-count-mismatch", "not-ready"),
            fix=_one_address(container, node["ip"]) if node else _who_lacks(container, down, log, line),
            order=line.order,
        )
        return


def _awaited(pod: Pod, container: Container, log: Log) -> tuple[Line, int] | None:
    """Where an engine says last for how many seconds it has waited for a placement group, and waits still."""
    asked = container.spec.readiness_probe is not None or container.spec.startup_probe is not None
    line = log.last(_AWAITS) if container.running and not (asked and pod.ready) else None
    said = _SECONDS.search(line.text[:2000]) if line is not None else None
    if line is None or said is None:
        return None
    seconds, ran, phase = int(said["seconds"]), pod.cluster.seconds_since(container.started), phase_of(log)
    if (pod.ready and seconds < _AWAITED_SECONDS) or ran is None or ran < seconds:
        return None
    if any(one.number > line.number for one in log.find(*_CAME)) or answered(log, after=line.number):
        return None
    return None if phase is not None and phase.line.number > line.number else (line, seconds)


def _by_a_name(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """A vLLM that is ready as no probe asks it, and waits for a node by a name, where nobody had Ray call its nodes by names."""
    for container in pod.containers if pod.ready else ():
        log, asked = logs.current(container.name), container.spec.readiness_probe or container.spec.startup_probe
        line = log.last(_NO_NODE) if log is not None and not asked else None
        named = _NAMED.search(line.text[:2000]) if line is not None else None
        if log is None or line is None or named is None or answered(log, after=line.number):
            continue
        engine, words = subject.engine_of(container), [text for _, text in container.words]
        if engine is None or engine.name != "vllm" or any("node-ip-address" in text for text in words):
            continue
        phase = phase_of(log)
        came = phase is not None and phase.line.number > line.number
        if came or any(one.number > line.number for one in log.find(*_CAME)):
            continue
        yield Finding(
            summary=f"{container.name} waits for Ray to give it a node of the name {named['name']}, and Ray calls its nodes by their "
            "addresses: it does not serve, and counts as ready only since it has no readiness probe.",
            evidence=(log_evidence(line),),
            explains=("gpu-count-mismatch", "not-ready"),
            fix=fixes.advice(
                "Take VLLM_HOST_IP out of the command, and set it to the pod's own address (fieldRef: status.podIP) in head and workers, "
                f"in {fixes.edited(pod)}"
            )
            if any("VLLM_HOST_IP=" in text for text in words)
            else fixes.set_variables(
                container,
                {"VLLM_HOST_IP": fixes.FromField("status.podIP")},
                "Set VLLM_HOST_IP to the pod's own address, in head and workers",
            ),
            order=line.order,
        )
        return


def _goes_by(container: Container, address: str) -> bool:
    """Whether Ray knows the pod by this address, its own, as nobody tells another: then what else was asked for there is not free."""
    pod = container.pod
    told = any("node-ip-address" in text for _, text in container.words)
    return address == pod.status.pod_ip and not pod.spec.host_network and not told


def _is_young(pod: Pod) -> bool:
    """Whether a pod that does not run may be one whose image is pulled."""
    age = pod.cluster.seconds_since(pod.obj.metadata.creation_timestamp)
    return age is not None and age < _PULLED_SECONDS


def _one_address(container: Container, asked: str) -> Fix:
    """For a node of several addresses, of which Ray took one and the engine another."""
    pod, told = container.pod, container.env.get("VLLM_HOST_IP")
    own = told.value if told is not None and told.value else ""
    if not own or own == asked:
        return fixes.advice(
            "Have Ray and vLLM call each node by one address: --node-ip-address of ray start and VLLM_HOST_IP the same, in head and "
            f"workers (in {fixes.edited(pod)})"
        )
    return fixes.advice(
        f"Have Ray call the node by the address of VLLM_HOST_IP, too: ray start --node-ip-address={own} in {fixes.edited(pod)}, and in "
        "each worker its own; on a node of several networks Ray and vLLM else choose one each"
    )


def _who_lacks(container: Container, down: list[Pod], log: Log, line: Line) -> Fix:
    pod = container.pod
    status = f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- ray status"
    nodes = f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- ray list nodes"
    if down:
        why = f"whose GPUs {pod.name} waits for"
        return next((fix for one in down if (fix := of_pod(one, why))), None) or fixes.advice(
            f"See first why {down[0].name} does not run, {why}",
            f"kubectl -n {pod.namespace} describe pod {down[0].name}",
        )
    wanted = len(_BUNDLE.findall(line.text[:20_000]))
    counted = {
        said["what"]: float(said["all"])
        for one in log.find(*_COUNTED)
        if (said := _TOTAL.fullmatch(one.text.strip()[:60]))
    }
    gpus, others = counted.get("GPU", 0.0), [(what, n) for what, n in counted.items() if what != "GPU" and n]
    if others and gpus < wanted <= gpus + others[0][1]:
        what, many = others[0]
        return fixes.advice(
            f"Tell Ray the GPUs of the node on which it counts {many:g} {what} in their place: --num-gpus={many:g} of its ray start; it "
            f"counts {gpus:g} GPU{'' if gpus == 1 else 's'} in the cluster, and {container.name} wants {wanted}",
            nodes,
        )
    return fixes.advice(
        "See in ray status how many GPUs the cluster has and which node offers none: it has not joined, another actor holds its GPUs, or "
        "Ray counted something else there, which --num-gpus of its ray start says instead; where none lacks, the address of the engine's "
        "node (VLLM_HOST_IP) is not the one that ray list nodes shows",
        status,
        nodes,
    )


def _hidden(container: Container, logs: Logs) -> tuple[Line, str] | None:
    """The last line of a replica that saw no GPU itself, not by a worker that it made."""
    log = logs.current(container.name)
    for line in reversed(list(log.find(_UNSEEN))) if log else ():
        said = _REPLICA.search(line.text[:400])
        # it names the address of an actor on another node
        if said is None or log is None or said["ip"] not in (None, container.pod.status.pod_ip):
            continue
        above = [other.text for other in line.above(_TRACEBACK) if said["name"] in other.text[:400]]
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
        fix=fixes.advice(
            "Give the replica its GPUs in the RayService's serveConfigV2: num_gpus in ray_actor_options where the engine runs in it "
            "alone, else placement_group_bundles whose first bundle has a GPU"
        ),
        order=line.order,
    )

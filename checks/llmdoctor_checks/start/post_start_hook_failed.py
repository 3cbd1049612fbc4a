"""A postStart hook that fails, for which the kubelet kills the container."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    MASK,
    Container,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    check,
    dig,
    event_evidence,
    expression,
    fixes,
    pod_evidence,
)
from llmdoctor_checks._consequences import CRASHED

#: Models that the hook of Ollama's chart and of many manifests loads before the server counts as started.
_PULLS = ("ollama pull", "ollama run", "ollama create")

#: What waits in a hook, for a while or for the server; and how it would.
_WAITS = expression(r"\b(?:sleep|until|while|wait-for|timeout|retry|seq)\b|--retry")
_UNTIL = "until ollama list > /dev/null 2>&1; do sleep 1; done;"

#: What Ollama's server logs of a client that reached it.
_ASKED = '"/api/pull"'
#: And of a model that the registry began to send (server/download.go).
_PARTS = " part(s)"
_BEGUN = r"\bdownloading \w{8,16} in \d{1,6} .{0,20}part\(s\)"

#: What runtimes answer where the container had ended before its hook could run in it (containerd, CRI-O, Docker, runc).
_GONE = expression(
    r"container not running|in CONTAINER_EXITED state|exec in a stopped|container is not (?:created or )?running"
)

#: As much of a hook's command as a sentence holds.
_QUOTED = 120


@check("post-start-hook-failed", since="0.3", literals=(_ASKED, _PARTS))
def post_start_hook_failed(pod: Pod, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """The container's postStart hook fails, and the kubelet kills the container for it.

    A `postStart` hook runs beside the server as soon as the container is created. When it ends with an error, the kubelet
    kills the container and starts it again, whatever the server itself says: its log shows a server that was told to stop.
    Hooks that download a model (`ollama pull …`) fail with every hiccup of the network, and ran before the server was up
    when they did not wait for it. Where the container had ended before its hook could run in it, the hook is not at fault. Since
    Kubernetes 1.25 the event does not repeat what the hook printed; the container's status holds it for a moment, and so does the
    kubelet's log.

    ## Fix

    Run the hook's command by hand in the container to see what it says. Let the hook not fail (`… || true`), wait for the
    server in it, or move the download to an init container or a Job.

    ## References

    - https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/
    """
    if not pod.failing or events is None:
        return
    failed = [e for e in events.of("FailedPostStartHook", kind="Pod") if e.name == pod.name]
    for container in pod.containers:
        hook = container.spec.lifecycle.post_start if container.spec.lifecycle else None
        waiting = container.waiting
        held = waiting is not None and waiting.reason == "PostStartHookError"
        mine = [e for e in failed if _is_of(e, container) or (len(pod.containers) == 1 and hook)]
        if not container.status.ready and hook is not None and (mine or held):
            yield _failed(pod, container, _command(hook), mine, logs, held=held)
            return


def _is_of(event: Event, container: Container) -> bool:
    """Whether an event names a container: by its path, and up to Kubernetes 1.24 in its message."""
    named = (f"{{{container.name}}}", f'for Container "{container.name}" in Pod')
    return any(name in f"{event.field_path} {event.message}" for name in named)


def _failed(
    pod: Pod, container: Container, command: str, mine: list[Event], logs: Logs | None, *, held: bool
) -> Finding:
    waiting = container.waiting
    asked = any(log.holds(_ASKED) for log in container.own_logs(logs))
    begun = any(any(log.matching(_BEGUN, _PARTS)) for log in container.own_logs(logs))
    gone = _GONE.search(mine[-1].message if mine else waiting.message if waiting else "") is not None
    pulls = not gone and any(text in command for text in _PULLS)
    how = f": {container.name} itself had ended by then" if gone else ", and the kubelet kills the container each time"
    said = f"postStart hook of {container.name}" + (f" ({command[:_QUOTED]})" if command else "")
    return Finding(
        confidence="possible" if gone else "certain",  # what ended the container stands before it
        summary=f"The {said} failed{_often(mine)}{how}.",
        evidence=tuple(_evidence(pod, container, command, mine, held=held)),
        explains=(*CRASHED, "engine-dead"),
        fixes=(
            *(_waiting(container) if pulls and not (_WAITS.search(command) or asked or begun) else ()),
            *(_fix_of_pull(pod, begun=begun) if pulls else ()),
            *(_of_ended(container) if gone else ()),
            fixes.advice(
                f"Run the hook's command by hand to see what it says; let it wait for the server, and not fail, in {fixes.edited(pod)}",
                f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name} --previous",
            ),
        ),
    )


def _waiting(container: Container) -> Iterator[Fix]:
    """Let the hook wait for the server, beside which it starts: Ollama's client asks that one to pull."""
    hook = container.spec.lifecycle.post_start if container.spec.lifecycle else None
    told = dig(hook, "exec.command")
    words = told if isinstance(told, list) else []
    summary = (
        f"Have the hook wait until the server answers: {_UNTIL} before its command, as it starts beside the server"
    )
    shell = len(words) == 3 and str(words[0]).endswith("sh") and words[1] == "-c"
    if shell and len(str(words[2])) < _QUOTED * 10 and MASK not in str(words[2]):
        path = f"{container.pointer}/lifecycle/postStart/exec/command/2"
        change = {"op": "replace", "path": path, "value": f"{_UNTIL} {words[2]}"}
        yield fixes.patch(container.pod, summary, [change])
    else:
        yield fixes.advice(f"{summary}, in a shell (sh -c), in {fixes.edited(container.pod)}")


def _of_ended(container: Container) -> Iterator[Fix]:
    """What to do about a container that ends by itself; one with all rights of the node is seldom meant for another user than root."""
    pod, own = container.pod, container.spec.security_context
    user = pod.spec.security_context.run_as_user
    if own.privileged and own.run_as_user is None and user:
        yield fixes.advice(
            f"Let {container.name} run as root (securityContext.runAsUser: 0 of its own), which is privileged and now has the pod's user "
            f"{user}; or set that user at the container that needs it instead of the pod, in {fixes.edited(pod)}"
        )
    yield fixes.advice(
        f"See why {container.name} ends, by its log and exit code: its hook only found it gone",
        f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name} --previous",
    )


def _command(hook: dict[str, object]) -> str:
    words = dig(hook, "exec.command")
    return " ".join(" ".join(str(word) for word in words).split()) if isinstance(words, list) else ""


def _often(events: list[Event]) -> str:
    count = max((event.count for event in events), default=0)
    return f" {count} times" if count > 1 else ""


def _evidence(pod: Pod, container: Container, command: str, events: list[Event], *, held: bool) -> Iterator[Evidence]:
    yield from (event_evidence(event, pod.cluster) for event in events[-1:])
    if held and container.waiting:
        path = f"status.containerStatuses[{container.name}].state.waiting"
        yield pod_evidence(pod, path, f"{container.waiting.reason}: {container.waiting.message}")
    if command:
        yield pod_evidence(container, "lifecycle.postStart.exec.command", command)


def _fix_of_pull(pod: Pod, *, begun: bool) -> Iterator[Fix]:
    if begun:
        yield fixes.advice(
            f"Have a Job load the models to a claim instead of the hook, in {fixes.edited(pod)}: the registry was reached and a download "
            "had begun, which each start of the container begins anew where no claim keeps what came"
        )
        return
    yield fixes.advice(
        f"See whether the pod reaches Ollama's registry (DNS, proxy, network policy), or keep the models on a volume and load "
        f"them by a Job, in {fixes.edited(pod)}",
        f"kubectl -n {pod.namespace} get networkpolicies",
    )

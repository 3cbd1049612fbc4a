"""What is wrong with a pod by its status, its events and its own port: no cause, but that there is one to be found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.units import parse_time, say_seconds

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.container import Container
    from kubectl_llmdoctor.facts.pod import Pod

#: From when on a pod that is being made, or an init container that runs, is taken for stuck; and how long ago an end
#: with an error still counts in a container that runs again. Half a minute off the round figures, so that the moment
#: of looking does not decide.
_CREATING_SECONDS, _INIT_SECONDS, _RECENT_SECONDS = 330, 630, 3630
#: The same while the kubelet's last word is that it pulls an image: those of engines have 10 GB and more.
_PULLING_SECONDS, _PULLS = 1230, "Pulling"
#: How long containers are ready before the pod is: the kubelet says so at once, who owns a readiness gate (a load balancer) later.
_SEEN_SECONDS, _GATE_SECONDS = 60, 630
#: An init container that has failed so often and runs once more has failed as one that waits for its turn has.
_AGAIN = 2
#: With what a process ends that is told to stop (SIGTERM), and how much later than it a deletion may be written down.
_TOLD, _WRITTEN_LATER = (143,), timedelta(seconds=60)
#: Who has restarted so often counts as unsound for longer: until it has run for so long, and longer than between restarts before,
#: or for so many times as long, and as its last instance ran: what ended it in its first minutes has come to be there since.
_OFTEN, _SETTLED_SECONDS, _MANY_TIMES = 5, 86400, 6

#: The kubelet's words for a restart that a probe brought about.
_PROBE_KILL = expression(r"^Container (?P<container>\S+) failed (?:liveness|startup) probe, will be restarted")
#: And for one because somebody changed its image or resources in place.
_CHANGED = expression(r"^Container (?P<container>\S+) definition changed, will be restarted")

#: Waiting reasons of a container that is only on its way.
STARTING = ("ContainerCreating", "PodInitializing", "")


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a pod by its status, or by what its own port answers or its log ends with."""

    #: `dead`: it counts as ready, and its own port says that the engine behind it is dead
    kind: Literal["pending", "waiting", "crashed", "failed", "not-ready", "creating", "dead"]
    text: str
    container: Container | None = None
    since: datetime | None = None
    #: the kubelet has said nothing of the pod
    silent: bool = False


def troubles_of(pod: Pod) -> Iterator[Trouble]:
    """Everything that is wrong with a pod that exists, the gravest first."""
    status = pod.status
    if status.phase == "Failed" and not _all_by_deletion(pod):
        yield Trouble(kind="failed", text=f"{status.reason or 'Failed'}: {status.message}".rstrip(": "))
    elif status.phase == "Succeeded":
        for container in pod.containers:
            if container.ended_dead:
                yield Trouble(kind="failed", container=container, text="Succeeded, though its engine died")
        return
    elif pod.unscheduled:
        if not pod.awaits_node:
            made = parse_time(pod.obj.metadata.creation_timestamp)
            yield Trouble(kind="pending", text="Pending, no node", since=made)
        return
    for container in pod.containers:
        if not (pod.leaving and _ended_by_deletion(pod, container)):
            yield from _container_troubles(pod, container)
        if container.engine_dead:
            yield Trouble(kind="dead", container=container, text="Running, its engine is dead")
    yield from _stuck(pod)
    if status.phase == "Running" and not pod.ready and not pod.leaving:
        unready = [c for c in pod.containers if c.role != "init" and c.running and not c.status.ready]
        for container in unready:
            if container.role == "main":
                yield Trouble(kind="not-ready", container=container, text="Running, not ready", since=container.started)
        if not unready and _set_unready(pod):
            yield Trouble(
                kind="not-ready", text="Running, not ready though its containers are", since=_unready_since(pod)
            )


def _unready_since(pod: Pod) -> datetime | None:
    """Since when a pod is not ready though its containers are, which may be so for less long than it is not ready."""
    condition, containers = pod.condition("Ready"), pod.condition("ContainersReady", "True")
    since = parse_time(condition.last_transition_time) if condition else None
    if since is None or containers is None:
        return since
    return max(since, parse_time(containers.last_transition_time) or since)


def _set_unready(pod: Pod) -> bool:
    """Whether a pod is unready although all its containers are ready, and for longer than it takes to become ready.

    Whoever has lost sight of its node says so, and who owns a readiness gate.
    """
    condition, seconds = pod.condition("Ready"), pod.cluster.seconds_since(_unready_since(pod))
    mains = [c for c in pod.containers if c.role == "main"]
    if condition is None or seconds is None or not mains:
        return False
    patience = _GATE_SECONDS if condition.reason == "ReadinessGatesNotReady" else _SEEN_SECONDS
    ready = all(c.running and c.status.ready for c in mains)
    return ready and seconds > patience


def _stuck(pod: Pod) -> Iterator[Trouble]:
    """Containers that are being made, and init containers that run, for too long."""
    starting = [c for c in pod.containers if c.waiting and c.waiting.reason in STARTING and c.role != "init"]
    up = {c.role for c in pod.containers if c.running}
    # beside one that runs another is made, too, which the kubelet begins with at once; after an init container only
    runs = "main" in up
    if starting and "init" not in up and pod.status.phase in (("Pending",) if runs else ("", "Pending", "Running")):
        # after its node was restarted a pod is still Running while its containers are recreated
        ended = [parse_time(c.terminated.finished_at) for c in pod.containers if c.terminated]
        since = max((at for at in (pod.started_at, *ended) if at), default=None)
        age = pod.cluster.seconds_since(since)
        overdue = age is not None and age > (_PULLING_SECONDS if _pulls(pod) else _CREATING_SECONDS)
        if overdue or ((age is None or pod.warned) and not runs):
            length = f" for {say_seconds(age)}" if age is not None else ""
            yield Trouble(kind="creating", container=starting[0], text=f"ContainerCreating{length}", since=since)
    yield from _not_taken_up(pod)
    for container in pod.containers:
        since = container.started if container.role == "init" else None
        # one that only waits for another pod (KubeRay's wait-gcs-ready) downloads nothing
        long = _CREATING_SECONDS if container.name.startswith("wait") else _INIT_SECONDS
        ran = pod.cluster.seconds_since(since)
        if ran is not None and ran > long:
            text = f"init container {container.name} has run for {say_seconds(ran)}"
            yield Trouble(kind="creating", container=container, text=text, since=since)


def _not_taken_up(pod: Pod) -> Iterator[Trouble]:
    """A pod that was given to a node whose kubelet says nothing of it: it stands still, or its node is gone."""
    said = pod.condition("PodScheduled", "True")
    since = parse_time(said.last_transition_time) if said else None
    age, status = pod.cluster.seconds_since(since), pod.status
    silent = not (status.start_time or status.container_statuses or status.init_container_statuses)
    if status.phase != "Pending" or not silent or pod.leaving or age is None:
        return
    if age > _CREATING_SECONDS:
        text = f"Pending on {pod.spec.node_name}, whose kubelet has not taken the pod up for {say_seconds(age)}"
        yield Trouble(kind="creating", text=text, since=since, silent=True)


def _pulls(pod: Pod) -> bool:
    """Whether the last that the kubelet said of a pod is that it pulls an image."""
    said = [(e.last, e.reason) for e in pod.events if e.last is not None and e.name == pod.name]
    return bool(said) and max(said)[1] == _PULLS


def _killed(pod: Pod, words: re.Pattern[str], container: Container, ended: datetime) -> bool:
    """Whether the kubelet told the instance that ended then to end, and said so in these words."""
    grace = pod.spec.termination_grace_period_seconds or 30
    for event in pod.events:
        found = words.match(event.message) if event.reason == "Killing" and event.last else None
        if found and event.last and found["container"] == container.name:
            return abs((ended - event.last).total_seconds()) <= grace + 15
    return False


def _up(pod: Pod, container: Container) -> bool:
    """Whether a container is ready, or was until its pod was told to end, and runs on: its probes say nothing more of it."""
    return container.status.ready or (pod.leaving and container.running and not _unready_before(pod))


def _unready_before(pod: Pod) -> bool:
    """Whether a pod was not ready, and for more than a moment, when it was told to end."""
    condition, told = pod.condition("Ready"), _told_to_end(pod)
    since = parse_time(condition.last_transition_time) if condition and condition.status != "True" else None
    return since is not None and told is not None and (told - since).total_seconds() > _SEEN_SECONDS


def _restarted_from_outside(pod: Pod, container: Container, ended: k8s.Terminated, since: datetime | None) -> bool:
    """Whether a container that is ready again ended with its node or runtime, or was recreated as somebody had asked."""
    return _up(pod, container) and (ended.lost or (since is not None and _killed(pod, _CHANGED, container, since)))


def _ended_by_deletion(pod: Pod, container: Container) -> bool:
    """Whether a container ended after its pod was deleted: it was told to, also where the deletion was written down a little later."""
    ended, told = container.terminated, _told_to_end(pod)
    at = parse_time(ended.finished_at) if ended else None
    if ended is None or told is None or at is None:
        return False
    return at >= (told - _WRITTEN_LATER if ended.exit_code in _TOLD else told)


def _all_by_deletion(pod: Pod) -> bool:
    """Whether nothing but its deletion has ended a pod that counts as failed, as containers that are told to stop end with an error."""
    if not pod.leaving or pod.status.reason or pod.status.message:
        return False
    ended = [c for c in pod.containers if c.status.state.terminated and c.status.state.terminated.exit_code]
    return bool(ended) and all(_ended_by_deletion(pod, container) for container in ended)


def _told_to_end(pod: Pod) -> datetime | None:
    """When a pod was deleted: who deletes it may set another grace period than it has itself."""
    meta, own = pod.obj.metadata, pod.spec.termination_grace_period_seconds
    until, grace = parse_time(meta.deletion_timestamp), meta.deletion_grace_period_seconds
    if until is None:
        return None
    return until - timedelta(seconds=grace if grace is not None else 30 if own is None else own)


def _container_troubles(pod: Pod, container: Container) -> Iterator[Trouble]:
    waiting, ended = container.waiting, container.terminated
    since = parse_time(ended.finished_at) if ended else None
    age = pod.cluster.seconds_since(since)
    died = ended is not None and _died(pod, container, ended, since)
    if waiting and waiting.reason == "CrashLoopBackOff":
        yield Trouble(kind="crashed", container=container, text=waiting.reason, since=since)
    elif waiting and waiting.reason not in STARTING:
        yield Trouble(kind="waiting", container=container, text=waiting.reason)
    elif container.status.state.terminated and died:
        yield Trouble(kind="crashed", container=container, text=_ending(container.status.state.terminated), since=since)
    elif died and ended and container.role == "init" and container.running and container.restarts >= _AGAIN:
        if age is None or age < _RECENT_SECONDS:
            yield Trouble(kind="crashed", container=container, text=_ending(ended), since=since)
    elif died and ended and container.restarts and container.role != "init":
        often = container.restarts >= _OFTEN and not (
            age and since and _settled(pod, container.restarts, ended, since, age)
        )
        recent = (age is None or age < _RECENT_SECONDS) and not _restarted_from_outside(pod, container, ended, since)
        if not _up(pod, container) or recent or often:
            yield Trouble(kind="crashed", container=container, text=_ending(ended), since=since)


def _died(pod: Pod, container: Container, ended: k8s.Terminated, since: datetime | None) -> bool:
    """Whether an ending was none in good order; one with 0 is not always."""
    if ended.exit_code != 0 or ended.reason not in ("Completed", ""):
        return True
    if container.role == "main" and container.running and not container.status.ready:
        return True  # a server does not end by itself: told to by a failed probe it ends with 0
    if container.role == "main" and container.restarts and container.said_dead(previous=True):
        return True  # a server that found its engine dead shuts down in good order, with 0
    return since is not None and container.restarts > 0 and _killed(pod, _PROBE_KILL, container, since)


def _settled(pod: Pod, restarts: int, ended: k8s.Terminated, since: datetime, age: float) -> bool:
    """Whether it has run for a day since its last restart, and for longer than its restarts were apart before, or far longer."""
    made, begun = parse_time(pod.obj.metadata.creation_timestamp), parse_time(ended.started_at)
    if made is None:
        return False
    apart = (since - made).total_seconds() / restarts
    ran = (since - begun).total_seconds() if begun else apart
    return age >= min(max(_SETTLED_SECONDS, 2 * apart), max(_RECENT_SECONDS, _MANY_TIMES * max(apart, ran)))


def _ending(ended: k8s.Terminated) -> str:
    """`OOMKilled, exit 137`."""
    return f"{ended.reason or 'ended'}, exit {ended.exit_code}"

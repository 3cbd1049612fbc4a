"""How container instances ended: exit codes and signals, out of memory, killed by a probe, and how far they had come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.events import Event, Events
from kubectl_llmdoctor.facts.logs import Log, Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.units import parse_time

_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV"}
_SIGNALS |= {13: "SIGPIPE", 15: "SIGTERM"}


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The last instance of a container that ended with an error."""

    container: Container
    terminated: k8s.Terminated
    #: where it stands in the pod: `status.containerStatuses[vllm].lastState.terminated`
    path: str

    @property
    def code(self) -> int:
        """The exit code; 128 + n for signal n."""
        return self.terminated.exit_code

    @property
    def signal(self) -> str:
        """`SIGKILL` for exit code 137; empty when it ended by itself."""
        return _SIGNALS.get(self.code - 128, "") if self.code > 128 else ""

    @property
    def oom_killed(self) -> bool:
        """Whether the runtime saw the kernel kill in the container's memory cgroup."""
        return self.terminated.reason == "OOMKilled"

    @property
    def started(self) -> datetime | None:
        """When the instance started."""
        return parse_time(self.terminated.started_at)

    @property
    def finished(self) -> datetime | None:
        """When it ended."""
        return parse_time(self.terminated.finished_at)

    @property
    def seconds(self) -> float | None:
        """How many seconds it ran; None where a time is missing, or they contradict each other."""
        if self.started and self.finished and self.finished >= self.started:
            return (self.finished - self.started).total_seconds()
        return None

    @property
    def text(self) -> str:
        """`exitCode: 137, reason: OOMKilled`."""
        return f"exitCode: {self.code}, reason: {self.terminated.reason or 'none given'}"


def endings(pod: Pod) -> Iterator[Ending]:
    """Containers whose last instance ended with an error that still matters (see Pod.troubles)."""
    for trouble in pod.troubles:
        container = trouble.container
        if trouble.kind == "crashed" and container and container.terminated:
            kind = "containerStatuses" if container.role == "main" else "initContainerStatuses"
            state = "state" if container.status.state.terminated else "lastState"
            path = f"status.{kind}[{container.name}].{state}.terminated"
            yield Ending(container=container, terminated=container.terminated, path=path)


def ending_of(container: Container) -> Ending | None:
    """How the last instance of a container ended, if that was with such an error."""
    return next((ending for ending in endings(container.pod) if ending.container is container), None)


def last_round(pods: Sequence[Pod]) -> list[Ending]:
    """How the pods of one replica ended when it went down last, the earliest end first; one for each pod at most.

    An end before the last instance had even started belongs to a round before; without a start time nothing does. A pod
    that was recreated has no end, so that the first of those that are known need not be the first of all.
    """
    known = [max(dated, key=_moment) for pod in pods if (dated := [e for e in endings(pod) if e.finished])]
    if not known:
        return []
    began = max(known, key=_moment).started
    return sorted((e for e in known if not began or _moment(e) > began), key=_moment)


def _moment(ending: Ending) -> datetime:
    return ending.finished or datetime.min


def ended_logs(pod: Pod, logs: Logs | None) -> list[Log]:
    """The logs of the instances that ended so, as far as they were read."""
    return [log for ending in endings(pod) if (log := log_of(ending, logs))]


def log_of(ending: Ending | None, logs: Logs | None) -> Log | None:
    """The log of the instance that ended: the previous one, unless the container did not start again since."""
    if ending is None:
        return None
    found = ending.container.own_logs(logs)
    previous = next((log for log in found if log.previous), None)
    current = next((log for log in found if not log.previous), None)
    return previous or (None if ending.container.running else current)


_PROBE_KILL = expression(r"failed (?P<probe>liveness|startup) probe, will be restarted")


def probe_kills(pod: Pod, events: Events, container: Container) -> Iterator[tuple[str, Event]]:
    """Events that say that the kubelet restarted a container for a failed probe: `liveness` or `startup`."""
    several = sum(c.role != "init" for c in pod.containers) > 1
    for event in events.of("Killing", "Unhealthy", kind="Pod"):
        found = _PROBE_KILL.search(event.message)
        if event.name != pod.name or not found:
            continue
        named = f"{{{container.name}}}" in event.field_path or f"ontainer {container.name} " in event.message
        if named or not several:
            yield found["probe"], event

"""Answers that broke off when pods of the server's workload were told to end, and at no other time, by what its clients say."""

import re
from collections.abc import Iterator
from datetime import datetime

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Event,
    Events,
    Line,
    Log,
    Pod,
    current_logs,
    events_of,
    in_order,
    leads_here,
    top_of,
    written_ago,
)
from llmdoctor_checks._clients import asking
from llmdoctor_checks.serving._gateways import CUT_SHORT, STORES, asked_for

#: How clients say that a connection ended in the middle: beside streams' own words those of Python, Node, Go, Java and Rust. When they say
#: it is the evidence, so the words may be any of these.
LITERALS = (
    *CUT_SHORT, "Server disconnected", "RemoteProtocolError", "ConnectionResetError", "onnection reset by peer",
    "socket hang up", "ECONNRESET", "unexpected EOF", "remature close", "remature EOF", "remature end of",
    "onnection closed before message completed", "onnection closed prematurely", "ncomplete chunked read",
    "IncompleteRead", "roken pipe", "error: terminated", "other side closed",
)  # fmt: skip

#: What controllers say of a pod that they delete, and the kubelet of a container that it was told to end; of one that a probe ends
#: it says more.
_DELETED = "SuccessfulDelete"
_STOPPED, _STOPPING = "Killing", "Stopping container "

#: Clocks differ by so many seconds, and the last answer ends so long after the grace period.
_SKEW, _AFTER = 3, 10

#: What else a program loses connections to, at the same time where a node is drained; and what no answer is.
_ELSE = (
    rf"(?i){STORES}|database|\bdb\b|cache|embed|rerank|\btool\b|upload|download|\bs3\b|smtp|\bdns\b|health|heartbeat|\bprobe|\bping\b|web.?socket"
    r"|/metrics\b|(?-i:\bGET\b)|\\?\"(?:role|content|messages|prompt)\\?\": ?"
)

#: So many answers, and so large a share of all that broke off, are no chance; nor are they where so many would fall into such times,
#: given the share that these have of the log, once in so many logs.
_FEWEST, _SHARE, _CHANCE = 2, 0.8, 0.05

#: One request is said more than once.
_ONE_SECONDS, _ONE_LINES = 1, 3
_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?"


class WithThePod(msgspec.Struct, frozen=True):
    """The lines of a client, and the last event of pods that were deleted before one of them."""

    lines: list[Line]
    event: Event
    #: how many seconds after the pods were told to end the last of them broke off
    after: float
    #: how many seconds before the snapshot the last of them did
    ago: float


def with_the_pod(pod: Pod, cluster: Cluster, events: Events | None, grace: int) -> WithThePod | None:
    """What broke off within the grace period of pods that were deleted, and hardly anything that did at another time."""
    now, gone = cluster.now, _gone(pod, cluster, events)
    if now is None or not gone:
        return None
    told = sorted({at for one in gone for at in (one.first, one.last) if at is not None})
    ended = {at: (now - at).total_seconds() for at in told}
    windows = [(since + _SKEW, since - grace - _AFTER) for since in ended.values()]
    said = cluster.once("broke off", lambda: list(_broke_off(cluster)))
    who = {c.whose for c in asking(pod, cluster)} if said else set()
    for log, lines in said:
        apart = _mostly_within(windows, _told_of(pod, log, lines, now)) if log.whose in who else []
        if not apart or _covered(log, windows, now) ** len(apart) > _CHANCE:
            continue
        last = max((at for at, since in ended.items() if since + _SKEW >= apart[-1][1]), default=told[-1])
        event = next(one for one in gone if last in (one.first, one.last))
        after = max(min(since - ago for since in ended.values() if since + _SKEW >= ago) for _, ago in apart)
        return WithThePod([line for line, _ in apart], event, after, apart[-1][1])
    return None


def _gone(pod: Pod, cluster: Cluster, events: Events | None) -> list[Event]:
    """What tells when pods of the workload were told to end: their controllers, else the kubelet."""
    deleted = [*events.of(_DELETED), *_of_former_templates(pod, cluster)] if events is not None else []
    return [one for one in dict.fromkeys(deleted or _stopped(pod, cluster)) if one.last is not None]


def _told_of(pod: Pod, log: Log, lines: list[Line], now: datetime) -> list[tuple[Line, float]]:
    """The lines that have a time and name no other server, each with how many seconds ago it was written."""
    names = {item.name for item in pod.services}
    return [
        (line, ago)
        for line in lines
        if (ago := written_ago(line, now)) is not None
        and all(leads_here(pod, names, url, log.source.namespace) for url in asked_for(line))
    ]


def _mostly_within(windows: list[tuple[float, float]], found: list[tuple[Line, float]]) -> list[tuple[Line, float]]:
    """One line for each request that broke off while a pod ended, where those are nearly all that broke off."""
    apart = _once([(line, ago) for line, ago in found if any(late <= ago <= early for early, late in windows)])
    return apart if len(apart) >= max(_FEWEST, _SHARE * len(_once(found))) else []


def _once(found: list[tuple[Line, float]]) -> list[tuple[Line, float]]:
    """The first line of each request."""
    return [x for n, x in enumerate(found) if not n or _another(found[n - 1], x)]


def _stopped(pod: Pod, cluster: Cluster) -> list[Event]:
    """What the kubelet says of pods of a Deployment that are gone: it was told to end their containers."""
    return cluster.once("stopped pods of Deployments", lambda: _stopped_by_deployment(cluster)).get(
        _deployment(pod), []
    )


def _deployment(pod: Pod) -> tuple[str, str]:
    """Namespace and name of the Deployment above a pod; without a name where there is none."""
    top = top_of(pod.item, pod.cluster)
    return pod.namespace, top.item.name if top and top.item.plain_kind == "Deployment" else ""


def _stopped_by_deployment(cluster: Cluster) -> dict[tuple[str, str], list[Event]]:
    """The same of all pods, by the namespace and the name of the Deployment that the name of the pod begins with."""
    found = dict[tuple[str, str], list[Event]]()
    for one in events_of(cluster).of_kind("Pod"):
        if one.reason != _STOPPED or not one.message.startswith(_STOPPING):
            continue
        named = re.fullmatch(r"(.{1,300})-[a-z\d]{5,10}-[a-z\d]{5}", one.name)
        if named is not None and cluster.item("Pod", one.namespace, one.name) is None:
            found.setdefault((one.namespace, named[1]), []).append(one)
    return found


def _of_former_templates(pod: Pod, cluster: Cluster) -> list[Event]:
    """What is said of pods that a Deployment had before its template was changed: their ReplicaSets are others, and may be gone."""
    return cluster.once("deleted by ReplicaSets", lambda: _by_replica_sets(cluster)).get(_deployment(pod), [])


def _by_replica_sets(cluster: Cluster) -> dict[tuple[str, str], list[Event]]:
    """The pods that ReplicaSets deleted, by the namespace and the Deployment after which these are called."""
    found: dict[tuple[str, str], list[Event]] = {}
    for one in events_of(cluster).of_kind("ReplicaSet"):
        if one.reason == _DELETED and (named := re.fullmatch(r"(.{1,253})-[a-z\d]{5,10}", one.name)) is not None:
            found.setdefault((one.namespace, named[1]), []).append(one)
    return found


def _another(one: tuple[Line, float], other: tuple[Line, float]) -> bool:
    """Whether two lines are of two requests."""
    if one[1] - other[1] >= _ONE_SECONDS or other[0].number - one[0].number > _ONE_LINES:
        return True
    # said in the same words of another number, as of another session
    texts = [re.sub(_CLOCK, "", line.text[:2000]) for line in (one[0], other[0])]
    return texts[0] != texts[1] and re.sub(r"\d+", "0", texts[0]) == re.sub(r"\d+", "0", texts[1])


def _covered(log: Log, windows: list[tuple[float, float]], now: datetime) -> float:
    """The share that the times at which pods ended have of those of which the log tells."""
    ends = [
        ago for number in (1, len(log)) for x in log.lines(number, number) if (ago := written_ago(x, now)) is not None
    ]
    if len(ends) < 2 or ends[0] <= ends[1]:
        return 1.0
    return min(1.0, sum(early - late for early, late in windows) / (ends[0] - ends[1]))


def _broke_off(cluster: Cluster) -> Iterator[tuple[Log, list[Line]]]:
    for log in current_logs(cluster):
        if log.pod and (lines := in_order(log.find(*LITERALS))):
            yield log, [line for line in lines if not re.search(_ELSE, line.text[:2000])]

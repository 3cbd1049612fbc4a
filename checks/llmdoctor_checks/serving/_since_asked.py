"""Requests that a client gave up each time at the same round age, by when the server says that they began, and the client that they ended.

Node's fetch says of a stream that it ended no more than `terminated`, and most libraries as little: how old the request was then only the
server's log tells. So the words need only say that something was broken off.
"""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Line, Log, Pod, current_logs, in_order, leads_here, written_ago
from llmdoctor_checks._clients import asking
from llmdoctor_checks.serving._gateways import GENERATES, asked_for
from llmdoctor_checks.serving._round_ages import NO_REQUEST, OF_ELSE, asks_nothing_else

#: How servers say that a request begins: vLLM, llama-server, and any that prints its method and path and no status.
_BEGINS = ("Added request ", "Received request ", " processing task", "POST /")
_BEGUN = (
    rf"\b(?:Added|Received) request [\w-]|\| task \d{{1,12}} \| processing task|\bPOST /\S{{0,200}}(?:{GENERATES})\s*$"
)
#: What a client's line says of one that was broken off.
BROKEN = ("erminated", "borted", "imed out", "imeout", "hang up", "unexpected EOF", "other side closed")
#: What ends as it should, or is said for information, was not broken off, be it that it ended on time.
_NO_FAULT = (
    rf"{OF_ELSE}|(?-i:\bINFO\b)|\b(?:normal|graceful|success)|\blevel\\?\"?[=:] ?\\?\"?info\b|\binfo:"
    rf"|{NO_REQUEST.removeprefix('(?i)')}"
)
#: Timeouts that people set are multiples of so many seconds; no shorter, no longer, and met to so much by two clocks.
_ROUND, _SHORTEST, _LONGEST, _EXACT = 30, 30, 1800, 1.0
#: So many, each of another request, and so large a share of all, are no chance.
_FEWEST, _SHARE = 3, 0.8
#: The last begins that are looked at, among so many lines that may be some, and the last lines of a client.
_MOST, _MOST_BESIDE, _MOST_BROKEN = 500, 20_000, 100


def since_asked(pod: Pod, own: Log, cluster: Cluster) -> tuple[list[Line], int] | None:
    """What a client of this server alone says, one line of each request, and how many seconds after its begin."""
    names, now = {item.name for item in pod.services}, cluster.now
    said = cluster.once("broken off", lambda: dict(_broken_off(cluster)))
    clients = [c for c in asking(pod, cluster) if c.whose in said] if said else []
    if not clients:
        return None
    begun = sorted(-ago for ago in (written_ago(line, now) for line in _begins(own)) if ago is not None)
    if now is None or len(begun) < _FEWEST:
        return None
    for container in clients:
        one = container.whose
        alone = asks_nothing_else(container, pod, names)
        of_each: dict[float, tuple[Line, float]] = {}
        for line in (x for x in said[one] if not re.search(_NO_FAULT, x.text[:2000])):
            ago, urls = written_ago(line, now), asked_for(line)
            if ago is None or not (alone or urls) or not all(leads_here(pod, names, url, one[0]) for url in urls):
                continue
            if at := bisect_right(begun, -ago):
                of_each.setdefault(begun[at - 1], (line, -ago - begun[at - 1]))
        rounds = [round(age / _ROUND) * _ROUND for _, age in of_each.values()]
        seconds = max(set(rounds), key=rounds.count, default=0)
        lines = [line for line, age in of_each.values() if abs(age - seconds) <= _EXACT]
        if _SHORTEST <= seconds <= _LONGEST and len(lines) >= max(_FEWEST, _SHARE * len(of_each)):
            return lines, seconds
    return None


def _begins(own: Log) -> list[Line]:
    said = _last(own, _BEGINS, _MOST_BESIDE)
    return [line for line in said if re.search(_BEGUN, line.text[:2000])][-_MOST:]


def _last(log: Log, words: tuple[str, ...], most: int) -> list[Line]:
    """The last lines that have one of these words."""
    return in_order(line for one in words for line in deque(log.find(one), maxlen=most))[-most:]


def _broken_off(cluster: Cluster) -> Iterator[tuple[tuple[str, str, str], list[Line]]]:
    """The last lines of each container's log by which something was broken off."""
    for log in current_logs(cluster):
        if log.pod and (lines := _last(log, BROKEN, _MOST_BROKEN)):
            yield log.whose, lines

"""What clients of a server say in their own logs, and whose fault it may be."""

import itertools
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    askers,
    current_logs,
    dig,
    speaks_of_one,
    told_by,
    written_before,
)

#: A request to generate in the access log of uvicorn or of llama-server, and its status.
_ASKED = (
    r"\"POST /v1/(?:chat/completions|completions|responses|messages|embeddings)\S* HTTP/[\d.]+\" (\d{3})"
    r"|request: POST (?:/v1)?/(?:chat/completions|completions|embeddings?|rerank(?:ing)?) [\w.:]{2,45} (\d{3})"
)

#: Whom the server refused one, and with which status, in the same logs.
_ADDRESS = r"\d{1,3}(?:\.\d{1,3}){3}"
_TO_WHOM = (
    rf"(?<![\d.])({_ADDRESS}):\d{{1,5}}(?: \d{{1,9}})? - \"POST /\S{{1,200}} HTTP/[\d.]{{1,3}}\" (4\d\d)\b"
    rf"|request: POST /\S{{1,200}} ({_ADDRESS}) (4\d\d)$"
)

#: What clients call a server of models, or by which address they ask it.
_A_MODEL = r"(?i)llm|model|openai|ollama|infer|generat|/v\d\b|:11434\b"

#: From so many answers for one refusal on these are some client's own affair.
_STRAY, _FEWEST = 10, 2


def told(
    pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None, words: tuple[tuple[str, str], ...], status: str
) -> list[tuple[Line, re.Match[str]]]:
    """What a ready server answered to clients that ask nobody else, or who asks for them, as they print it; its own log has no word.

    They are known by what they are told of it, or by their address, where the server's log says that it refused them something with
    the status of these words.
    """
    said = cluster.once(f"told {words}", lambda: list(_said(cluster, words))) if pod.ready else []
    mine = engine.container.own_log(logs)
    if not said or (mine is not None and any(next(mine.find(literal), None) for literal, _ in words)):
        return []
    known = [*asking(pod, cluster), *(_refused_by_address(pod, cluster, mine, status) if mine is not None else ())]
    clients = {c.whose for c in known}
    return [
        (line, match)
        for who, line, match in said
        if who in clients and not written_before(line, engine.container, cluster)
    ]


def _refused_by_address(pod: Pod, cluster: Cluster, log: Log, status: str) -> Iterator[Container]:
    """Containers of pods whose requests the server refused so, by its access log, and that are told of no other server of models."""
    lines = log.find('"POST /', "request: POST ")
    refused_ones = (said for line in lines if (said := re.search(_TO_WHOM, line.text[:2000])))
    addresses = {said[1] or said[3] for said in refused_ones if (said[2] or said[4]) == status}
    every = cluster.once("pods by address", lambda: _by_address(cluster)) if addresses else {}
    names = {item.name for item in pod.services}
    for item in (item for address in sorted(addresses) for item in every.get(address, ())):
        other = Pod.of(item, cluster)
        # one of the host's network shares its address with others
        if item is not pod.item and not (other.spec.host_network or other.completed or other.leaving):
            yield from (c for c in other.containers if speaks_of_one(c, pod, names))


def _by_address(cluster: Cluster) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in cluster.items("Pod"):
        found.setdefault(str(dig(item.raw, "status.podIP") or ""), []).append(item)
    return found


def asking(pod: Pod, cluster: Cluster) -> list[Container]:
    """Containers of other pods that ask this one and no other server of models, and of those that ask such a one."""
    names = {item.name for item in pod.services}
    served = {(item.namespace, item.name) for item in pod.services}
    before = _asking_alone(pod, cluster)
    # of a pod that asks another server, too, nobody knows for which its clients ask
    fronts = {
        (c.pod.namespace, c.pod.name): c.pod
        for c in before
        if all(speaks_of_one(x, pod, names) for x in c.pod.containers)
    }
    further = [c for front in fronts.values() for c in _asking_alone(front, cluster)]
    # servers tell a router that they are there; what replicas say is no client's word
    return [*before, *(c for c in further if not served & {(item.namespace, item.name) for item in c.pod.services})]


def asked_as_one(pod: Pod) -> bool:
    """Whether clients take what nobody knows for a server of models, by what they call it."""
    names = {item.name for item in pod.services}
    return any(re.search(_A_MODEL, f"{where} {value[:300]}") for _, where, value in askers(pod, names, pod.cluster))


def asks_as_one(pod: Pod) -> bool:
    """Whether what nobody knows is told of a server of models itself: it asks that for others."""
    told = ((name, value) for one in pod.containers for name, value in told_by(one))
    return any("://" in value and re.search(_A_MODEL, f"{name} {value[:300]}") for name, value in told)


def _asking_alone(pod: Pod, cluster: Cluster) -> list[Container]:
    names = {item.name for item in pod.services}
    return [c for c, _, _ in askers(pod, names, cluster) if speaks_of_one(c, pod, names)]


def _said(
    cluster: Cluster, words: tuple[tuple[str, str], ...]
) -> Iterator[tuple[tuple[str, str, str], Line, re.Match[str]]]:
    """Whose log, by namespace, pod and container, has one of these wordings."""
    for log in current_logs(cluster):
        for literal, pattern in words:
            yield from ((log.whose, line, said) for line, said in log.matching(pattern, literal))


def refused(log: Log | None, *statuses: str, since_first: bool = False, after: int = 0) -> tuple[int, int]:
    """How many requests to generate the server answered with one of these statuses, of how many, or of how many since the first.

    After a line, if one is given.
    """
    lines = [*log.find('"POST /v1/', "request: POST ")] if log else []
    asked = [m[1] or m[2] for line in lines if line.number > after and (m := re.search(_ASKED, line.text[:2000]))]
    if since_first:
        asked = list(itertools.dropwhile(lambda status: status not in statuses, asked))
    return sum(one in statuses for one in asked), len(asked)


def astray(times: int, count: int, all_of: int) -> bool:
    """Whether a client was refused so seldom, or only once by all that is known, that it got its own requests wrong."""
    return max(times, count) < _FEWEST or all_of - count >= _STRAY * max(count, 1)

"""What a server answered by the words of a signature, where another's log has it.

A client that asks no other server quotes it, where the server's own log has no word; or a proxy passes requests on, and the log of the
server behind it says why it refused them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.evidence import log_evidence
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.clients import clients, leads_here
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.container import Container, written_before
from kubectl_llmdoctor.facts.destinations import current_logs, engines_in, follow, logs_of
from kubectl_llmdoctor.facts.logs import Line, Log, in_order
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.requests import PER_STRAY, answered, stray
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.signatures.declared import Pattern, Signature
from kubectl_llmdoctor.signatures.wording import capture, captured, finding, fits

#: By this a line says that it quotes an answer with an error: a status of HTTP or of gRPC.
REFUSED = expression(
    r"(?i:error code|status(?:[ _]?code)?)\W{1,4}[45]\d\d\b|\b[45]\d\d (?:Client|Server) Error\b|\bHTTP(?:/[\d.]{1,3})? [45]\d\d\b"
    r"|\b[45]\d\d (?:Bad Request|Not Found|Unprocessable|Too Many Requests|Internal Server Error|Service Unavailable)\b"
    r"|\b(?:400|413|422|429|500|503):? [\"'{]"
    r"|\berror \([45]\d\d\):"
    r"|\\?\"code\\?\": ?[45]\d\d\b|'code': ?[45]\d\d\b|\bStatusCode\.[A-Z_]{5,30}\b"
)
#: What a user or a page may have written.
_WRITTEN = expression(r"(?i)\\?\"(?:role|content|messages|prompt)\\?\": ?\\?\"|'(?:role|content|messages|prompt)': ?'")
#: How a line goes on to say what was answered, where the status stands in the line above.
_BODY = expression(r"(?i)\b(?:response|answer|body|text|detail|content)s?\b[^{}\n]{0,40}[:=] ?[\"'{b]")
#: Whom a line says that it asked.
_ADDRESS = expression(r"https?://[\w.-]{1,253}(?::\d{1,5})?")
#: How programs in Python (httpx, requests, aiohttp) say that another refused what they passed on, and who.
_FOR_URL = (" for url", ", url='http")
_WAS_REFUSED = expression(
    r"(?:(?:Client|Server) error '([45]\d\d)[^'\n]{0,60}' for url '|\b([45]\d\d) (?:Client|Server) Error: [^\n]{0,100}? for url: "
    r"|\b([45]\d\d), message='[^'\n]{0,100}', url='(?:URL\(')?)https?://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?(?![\w:])"
)
#: How uvicorn logs an answer, and the lines below an error where it does.
_ANSWER = expression(
    r"(?:(?<![\d.])(?P<who>\d{1,3}(?:\.\d{1,3}){3}):\d{1,5} - )?\"POST /[^\s\"]{0,300} HTTP/[\d.]{1,3}\" (?P<status>\d{3})\b"
)
_ANSWERED = 3
#: So many make no client's slip.
_FEWEST = 2
#: Lines of the server's own log that are looked at for each wording.
_MOST = 500


def in_answers(signature: Signature, subject: Subject, pod: Pod) -> Finding | None:
    """The finding by the clients of a ready server, where their logs quote its words."""
    names = {item.name for item in pod.services}
    said = pod.cluster.once(f"quoted {signature.id}", lambda: list(_said(signature, pod.cluster)))
    engine = next(iter(subject.engines(pod)), None)
    server = engine.container if engine else pod.gpu_container
    if not said or not names or server is None or not pod.ready:
        return None
    own = next((x for x in subject.logs(pod) if x.container == server.name and not x.previous), None)
    if own is None or any(_says(own, pattern) for pattern in signature.patterns):
        return None  # it may have its own word for it, or has, and that was weighed
    who = clients(pod, names, pod.cluster)
    said = [(one, line) for one, line in said if one in who and _of_it(line, one[0], names, pod, server)]
    for pattern in filter(_of_one_line, signature.patterns):
        lines = [line for _, line in said if capture(pattern, line.text[:4000]) is not None]
        words = captured(pattern, lines[0]) if lines else None
        if words is None or not fits(pattern, subject, pod, server, words):
            continue
        few = len(lines) < _FEWEST or answered(own) >= PER_STRAY * len(lines)
        evidence = [log_evidence(line, pattern.literal) for line in lines[:2]]
        found = finding(signature, pattern, words, subject, pod, server, evidence, lines[0].order)
        sure = "possible" if (pattern.confidence or signature.confidence) == "possible" else "likely"
        found = msgspec.structs.replace(found, confidence=sure, explains=())
        return msgspec.structs.replace(found, role="note", severity="info") if few else found
    return None


def _of_one_line(pattern: Pattern) -> bool:
    """Whether the words alone say it; else it is of the server's own log."""
    beside = pattern.near or pattern.raised_in or pattern.phases or pattern.ends or pattern.bare
    return not beside and (pattern.affects or "requests") == "requests"


def behind_a_proxy(signature: Signature, subject: Subject, pod: Pod) -> Finding | None:
    """The finding of a proxy that was refused what it passed on, by the log of the server that it names, which runs an engine."""
    if not pod.ready or subject.engines(pod):
        return None
    passed = pod.cluster.once(f"passed on {pod.namespace}/{pod.name}", lambda: list(_passed_on(subject, pod)))
    for server, own, statuses, logs in passed:
        names = {engine.name for engine in engines_in(server)}
        for log in logs:
            for pattern in filter(_of_one_line, signature.patterns):
                if pattern.engines and not names & set(pattern.engines):
                    continue
                said = (
                    x for x in islice(log.find(pattern.literal), _MOST) if capture(pattern, x.text[:4000]) is not None
                )
                lines = [x for x in said if not _of_another(x, pod, statuses)]
                words = captured(pattern, lines[-1]) if len(lines) >= _FEWEST else None
                if words is None or stray(lines, ready=True) or not fits(pattern, subject, pod, None, words):
                    continue
                evidence = [log_evidence(lines[-1], pattern.literal), log_evidence(own[-1])]
                found = finding(signature, pattern, words, subject, pod, None, evidence, lines[-1].order)
                look = fixes.advice(
                    f"Fix it at {server.name}, which refuses what {pod.name} passes on: its own diagnosis has the fix",
                    f"kubectl llmdoctor diagnose {server.name} -n {server.namespace}",
                )
                return msgspec.structs.replace(found, confidence="likely", explains=(), fixes=(look,))
    return None


def _passed_on(subject: Subject, pod: Pod) -> Iterator[tuple[Pod, list[Line], set[str], list[Log]]]:
    """The servers that refused what a program passed on, several times each, its lines that say so, with which statuses, and their logs."""
    found: dict[str, tuple[Pod, list[Line], set[str]]] = {}
    for log in (x for x in subject.logs(pod) if not x.previous):
        for line in in_order(log.find(*_FOR_URL))[-_MOST:]:
            said = _WAS_REFUSED.search(line.text[:4000])
            if said is None:
                continue
            to = follow(said["host"], int(said["port"] or 80), pod, pod.cluster)
            for one in to.others if to is not None else ():
                if engines_in(one):
                    _, own, statuses = found.setdefault(f"{one.namespace}/{one.name}", (one, [], set()))
                    own.append(line)
                    statuses.add(said[1] or said[2] or said[3])
    for one, own, statuses in found.values():
        if len(own) >= _FEWEST and not stray(own, ready=True):
            yield one, own, statuses, [log for log in logs_of(one).all if not log.previous]


def _of_another(line: Line, pod: Pod, statuses: set[str]) -> bool:
    """Whether the server's access log says right after a line that it answered another client, or otherwise than the proxy was told."""
    after = line.log.lines(line.number + 1, line.number + _ANSWERED)
    said = next((one for x in after if (one := _ANSWER.search(x.text[:2000]))), None)
    if said is None:
        return False
    # a sidecar may hide who asks
    own = f"{pod.status.pod_ip}:" if pod.status.pod_ip else ""
    known = bool(own and said["who"] and line.log.marks(own))
    return said["status"] not in statuses or (known and f"{said['who']}:" != own)


def _says(log: Log, pattern: Pattern) -> bool:
    return any(capture(pattern, line.text[:4000]) is not None for line in islice(log.find(pattern.literal), _MOST))


def _answer(line: Line) -> str:
    """What a line says, with the line above it where that has the status of the answer that this one quotes."""
    text = line.text[:4000]
    if line.number == 1 or REFUSED.search(text) or not _BODY.search(text):
        return text
    above = next((x.text[:4000] for x in line.log.lines(line.number - 1, line.number - 1)), "")
    return f"{above}\n{text}" if REFUSED.search(above) else text


def _of_it(line: Line, here: str, names: set[str], pod: Pod, server: Container) -> bool:
    """Whether a client's line is of this server since it started: it names no other, and tells of no earlier one."""
    asked = _ADDRESS.findall(_answer(line))
    # an error refers to manuals, too
    elsewhere = asked and not any(leads_here(pod, names, url, here) for url in asked)
    return not elsewhere and not written_before(line, server, pod.cluster)


def _said(signature: Signature, cluster: Cluster) -> Iterator[tuple[tuple[str, str, str], Line]]:
    """Lines of any log that quote an answer with an error and the words of a signature, and whose they are."""
    literals = dict.fromkeys(pattern.literal for pattern in signature.patterns)
    for log in current_logs(cluster):
        for line in in_order(log.find(*literals)):
            if REFUSED.search(_answer(line)) and not _WRITTEN.search(line.text[:4000]):
                yield log.whose, line

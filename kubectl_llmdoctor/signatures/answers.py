"""What a server answered by the words of a signature, as a client that asks no other server quotes it; its own log has no word."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.evidence import log_evidence
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.clients import clients, leads_here
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.requests import PER_STRAY, answered
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.written import written_before
from kubectl_llmdoctor.signatures.declared import Pattern, Signature
from kubectl_llmdoctor.signatures.wording import capture, captured, finding, fits

#: By this a line says that it quotes an answer with an error: a status of HTTP or of gRPC.
_REFUSED = expression(
    r"(?i:error code|status(?:[ _]?code)?)\W{1,4}[45]\d\d\b|\b[45]\d\d (?:Client|Server) Error\b|\bHTTP(?:/[\d.]{1,3})? [45]\d\d\b"
    r"|\b[45]\d\d (?:Bad Request|Not Found|Unprocessable|Too Many Requests|Internal Server Error|Service Unavailable)\b"
    r"|\b(?:400|413|422|429|500|503):? [\"'{]"
    r"|\\?\"code\\?\": ?[45]\d\d\b|'code': ?[45]\d\d\b|\bStatusCode\.[A-Z_]{5,30}\b"
)
#: What a user or a page may have written.
_WRITTEN = expression(r"(?i)\\?\"(?:role|content|messages|prompt)\\?\": ?\\?\"|'(?:role|content|messages|prompt)': ?'")
#: Whom a line says that it asked.
_ADDRESS = expression(r"https?://[\w.-]{1,253}(?::\d{1,5})?")
#: So many make no client's slip.
_FEWEST = 2
#: Lines of the server's own log that are looked at for each wording.
_MOST = 500


def in_answers(signature: Signature, subject: Subject, pod: Pod) -> Finding | None:
    """The finding by the clients of a ready server, where their logs quote its words."""
    names = {item.name for item in pod.services}
    said = pod.cluster.once(f"quoted {signature.id}", lambda: list(_said(signature, pod.cluster)))
    engine = next(iter(subject.engines(pod)), None)
    if not said or not names or engine is None or not pod.ready:
        return None
    own = next((x for x in subject.logs(pod) if x.container == engine.container.name and not x.previous), None)
    if own is None or any(_says(own, pattern) for pattern in signature.patterns):
        return None  # it may have its own word for it, or has, and that was weighed
    who = clients(pod, names, pod.cluster)
    said = [(one, line) for one, line in said if one in who and _of_it(line, one[0], names, pod, engine.container)]
    for pattern in signature.patterns:
        if pattern.near or pattern.raised_in or pattern.phases or pattern.ends or pattern.bare:
            continue  # it is of the server's own log
        lines = [line for _, line in said if capture(pattern, line.text[:4000]) is not None]
        words = captured(pattern, lines[0]) if lines else None
        if words is None or not fits(pattern, subject, pod, engine.container, words):
            continue
        few = len(lines) < _FEWEST or answered(own) >= PER_STRAY * len(lines)
        evidence = [log_evidence(line, pattern.literal) for line in lines[:2]]
        found = finding(signature, pattern, words, subject, pod, engine.container, evidence, lines[0].order)
        sure = "possible" if (pattern.confidence or signature.confidence) == "possible" else "likely"
        found = msgspec.structs.replace(found, confidence=sure, explains=())
        return msgspec.structs.replace(found, role="note", severity="info") if few else found
    return None


def _says(log: Log, pattern: Pattern) -> bool:
    return any(capture(pattern, line.text[:4000]) is not None for line in islice(log.find(pattern.literal), _MOST))


def _of_it(line: Line, here: str, names: set[str], pod: Pod, server: Container) -> bool:
    """Whether a client's line is of this server since it started: it names no other, and tells of no earlier one."""
    asked = _ADDRESS.findall(line.text[:4000])
    # an error refers to manuals, too
    elsewhere = asked and not any(leads_here(pod, names, url, here) for url in asked)
    return not elsewhere and not written_before(line, server, pod.cluster)


def _said(signature: Signature, cluster: Cluster) -> Iterator[tuple[tuple[str, str, str], Line]]:
    """Lines of any log that quote an answer with an error and the words of a signature, and whose they are."""
    literals = dict.fromkeys(pattern.literal for pattern in signature.patterns)
    for text in cluster.snapshot.logs:
        log = Log(text)
        lines = {x.number: x for words in literals if not text.previous for x in log.find(words)}
        for _, line in sorted(lines.items()):
            if _REFUSED.search(line.text[:4000]) and not _WRITTEN.search(line.text[:4000]):
                yield (text.namespace, text.pod, text.container), line

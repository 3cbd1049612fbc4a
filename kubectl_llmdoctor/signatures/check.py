"""A signature as a check."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.check import Abstain, Check, Finding, Need
from kubectl_llmdoctor.facts.aftermath import signs_of
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.unknown import Unknown
from kubectl_llmdoctor.signatures.answers import behind_a_proxy, in_answers
from kubectl_llmdoctor.signatures.declared import Signature
from kubectl_llmdoctor.signatures.logs import in_logs
from kubectl_llmdoctor.signatures.statements import in_statements


def as_check(signature: Signature, *, family: str, where: str, literals: tuple[str, ...] | None = None) -> Check:
    """The signature as the same `Check` that a function becomes; with its literals where they are known already."""

    def run(subject: Subject) -> Iterator[Finding | Abstain]:
        return _run(signature, subject)

    return Check(
        id=signature.id,
        title=signature.doc.strip().partition("\n")[0].rstrip("."),
        doc=signature.doc.strip(),
        family=family,
        since=signature.since,
        severity=signature.severity,
        needs=(Need(fact="Subject", optional=False),),
        run=run,
        where=where,
        lines=True,
        literals=literals_of(signature) if literals is None else literals,
    )


def _run(signature: Signature, subject: Subject) -> Iterator[Finding | Abstain]:
    if not subject.exists and not subject.static and not any(pod.log_only for pod in subject.pods):
        if found := in_statements(signature, subject, None):
            yield found
        return
    for pod in subject.pods:
        if found := _of_pod(signature, subject, pod):
            yield found
        elif signature.sources == ("log",) and not subject.logs(pod):
            missing = subject.no_logs(pod)
            if isinstance(missing, Unknown):
                yield Abstain(reason=missing.reason)


def _of_pod(signature: Signature, subject: Subject, pod: Pod) -> Finding | None:
    requests = signature.affects == "requests"
    if not (subject.logs(pod) or pod.failing or requests or subject.refused):
        return None
    found = in_logs(signature, subject, pod) if "log" in signature.sources else None
    if found is None and signature.quoted and (told := in_answers(signature, subject, pod)) is not None:
        return told
    if found is None and requests and (told := behind_a_proxy(signature, subject, pod)) is not None:
        return told
    if found is None and (pod.failing_by_status or requests or subject.refused):
        return in_statements(signature, subject, pod)
    return found


#: A shorter piece stands in nearly every line: it is looked for beside a hit alone, and the lines there are kept.
_LEAST = 3


def literals_of(signature: Signature) -> tuple[str, ...]:
    """All pieces of log lines that a signature looks for."""
    if "log" not in signature.sources:
        return ()
    beside = {pattern.near for pattern in signature.patterns if pattern.near and len(pattern.near) >= _LEAST}
    own = {pattern.literal for pattern in signature.patterns} | beside
    signs = {signature.overcome if p.overcome is None else p.overcome for p in signature.patterns}
    return tuple(sorted(own.union(*map(signs_of, signs))))

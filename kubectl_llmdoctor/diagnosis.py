"""From facts to a diagnosis: run the checks, merge findings of one cause, put symptoms under their cause, order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from kubectl_llmdoctor import __version__, fixes, forked, story
from kubectl_llmdoctor.aid import with_aid
from kubectl_llmdoctor.beyond import awaited, bringers, concerns, neighbours, servers
from kubectl_llmdoctor.check import Abstain, Check, Finding
from kubectl_llmdoctor.facts.aftermath import lived_on
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.destinations import logs_of
from kubectl_llmdoctor.facts.endings import last_round
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.failed_models import failed_load
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.processes import tracebacks
from kubectl_llmdoctor.facts.requests import answered, of_a_request
from kubectl_llmdoctor.facts.starts import crash_of, phase_of
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.unknown import Later, NotApplicable, Unknown
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report.document import CONFIDENCES, ROLES, SEVERITIES
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.suppression import NO_RULES, Rules, Suppressions
from kubectl_llmdoctor.talos import reachable
from kubectl_llmdoctor.target import apart, around, subjects

#: A log whose head is gone is of a server that serves, where it answers so many requests.
_FEW_ANSWERS = 2

_VERDICTS: tuple[doc.Verdict, ...] = ("cause-found", "undetermined", "at-risk", "healthy")

#: Of so many targets each is also seen from the pods around it.
_FEW = 8
#: From a target so many pods are gone on, each of which does not answer the one before.
_FARTHEST = 3

#: Of lines that differ in times and counts what is left.
_NO_DIGITS = str.maketrans("", "", "0123456789")

#: Pieces of evidence that one finding keeps, and texts of one of them.
_MOST_EVIDENCE = 12
#: Quotations of one line that end in the same so many characters are one; of two settings in it they are two.
_SAME_END = 20


def diagnose(
    snapshot: Snapshot,
    checks: Iterable[Check],
    rules: Rules = NO_RULES,
    *,
    finish: Callable[[doc.Target], doc.Target] | None = None,
) -> doc.Report:
    """The report on everything that was asked about, or on everything that is there; `finish` completes a target."""
    known = tuple(checks)
    suppressions = Suppressions(rules, {check.id: check.family for check in known})
    pages, plan, literals = {check.id: check for check in known}, plan_of(known), looked_for(known)
    every, missing = list[Subject](), [*snapshot.missing]
    for cluster in map(Cluster, apart(snapshot)):
        every += subjects(cluster)
        missing += cluster.malformed
    for subject in every:
        subject.literals = literals
        missing += subject.headless
    static = all(subject.static for subject in every)

    def examined(part: Sequence[Subject]) -> tuple[list[doc.Target], Suppressions]:
        found = [examine(subject, pages, plan, suppressions) for subject in part]
        return [finish(target) for target in found] if finish else found, suppressions

    targets = list[doc.Target]()
    # what a check loads is loaded once, by the first target, before processes part
    for some in (every[:1], every[1:]) if static else (every,):
        for found, used in forked.pieces(examined, some, least=_LEAST if static else len(some) + 1):
            targets += found
            suppressions.join(used)
    if len(snapshot.asked) < 2:
        targets.sort(key=lambda t: (_VERDICTS.index(t.verdict), _worst(t), t.namespace, t.kind, t.name))
    return doc.Report(
        tool_version=__version__,
        taken_at=snapshot.taken_at,
        targets=tuple(_merge_targets(targets)),
        not_read=tuple(doc.NotRead(source=m.source, ref=m.ref, reason=m.reason) for m in missing),
        not_checked=_need_the_cluster(known) if targets and static else (),
        unused_suppressions=suppressions.unused(),
    )


#: Targets of manifests that a process of their own is worth.
_LEAST = 40

#: Facts that no manifest has.
_OF_THE_CLUSTER = frozenset({"Logs", "Events", "Hardware", "Metrics", "Node", "Nodes", "Pending"})


def _need_the_cluster(checks: tuple[Check, ...]) -> tuple[doc.NotChecked, ...]:
    """The checks that judge nothing but what a cluster says."""
    return tuple(
        doc.NotChecked(id=check.id, reason="needs the cluster")
        for check in checks
        if all(
            part.lines or any(n.fact in _OF_THE_CLUSTER and not n.optional for n in part.needs) for part in check.parts
        )
    )


def looked_for(checks: Iterable[Check]) -> tuple[str, ...]:
    """All pieces of log lines that anything looks for."""
    from kubectl_llmdoctor.facts import aftermath, failed_models, gpu, requests, sizing, starts

    own = (part.literals for check in checks for part in check.parts)
    others = (facts.LITERALS for facts in (starts, requests, aftermath, failed_models, gpu, sizing))
    return tuple(dict.fromkeys(itertools.chain(*own, *others)))


def _worst(target: doc.Target) -> int:
    return min((SEVERITIES.index(f.severity) for f in target.findings), default=len(SEVERITIES))


class _Outcome:
    """What the checks said of one target."""

    def __init__(self) -> None:
        self.findings: list[_Found] = []
        self.not_checked: dict[tuple[str, str], None] = {}


#: A check, and the part of a target that it is called once for.
Step = tuple[Check, str]
#: A check, and what it found.
_Found = tuple[Check, Finding]


def examine(
    subject: Subject, pages: dict[str, Check], plan: tuple[Step, ...], suppressions: Suppressions
) -> doc.Target:
    """One target's diagnosis."""
    outcome = _judged(subject, plan)
    if subject.exists:
        outcome.findings = list(_beyond(outcome.findings, subject, pages, plan))
        outcome.findings += _of_servers(outcome.findings, subject, pages, plan)
    every = tuple(p.name for p in subject.pods if p.exists)
    merged = _merge(outcome.findings)
    graded = suppressions.graded([document(pages[check.id], found, every) for check, found in merged], subject)
    ranked = rank(list(zip(graded, (_order(finding) for _, finding in merged), strict=True)))
    findings, suppressed = suppressions.split(ranked, subject)
    verdict = _verdict(findings, subject)
    if verdict == "undetermined":
        findings = with_aid(findings, subject)
    findings = tuple(reachable(finding, subject) for finding in findings)
    engines = [_engine(e) for pod in subject.pods for e in subject.engines(pod)]
    unique = list({(e.name, e.container, str(e.config)): e for e in engines}.values())
    item, workload, pod = subject.item, subject.workload, subject.pods[0] if subject.pods else None
    return doc.Target(
        api_version=item.api_version if item else "v1",
        kind=item.plain_kind if item else "Log" if pod and pod.log_only else "Pod",
        namespace="" if pod and pod.log_only else subject.namespace,
        name=item.name if item else pod.name if pod else "",
        workload=workload.ref if workload else "",
        file=item.origin.file if item and item.origin else None,
        line=item.origin.line if item and item.origin else None,
        pods=tuple(p.name for p in subject.pods if p.exists),
        status=story.status(subject),
        engine=unique[0] if unique else None,
        engines=tuple(unique),
        memory=tuple(_memory(subject)),
        verdict=verdict,
        impact=story.impact(subject),
        changes=story.changes(subject) if verdict in ("cause-found", "undetermined") else (),
        findings=findings,
        placement=story.placement(subject),
        suppressed=suppressed,
        not_checked=tuple(doc.NotChecked(id=id, reason=reason) for id, reason in outcome.not_checked),
        next_steps=story.next_steps(subject) if verdict == "undetermined" else (),
    )


def _judged(subject: Subject, plan: tuple[Step, ...]) -> _Outcome:
    """What the checks say of a target."""
    outcome = _Outcome()
    for check, scope in plan:
        if not (check.lines and (subject.silent or subject.quiet)):
            _run(check, scope, subject, outcome)
    outcome.findings = _by_end(outcome.findings, subject)
    return outcome


#: The pods (namespace and name) of each target on a way, one after the other: each does not answer the one before.
_Chain = tuple[frozenset[tuple[str, str]], ...]


def _beyond(
    found: list[_Found], subject: Subject, pages: dict[str, Check], plan: tuple[Step, ...], chain: _Chain = ()
) -> Iterator[_Found]:
    """The findings, with why pods do not answer that its causes name, or did not bring what it misses: their first causes are its own."""
    causes = [(check, finding) for check, finding in found if finding.role == "cause"]
    chain = (*chain, frozenset((pod.namespace, pod.name) for pod in subject.pods))
    for check, finding in found:
        told = finding
        for shown, pods in awaited(finding, subject) if finding.role == "cause" else ():
            every = ((pod, pair) for pod in pods for pair in _causes_of(pod, chain, subject, pages, plan))
            why = next(((pod, pair) for pod, pair in every if pair[0].id != check.id), None)
            if why is not None:
                asked = f", which is asked at {shown}," if shown else ""
                pod, (page, root) = why
                yield page, _taken_over(root, check, finding, pod, f"{pod.name}{asked} is not up")
            elif told is finding:
                told = _with_state(finding, pods[0])
        yield check, told
    for pod in bringers(subject) if causes else ():
        for page, root in _causes_of(pod, chain, subject, pages, plan)[:1]:
            missed = next(((check, finding) for check, finding in causes if check.id in root.explains), None)
            if missed is not None:
                yield page, _taken_over(root, *missed, pod, f"{pod.name}, which mounts the same claim, failed")


def _of_servers(
    found: list[_Found], subject: Subject, pages: dict[str, Check], plan: tuple[Step, ...]
) -> Iterator[_Found]:
    """What is found at another pod about a target, by the target's name or by lines of its log, where it has no cause of its own.

    Where it has one by the same lines, that of a server which it asks counts: what a client says of a server is known better there.
    """
    if subject.only_failing_logs or not 0 < len(subject.cluster.snapshot.asked) <= _FEW:
        return  # each server is a target, too, and each pod of a cluster would be looked at for each of them
    causes = _sure(found)
    own = {_said(one): check.id for check, finding in causes for one in finding.evidence if one.source == "log"}
    known = {check.id for check, finding in found if finding.role != "note"}
    chain = (frozenset((pod.namespace, pod.name) for pod in subject.pods),)
    for pod in (*servers(subject), *(neighbours(subject) if not causes else ())):
        told = [pair for pair in _findings_of(pod, chain, subject, pages, plan) if pair[1].role != "note"]
        for page, root in told:
            same = {own[said] for said in map(_said, root.evidence) if said in own and root.confidence != "possible"}
            if page.id in known or (causes and not same) or (root.role == "symptom" and told[0][1].role == "cause"):
                continue
            if concerns(root, pod, subject):
                yield page, _as_asker(root, pod, same)
                return


def _said(quotation: doc.Evidence) -> tuple[str, str]:
    """Whose a line of a log is, and what it says at whatever time."""
    return quotation.ref, quotation.text.translate(_NO_DIGITS)


def _as_asker(why: Finding, pod: Pod, same: set[str]) -> Finding:
    """A finding of a server as that of who asks it, where `same` is what this one's lines were taken for."""
    return msgspec.structs.replace(
        why,
        summary=f"Seen from {pod.name}: {why.summary}",
        evidence=tuple(_elsewhere_seen(one, pod.name) for one in why.evidence),
        explains=tuple(dict.fromkeys((*why.explains, *sorted(same)))),
        fixes=tuple(_elsewhere_made(fix, pod.namespace) for fix in why.fixes),
        pods=(pod.name,),
        # what it looks like by its objects its log may explain
        confidence=why.confidence if any(e.source == "log" for e in why.evidence) or logs_of(pod).all else "possible",
    )


def _causes_of(
    pod: Pod, chain: _Chain, subject: Subject, pages: dict[str, Check], plan: tuple[Step, ...]
) -> list[_Found]:
    """The causes of a pod outside of a target that are more than possible, in the order of the report."""
    return _sure(_findings_of(pod, chain, subject, pages, plan))


def _sure(found: list[_Found]) -> list[_Found]:
    """The causes that are more than possible."""
    return [pair for pair in found if pair[1].role == "cause" and pair[1].confidence != "possible"]


def _findings_of(
    pod: Pod, chain: _Chain, subject: Subject, pages: dict[str, Check], plan: tuple[Step, ...]
) -> list[_Found]:
    """The findings of a pod outside of a target, in the order of the report and with the roles that they have there."""
    here = pod.namespace, pod.name
    if any(here in pods for pods in chain):
        return []

    def judged() -> tuple[Subject, list[_Found]]:
        other = around(pod)
        other.literals = subject.literals
        return other, _judged(other, plan).findings

    # hundreds of replicas may ask the same server
    other, found = pod.cluster.once(f"findings of {pod.namespace}/{pod.name}", judged)
    if len(chain) <= _FARTHEST:
        found = list(_beyond(found, other, pages, plan, chain))
    merged = {check.id: (check, finding) for check, finding in _merge(found)}
    placed = [(document(check, finding), _order(finding)) for check, finding in merged.values()]
    return [(merged[f.id][0], msgspec.structs.replace(merged[f.id][1], role=f.role)) for f in rank(placed)]


def _taken_over(why: Finding, check: Check, finding: Finding, pod: Pod, how: str) -> Finding:
    """The cause of a pod as that of another, whose cause `finding` is only a consequence of it."""
    name = why.pods[0] if why.pods else pod.name
    return msgspec.structs.replace(
        why,
        confidence=max(why.confidence, finding.confidence, "likely", key=CONFIDENCES.index),
        summary=f"{how}: {why.summary}",
        evidence=(*(_elsewhere_seen(one, name) for one in why.evidence), *finding.evidence)[:_MOST_EVIDENCE],
        explains=tuple(dict.fromkeys((check.id, *finding.explains, *why.explains))),
        fixes=tuple(_elsewhere_made(fix, pod.namespace) for fix in why.fixes),
        order=finding.order,
        pods=(name,),
    )


def _elsewhere_seen(quotation: doc.Evidence, pod: str) -> doc.Evidence:
    """A value of a pod, quoted at another."""
    if quotation.source != "pod":
        return quotation
    return msgspec.structs.replace(quotation, source="workload", ref=f"Pod/{pod} {quotation.ref}")


def _elsewhere_made(fix: doc.Fix, namespace: str) -> doc.Fix:
    """A fix whose patch says in which namespace its object is: the target may be in another."""
    if fix.patch is None or fix.patch.namespace:
        return fix
    return msgspec.structs.replace(fix, patch=msgspec.structs.replace(fix.patch, namespace=namespace))


def _with_state(finding: Finding, pod: Pod) -> Finding:
    """A cause that says that a pod does not answer, with what is wrong with that one: why is not known."""
    text, unread = pod.troubles[0].text, "" if any(logs_of(pod)) else ", no log was read"
    state = doc.Evidence(source="workload", ref=f"Pod/{pod.name} status", text=text)
    look = fixes.advice(f"See why {pod.name} is not up", f"kubectl llmdoctor diagnose {pod.name} -n {pod.namespace}")
    return msgspec.structs.replace(
        finding,
        summary=f"{finding.summary.rstrip('.')}: {pod.name} is not up ({text}{unread}).",
        evidence=(*finding.evidence, state),
        fixes=(look, *finding.fixes),
    )


def plan_of(checks: tuple[Check, ...]) -> tuple[Step, ...]:
    """Each check and the signature beside it, in order, with what it is called once for."""
    return tuple((part, _scope({need.fact for need in part.needs})) for check in checks for part in check.parts)


def _scope(facts: set[str]) -> str:
    if "Container" in facts:
        return "container"
    if facts & {"Engine", "Sizing"}:
        return "engine"
    if "Accelerator" in facts:
        return "container"
    return "pod" if facts & {"Pod", "Logs", "Hardware", "Metrics", "Node", "Pending"} else "subject"


def _run(check: Check, scope: str, subject: Subject, outcome: _Outcome) -> None:
    """Call a check once for each part of the target that it asks for."""
    for known in subject.scopes[scope]:
        facts: list[Any] = []
        for need in check.needs:
            fact = known[need.fact]
            if fact.__class__ is Later:
                known[need.fact] = fact = _made(fact)
            if fact.__class__ is Unknown or fact.__class__ is NotApplicable:
                if not need.optional:
                    if fact.__class__ is Unknown:
                        outcome.not_checked[check.id, fact.reason] = None
                    break
                fact = None
            facts.append(fact)
        else:
            _call(check, facts, known.get("Pod"), outcome)


def _made(fact: Later) -> Any:
    try:
        return fact.make()
    except Exception as error:  # noqa: BLE001 # one fact that cannot be made costs the checks that need it
        return Unknown(f"broken fact: {type(error).__name__}: {error}")


def _call(check: Check, facts: list[Any], pod: Pod | None, outcome: _Outcome) -> None:
    """Call a check; a finding that names no pod is of the one that it was called for."""
    try:
        for found in check.run(*facts):
            if isinstance(found, Abstain):
                outcome.not_checked[check.id, found.reason] = None
                continue
            if pod is not None and pod.exists and not found.pods:
                found = msgspec.structs.replace(found, pods=(pod.name,))
            outcome.findings.append((check, found))
    except Exception as error:  # noqa: BLE001 # one broken check must not cost the others
        outcome.not_checked[check.id, f"broken check: {type(error).__name__}: {error}"] = None


#: More lines than any log has: what a pod that ended first says stands before all that the others say.
_PER_POD = 1e12


def _by_end(found: list[_Found], subject: Subject) -> list[_Found]:
    """In a replica of several pods, the findings in the order in which the pods ended: the first one's come first."""
    if len(subject.pods) < 2:
        return found
    place = {ending.container.pod.name: n for n, ending in enumerate(last_round(subject.pods))}
    if len(place) < 2:
        return found

    def moved(finding: Finding) -> Finding:
        after = min((place.get(name, len(place)) for name in finding.pods), default=0)
        return msgspec.structs.replace(finding, order=_order(finding) + after * _PER_POD) if after else finding

    return [(check, moved(finding)) for check, finding in found]


def _spot(quotation: doc.Evidence) -> tuple[object, ...]:
    """What makes two quotations one: of a line of a log it is its place, from wherever it is quoted to its end."""
    if quotation.source == "log" and quotation.line:
        return quotation.ref, quotation.line, quotation.text[-_SAME_END:]
    return (quotation,)


def _merge(found: list[_Found]) -> list[_Found]:
    """One finding per id: the strongest one, with the others' evidence and pods."""
    merged: dict[str, _Found] = {}
    for check, finding in sorted(found, key=lambda pair: _strength(*pair)):
        if check.id not in merged:
            merged[check.id] = check, finding
            continue
        first = merged[check.id][1]
        more = finding.evidence if finding.role == first.role else ()
        evidence = {_spot(quotation): quotation for quotation in (*more, *first.evidence)}
        evidence = {_spot(quotation): evidence[_spot(quotation)] for quotation in (*first.evidence, *more)}
        whole = msgspec.structs.replace(
            first,
            evidence=tuple(evidence.values())[:_MOST_EVIDENCE],
            pods=tuple(dict.fromkeys((*first.pods, *finding.pods))),
            explains=tuple(dict.fromkeys((*first.explains, *finding.explains))),
            fixes=(*_together(first, finding), *_elsewhere(first, finding)),
        )
        merged[check.id] = check, whole
    return list(merged.values())


def _together(first: Finding, other: Finding) -> tuple[doc.Fix, ...]:
    """The fixes of the first; where it has only words with the patches of the other, which go first if it is as sure."""
    if other.role != first.role or any(fix.patch for fix in first.fixes):
        return first.fixes
    patches = tuple(fix for fix in other.fixes if fix.patch)
    return (*patches, *first.fixes) if other.confidence == first.confidence else (*first.fixes, *patches)


def _elsewhere(first: Finding, other: Finding) -> Iterator[doc.Fix]:
    """What mends the same in another place of the same object: in the pods of workers as in those of leaders."""
    if other.pods and set(other.pods) <= set(first.pods):
        return
    said = {
        fix.summary for fix in first.fixes
    }  # of a manifest nobody knows the pods: who is told the same is another one
    targets = {fix.patch.target for fix in first.fixes if fix.patch}
    places = {place for fix in first.fixes for place in _places(fix)}
    for fix in other.fixes if other.role == first.role else ():
        own = _places(fix)
        if not other.pods and fix.summary not in said:
            continue
        if fix.patch and fix.patch.target in targets and own and places.isdisjoint(own):
            yield msgspec.structs.replace(fix, summary=f"{fix.summary} (besides, for the other pods of the group)")


def _places(fix: doc.Fix) -> set[str]:
    """What a JSON patch changes of its object."""
    return {operation["path"] for operation in fix.patch.body} if fix.patch and fix.patch.type == "json" else set()


def _order(finding: Finding) -> float:
    """Its place in time; what has none comes first."""
    return -1.0 if finding.order is None else finding.order


def _strength(check: Check, finding: Finding) -> tuple[int, int, float, str, str]:
    return (
        ROLES.index(finding.role),
        CONFIDENCES.index(finding.confidence),
        _order(finding),
        check.id,
        finding.summary,
    )


def document(check: Check, finding: Finding, every: tuple[str, ...] = ()) -> doc.Finding:
    """A finding in the form of the report, on a target with `every` pod."""
    severity = finding.severity or (check.severity if finding.role in ("cause", "symptom") else "warning")
    if finding.role == "note":
        severity = finding.severity or "info"
    return doc.Finding(
        id=check.id,
        role=finding.role,
        severity=severity,
        confidence=finding.confidence,
        title=check.title,
        summary=finding.summary,
        evidence=tuple(dict.fromkeys(finding.evidence)),  # two ways to a finding may quote the same line
        explains=finding.explains,
        fixes=finding.fixes,
        docs=check.docs,
        pods=() if set(every) <= set(finding.pods) else finding.pods,
    )


def rank(found: list[tuple[doc.Finding, float]]) -> list[doc.Finding]:
    """Findings in the order of the report: causes first, the root cause first among them.

    A cause that another cause explains becomes a symptom, unless the two explain each other; among causes certainty
    decides, then time. Of two that explain each other the more certain one counts, and what is certain is no consequence
    of a mere guess, nor what is likely of a guess that came later. A guess from the very lines that a surer cause rests on
    is left out: it is a worse reading of them, no consequence. A cause that explains nothing, such as requests that are
    refused, stands below those that do; where it is a guess, and another is surer and explains what is wrong, it is a note.
    """
    causes = {f.id: f for f, _ in found if f.role == "cause"}
    orders = {f.id: order for f, order in found if f.role == "cause"}
    explained = {
        other
        for cause in causes.values()
        for other in cause.explains
        if other in causes
        and other != cause.id
        and not _outranks(causes[other], cause, earlier=0 <= orders[other] < orders[cause.id])
    }
    if explained >= set(causes):  # a circle explains nothing
        explained = set()
    sure = any(f.confidence != "possible" and f.explains for f in causes.values() if f.id not in explained)
    ranked = [
        (_placed(f, consequence=f.id in explained, sure=sure), order)
        for f, order in found
        if not any(_reads_better(c, f) for c in causes.values() if c.id not in explained)
    ]
    ranked.sort(
        key=lambda pair: (
            ROLES.index(pair[0].role),
            pair[0].role == "cause" and not pair[0].explains,
            CONFIDENCES.index(pair[0].confidence) if pair[0].role == "cause" else 0,
            SEVERITIES.index(pair[0].severity),
            pair[1],
            CONFIDENCES.index(pair[0].confidence),
            pair[0].id,
        )
    )
    present = {f.id: f for f, _ in ranked}
    above: set[str] = set()
    said: list[doc.Finding] = []
    for finding, _ in ranked:
        # of two causes that explain each other the second does not take back what the first one says
        circle = {e for e in above.intersection(finding.explains) if finding.id in present[e].explains}
        explains = tuple(e for e in finding.explains if e in present and e not in circle)
        said.append(msgspec.structs.replace(finding, explains=explains))
        above |= {finding.id} if finding.role == "cause" else set()
    return said


def _placed(found: doc.Finding, *, consequence: bool, sure: bool) -> doc.Finding:
    """A cause in the role that the others leave it: `sure` is whether one that is no guess explains what is wrong."""
    if found.role != "cause":
        return found
    if consequence:
        return msgspec.structs.replace(found, role="symptom")
    if sure and found.confidence == "possible" and not found.explains:
        return msgspec.structs.replace(found, role="note", severity="info")
    return found


def _outranks(other: doc.Finding, cause: doc.Finding, *, earlier: bool) -> bool:
    """Whether `other`, which `cause` explains, is no consequence of it: that is a guess, and this is certain, or was there
    `earlier` and is likely; or this explains that in turn and is as certain."""
    certainty = CONFIDENCES.index
    if cause.confidence == "possible" and (other.confidence == "certain" or (earlier and other.confidence == "likely")):
        return True
    return cause.id in other.explains and certainty(other.confidence) <= certainty(cause.confidence)


def _reads_better(cause: doc.Finding, guess: doc.Finding) -> bool:
    """Whether `cause`, which explains a mere guess or something else that is wrong, rests on all that the guess rests on.

    Only of lines of a log this says that the guess is a worse reading: one field of an object may have two faults.
    """
    lines = cause.explains != () and {e.source for e in guess.evidence} == {"log"}
    return (
        guess.role == "cause"
        and guess.confidence == "possible" != cause.confidence
        and (guess.id in cause.explains or lines)
        and {(e.source, e.ref, e.line) for e in guess.evidence} <= {(e.source, e.ref, e.line) for e in cause.evidence}
    )


def _verdict(findings: Sequence[doc.Finding], subject: Subject) -> doc.Verdict:
    roles = {f.role for f in findings}
    if "cause" in roles:
        return "cause-found"
    if any(f.role == "symptom" and f.severity == "critical" for f in findings):
        return "undetermined"
    if any(p.log_only for p in subject.pods):
        logs = subject.logs(subject.pods[0])
        if "symptom" in roles or any(_broke_off(log) for log in logs):
            return "undetermined"
        if not roles & {"risk", "note"} and not all(_serves(log) for log in logs):
            return "undetermined"
    return "at-risk" if "risk" in roles else "healthy"


def _serves(log: Log) -> bool:
    """Whether a log is of a server that came up, and of nothing that went wrong."""
    if not _is_up(log) or crash_of(log) is not None or failed_load(log) is not None:
        return False
    return all(lived_on(one.last) or of_a_request(one.root.first, one.last) for one in tracebacks(log))


def _broke_off(log: Log) -> bool:
    """Whether a log is of a start that went wrong: an error of Python, and no server that came up."""
    return not _is_up(log) and bool(tracebacks(log))


def _is_up(log: Log) -> bool:
    """Whether the last start of a log came up; of a log whose head is gone, what it answers says as much."""
    phase = phase_of(log)
    return phase.name == "serving" if phase else answered(log) >= _FEW_ANSWERS


def _engine(engine: Engine) -> doc.EngineInfo:
    return doc.EngineInfo(
        name=engine.name, version=engine.version, container=engine.container.name, config=engine.found.config
    )


def _memory(subject: Subject) -> Iterator[doc.Memory]:
    """The budget of each engine of which it is known; pods of a group that run the same have one."""
    found: dict[str, doc.Memory] = {}
    for pod in subject.pods:
        for engine in subject.engines(pod):
            sizing = subject.sizing(engine)
            budget = sizing.budget
            if budget is None or budget.total is None or engine.container.name in found:
                continue
            found[engine.container.name] = doc.Memory(
                container=engine.container.name,
                gpu=sizing.accelerator.gpu.name if sizing.accelerator else "",
                verdict=budget.verdict,
                total=doc.Bytes(**msgspec.structs.asdict(budget.total)),
                **{
                    name: doc.Bytes(**msgspec.structs.asdict(amount))
                    for name in ("usable", "weights", "working", "cache")
                    if (amount := getattr(budget, name)) is not None
                },
                context=budget.context,
                tokens=budget.tokens,
            )
    yield from found.values()


def _merge_targets(targets: list[doc.Target]) -> Iterable[doc.Target]:
    """Replicas of one workload with the same diagnosis are one target that names all its pods."""
    merged: dict[Any, doc.Target] = {}
    for target in targets:
        causes = tuple(f.id for f in target.findings if f.role == "cause")
        if not target.workload or not target.pods:
            merged[len(merged)] = target
            continue
        key = (target.namespace, target.workload, target.verdict, causes)
        first = merged.get(key)
        merged[key] = msgspec.structs.replace(first, pods=first.pods + target.pods) if first else target
    return merged.values()

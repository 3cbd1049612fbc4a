"""An earlier report as JSON: what it found already is known, and only the rest counts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.offline import reading
from kubectl_llmdoctor.report import document as doc

#: Group, kind, namespace, name of a target; numbers in a summary may change from run to run, so they are left out.
_Name = tuple[str, str, str, str]
#: By target and id: the file of the target, and how grave the finding was there.
Known = dict[tuple[_Name, str], dict[str | None, int]]


class _Finding(msgspec.Struct):
    id: str
    role: doc.Role
    severity: doc.Severity = "warning"
    summary: str = ""


class _Target(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    namespace: str
    name: str
    workload: str = ""
    context: str = ""
    file: str | None = None
    findings: list[_Finding] = []
    known: list[_Finding] = []


class _OfCluster(_Finding):
    context: str = ""


class _Cluster(msgspec.Struct):
    findings: list[_OfCluster] = []


class _Report(msgspec.Struct, rename="camel"):
    schema: str
    targets: list[_Target]
    taken_at: str | None = None
    cluster: _Cluster = msgspec.field(default_factory=_Cluster)


def load(path: str) -> Known:
    """What an earlier report found. Raises UsageError."""
    found: Known = {}
    for target in _read(path).targets:
        for finding in (*target.findings, *target.known):
            files = found.setdefault((_name(target), finding.id), {})
            files[target.file] = min(_grave(finding.role), files.get(target.file, len(doc.ROLES)))
    return found


def _read(path: str) -> _Report:
    name = reading.shown(path)
    data = reading.named(path, None, lambda stream: reading.whole(stream, reading.MAX_FILE))
    try:
        report = msgspec.json.decode(data, type=_Report)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise UsageError(f"{name}: not a report as -o json writes it") from None
    if report.schema != doc.SCHEMA:
        raise UsageError(f"{name}: schema {report.schema[:60]}, expected {doc.SCHEMA}")
    return report


#: Whose a finding is and its id; pods come and go, so that a workload stands for them.
_Key = tuple[str, str, str, str]


class Earlier(msgspec.Struct, frozen=True):
    """The findings of an earlier report, without its notes."""

    taken_at: str | None
    found: dict[_Key, doc.Changed]


def earlier(path: str) -> Earlier:
    """An earlier report of `audit` or `diagnose`, to compare with. Raises UsageError."""
    report = _read(path)
    return Earlier(report.taken_at, _changes(report.targets, report.cluster.findings))


def compare(report: doc.Report, old: Earlier) -> doc.Comparison:
    """What is new, or graver than it was, and what is gone."""
    now = _changes(report.targets, report.cluster.findings)

    def is_new(key: _Key) -> bool:
        return key not in old.found or _grave(now[key].role) < _grave(old.found[key].role)

    new = tuple(now[key] for key in now if is_new(key))
    return doc.Comparison(
        taken_at=old.taken_at,
        new=new,
        fixed=tuple(change for key, change in old.found.items() if key not in now),
        unchanged=len(now) - len(new),
    )


def _changes(
    targets: Sequence[doc.Target | _Target], findings: Sequence[doc.Finding | _OfCluster]
) -> dict[_Key, doc.Changed]:
    found: dict[_Key, doc.Changed] = {}

    def take(key: _Key, name: str, finding: doc.Finding | _Finding) -> None:
        old = found.get(key)
        if finding.role != "note" and (old is None or _grave(finding.role) < _grave(old.role)):
            found[key] = doc.Changed(
                target=name, id=finding.id, role=finding.role, severity=finding.severity, summary=finding.summary
            )

    for target in targets:
        kind, _, name = (target.workload or f"{target.kind}/{target.name}").partition("/")
        shown = f"{kind} {target.namespace}/{name}" if target.namespace else f"{kind} {name}"
        for finding in target.findings:
            take((target.context, target.namespace, f"{kind}/{name}", finding.id), _of(target.context, shown), finding)
    for finding in findings:
        take((finding.context, "", "", finding.id), _of(finding.context, "cluster"), finding)
    return found


def _of(context: str, name: str) -> str:
    return f"{context}: {name}" if context else name


def without(report: doc.Report, known: Known) -> doc.Report:
    """The report with the findings that are new, or graver than they were; of the others only that they are known."""
    count: dict[_Name, int] = {}
    for target in report.targets:
        count[_name(target)] = count.get(_name(target), 0) + 1

    def is_old(target: doc.Target, finding: doc.Finding) -> bool:
        files = known.get((_name(target), finding.id), {})
        # a file may have moved, unless objects of one name stand in several
        here = files.values() if count[_name(target)] == 1 else [files[f] for f in files if f == target.file]
        return min(here, default=len(doc.ROLES)) <= _grave(finding.role)

    def only_new(target: doc.Target) -> doc.Target:
        old = [f for f in target.findings if is_old(target, f)]
        new = tuple(f for f in target.findings if f not in old)
        mentioned = tuple(doc.Known(id=f.id, role=f.role, severity=f.severity) for f in old)
        return msgspec.structs.replace(target, findings=new, known=mentioned) if old else target

    return msgspec.structs.replace(report, targets=tuple(map(only_new, report.targets)))


def _name(target: doc.Target | _Target) -> _Name:
    return target.api_version.rpartition("/")[0], target.kind, target.namespace, target.name


def _grave(role: str) -> int:
    """The place of a role, the gravest first; that a cause is now another's consequence is no news."""
    return {"cause": 0, "symptom": 0, "risk": 1, "note": 2}.get(role, len(doc.ROLES))

"""The report as objects of OpenReports (`openreports.io/v1alpha1`): a `Report` per namespace, a `ClusterReport` for the rest.

One JSON `List` that `kubectl apply -f -` takes. Every namespace with a target has an object, also one where nothing is
wrong, so that what an earlier run wrote there is replaced. Fields: github.com/openreports/reports-api v0.2.1.

| in the report | result |
| --- | --- |
| cause, symptom | fail |
| risk | warn |
| suppressed, known | skip |
| target without any of these | pass |
| checks that could not judge | one skip that counts them |
| source that could not be read | error, in the ClusterReport |

Notes are left out: a dashboard counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from kubectl_llmdoctor.report import places, words
from kubectl_llmdoctor.report.document import Finding, Report, Severity, Target
from kubectl_llmdoctor.report.text_layout import clean, shorten

API = "openreports.io/v1alpha1"
SOURCE = "kubectl-llmdoctor"

#: Results of one object, and their bytes as JSON: etcd takes 1.5 MiB, and the API server adds its own fields.
MOST_RESULTS = 1000
MOST_BYTES = 1_000_000

#: Columns of one text.
_MESSAGE, _PROPERTY = 2000, 600

_SEVERITIES: dict[Severity, str] = {"critical": "critical", "warning": "medium", "info": "info"}
_RESULTS = ("fail", "warn", "error", "skip", "pass")

_Result = dict[str, Any]


def render(report: Report) -> bytes:
    """Indented JSON with a final newline."""
    spaces: dict[tuple[str, str], list[Target]] = {}
    for target in report.targets:
        spaces.setdefault((target.context, clean(target.namespace)), []).append(target)
    time = _timestamp(report.taken_at)
    items = [
        _object("Report", context, space, list(_of_namespace(targets)), time)
        for (context, space), targets in sorted(spaces.items())
    ]
    findings = [f for f in report.cluster.findings if f.role != "note"]
    contexts = {context for context, _ in spaces} | {f.context for f in findings} or {""}
    for context in sorted(contexts | ({""} if report.not_read else set())):
        whole = [_of_finding(None, f) for f in findings if f.context == context]
        whole += _not_read(report) if not context else ()
        passed = _passed("The cluster has no finding of its own.")
        items.append(_object("ClusterReport", context, "", whole or [passed], time))
    tree = {"apiVersion": "v1", "kind": "List", "items": items}
    return msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n"


def _object(
    kind: str, context: str, namespace: str, results: list[_Result], time: dict[str, int] | None
) -> dict[str, Any]:
    """One object, the worst results first, as many as it can hold."""
    results.sort(key=lambda result: _RESULTS.index(result["result"]))
    stamp = {"timestamp": time} if time else {}
    counts = {name: sum(r["result"] == name for r in results) for name in _RESULTS}
    kept, size = list[_Result](), 0
    for result in results if len(results) <= MOST_RESULTS else results[: MOST_RESULTS - 1]:
        size += len(msgspec.json.encode(result)) * 2  # indented
        if size > MOST_BYTES:
            break
        kept.append(result | stamp)
    if len(kept) < len(results):
        rest = f"{len(results) - len(kept)} more results are counted in the summary and stand in -o json"
        kept.append({"policy": "not-listed", "result": "skip", "scored": False, "message": rest} | stamp)
    # an object without a namespace goes to the one of whoever applies it, where it must not replace another
    parts = ["llmdoctor", "" if namespace or kind == "ClusterReport" else "without-namespace", _slug(context)]
    name = "-".join(filter(None, parts))
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": SOURCE}}
    scope = {"apiVersion": "v1", "kind": "Namespace", "name": namespace}
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": metadata | ({"namespace": namespace} if namespace else {}),
        "source": SOURCE,
        **({"scope": scope} if namespace else {}),
        "configuration": {"limits": {"maxResults": MOST_RESULTS}},
        "summary": counts,
        "results": kept,
    }


def _of_namespace(targets: Iterable[Target]) -> Iterator[_Result]:
    unjudged: dict[tuple[str, str], None] = {}
    for target in targets:
        found = [_of_finding(target, f) for f in target.findings if f.role != "note"]
        found += [_skipped(target, i.id, f"suppressed by {i.where}: {i.reason}", i.severity) for i in target.suppressed]
        found += [_skipped(target, i.id, "known: it stands in the baseline", i.severity) for i in target.known]
        yield from found or [_passed(f"{places.name(target)}: no finding", target)]
        unjudged |= dict.fromkeys((item.id, item.reason) for item in target.not_checked)
    if unjudged:
        listed = "; ".join(f"{id}: {reason}" for id, reason in unjudged)
        yield {"policy": "not-checked", "result": "skip", "scored": False} | {
            "message": shorten(f"{len(unjudged)} checks could not judge. {listed}", _MESSAGE)
        }


def _of_finding(target: Target | None, finding: Finding) -> _Result:
    """A finding with what decides about it: how sure, the first quotation, the first fix."""
    properties = {"confidence": finding.confidence, "title": finding.title}
    if target and target.workload:
        properties["workload"] = target.workload
    if target and target.engine:
        properties["engine"] = f"{target.engine.name} {target.engine.version or ''}".strip()
    if finding.evidence:
        first = finding.evidence[0]
        properties["evidence"] = f"{words.place(first, target) if target else first.ref}: {first.text}"
    if finding.fixes:
        properties["fix"] = words.owned(finding.fixes[0].summary, finding.fixes[0].owner)
    return {
        "policy": clean(finding.id),
        "category": finding.role,
        "severity": _SEVERITIES[finding.severity],
        "result": "warn" if finding.role == "risk" else "fail",
        "scored": finding.role != "risk",
        "message": shorten(finding.summary or finding.title, _MESSAGE),
        "properties": {key: shorten(value, _PROPERTY) for key, value in properties.items() if value},
    } | _resources(target)


def _skipped(target: Target, id: str, reason: str, severity: Severity | None) -> _Result:
    level = {"severity": _SEVERITIES[severity]} if severity else {}
    result = {"policy": clean(id), "result": "skip", "scored": False, "message": shorten(reason, _MESSAGE)}
    return result | level | _resources(target)


def _passed(message: str, target: Target | None = None) -> _Result:
    return {"policy": "all", "result": "pass", "scored": True, "message": shorten(message, _MESSAGE)} | _resources(
        target
    )


def _not_read(report: Report) -> Iterator[_Result]:
    for item in report.not_read:
        said = ": ".join(part for part in (item.source, item.ref, item.reason) if part)
        yield {"policy": "not-read", "result": "error", "scored": False, "message": shorten(said, _MESSAGE)}


def _resources(target: Target | None) -> dict[str, Any]:
    """The object that a result is about; a log alone is none."""
    if target is None or target.kind == "Log":
        return {}
    fields = {"apiVersion": target.api_version, "kind": target.kind, "namespace": target.namespace, "name": target.name}
    return {"resources": [{key: clean(value) for key, value in fields.items() if value}]}


def _slug(context: str) -> str:
    """A context as part of an object's name; a short sum tells those apart that differ in other characters only."""
    slug = re.sub(r"[^a-z0-9]+", "-", context.lower()).strip("-")[:40].strip("-")
    if slug == context:
        return slug
    return "-".join(filter(None, (slug, sha256(context.encode("utf-8", "replace")).hexdigest()[:8])))


def _timestamp(taken_at: str | None) -> dict[str, int] | None:
    """RFC 3339 as the API's seconds and nanoseconds; None where no time is known."""
    try:
        time = datetime.fromisoformat(taken_at or "")
    except ValueError:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return {"seconds": since.days * 86400 + since.seconds, "nanos": since.microseconds * 1000}

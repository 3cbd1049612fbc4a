"""From the facts of a whole cluster to one report: workloads judged once per state, nodes, GPUs, versions.

Replicas that nothing tells apart are judged once. What the targets of one workload say becomes one target with one
finding per cause; targets stand in the order in which somebody should look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from kubectl_llmdoctor import __version__, forked
from kubectl_llmdoctor.catalog.vulnerabilities import VULNERABILITIES
from kubectl_llmdoctor.check import Check, Finding
from kubectl_llmdoctor.diagnosis import Step, document, examine, looked_for, plan_of
from kubectl_llmdoctor.engines.names import beside_a_server
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.capacity import inventory
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.engine import Engine, engines_of
from kubectl_llmdoctor.facts.events import events_of
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.nodes import MACHINE, Node, nodes_of
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.units import few
from kubectl_llmdoctor.platforms.labels import of_served_model
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report.behind import together
from kubectl_llmdoctor.report.document import ROLES, SEVERITIES
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.suppression import NO_RULES, Rules, Suppressions
from kubectl_llmdoctor.target import apart, fleet

T = TypeVar("T")

_DOWN: tuple[doc.Verdict, ...] = ("cause-found", "undetermined")
_VERDICTS: tuple[doc.Verdict, ...] = (*_DOWN, "at-risk", "healthy")

#: Targets that a process of their own is worth.
_LEAST = 150

_LIKELIHOOD = {"certain": 1.0, "likely": 0.7, "possible": 0.3}
_WEIGHT = {"critical": 4.0, "warning": 2.0, "info": 1.0}

#: A service that has no endpoint left has users behind it, who are more than one replica is worth.
_SERVICE = 10

_MOST_EVIDENCE = 12
_MOST_NAMES = 5


def audit(snapshot: Snapshot, checks: Iterable[Check], rules: Rules = NO_RULES, *, context: str = "") -> doc.Report:
    """The report on every workload that serves models, every node with accelerators, and the capacity between them.

    `context` is put on every part, for reports on several clusters.
    """
    known = tuple(checks)
    suppressions = Suppressions(rules, {check.id: check.family for check in known})
    judged, clusters, missing = list[_Judged](), list[doc.Cluster](), [*snapshot.missing]
    broken: dict[str, str] = {}
    for cluster in map(Cluster, apart(snapshot)):
        found = _targets(cluster, known, suppressions)
        judged += found
        clusters.append(_cluster(cluster, known, found, context, broken))
        missing += cluster.malformed
    return doc.Report(
        tool_version=__version__,
        taken_at=snapshot.taken_at,
        targets=tuple(msgspec.structs.replace(one.target, context=context) for one in _ordered(judged)),
        cluster=_joined(clusters),
        not_read=tuple(doc.NotRead(source=m.source, ref=m.ref, reason=m.reason) for m in missing),
        not_checked=tuple(doc.NotChecked(id=id, reason=reason) for id, reason in broken.items()),
        unused_suppressions=suppressions.unused(),
    )


def join(reports: Sequence[doc.Report]) -> doc.Report:
    """The reports on several clusters as one, of the latest time; each keeps its order within the same urgency."""
    targets = [target for report in reports for target in report.targets]
    targets.sort(key=lambda target: _VERDICTS.index(target.verdict))
    return msgspec.structs.replace(
        reports[0],
        taken_at=max((report.taken_at for report in reports if report.taken_at), default=None),
        targets=tuple(targets),
        cluster=_joined([report.cluster for report in reports]),
        not_read=tuple(row for report in reports for row in report.not_read),
        not_checked=_unlike(row for report in reports for row in report.not_checked),
        unused_suppressions=tuple(dict.fromkeys(row for report in reports for row in report.unused_suppressions)),
    )


def _joined(parts: Sequence[doc.Cluster]) -> doc.Cluster:
    versions: dict[tuple[str, str | None], doc.EngineVersion] = {}
    for row in (row for part in parts for row in part.engines):
        old = versions.get((row.name, row.version))
        workloads = (*(old.workloads if old else ()), *row.workloads)
        versions[row.name, row.version] = msgspec.structs.replace(row, workloads=tuple(sorted(set(workloads))))
    return doc.Cluster(
        capacity=tuple(row for part in parts for row in part.capacity),
        findings=tuple(finding for part in parts for finding in part.findings),
        nodes=tuple(node for part in parts for node in part.nodes),
        engines=tuple(versions[key] for key in sorted(versions, key=lambda key: (key[0], _number(key[1] or "")))),
    )


# -- workloads --------------------------------------------------------------------------------------------------------


class _Judged(NamedTuple):
    """A target, and how much depends on it: replicas, replicas that do not serve, services without an endpoint left."""

    target: doc.Target
    replicas: int
    down: int
    deserted: int
    #: its engines by version, with the ids of known vulnerabilities
    versions: tuple[tuple[str, str | None, tuple[str, ...]], ...]


def _targets(cluster: Cluster, checks: tuple[Check, ...], suppressions: Suppressions) -> list[_Judged]:
    pages, plan, literals = {check.id: check for check in checks}, plan_of(checks), looked_for(checks)
    alike: dict[Hashable, list[Subject]] = {}
    for subject in fleet(cluster, serves):
        subject.literals = literals
        subject.only_failing_logs = True
        alike.setdefault(_state(subject) or id(subject), []).append(subject)

    def examined(part: Sequence[list[Subject]]) -> tuple[list[_Judged], Suppressions]:
        return [_judged(same, pages, plan, suppressions) for same in part], suppressions

    found: list[_Judged] = []
    groups = [group for same in alike.values() for group in _apart(same)]
    # What a check loads is loaded once, by the first target, before processes part.
    for some in (groups[:1], groups[1:]):
        for part, used in forked.pieces(examined, some, least=_LEAST):
            found += part
            suppressions.join(used)
    workloads: dict[Hashable, list[_Judged]] = {}
    for number, one in enumerate(found):
        target = one.target
        key = (target.namespace, target.workload) if target.workload and target.pods else number
        workloads.setdefault(key, []).append(one)
    return [_merged(some) for some in workloads.values()]


def _apart(same: list[Subject]) -> Iterator[list[Subject]]:
    """Replicas that fare alike: each of which more is known is judged by itself, and the first of them for the others."""
    if len(same) == 1:
        yield same
        return
    cluster = same[0].cluster
    told = cluster.once("told", lambda: _with_words(cluster))
    speaking, silent = list[Subject](), list[Subject]()
    for subject in same:
        pod = subject.pods[0]
        known = (pod.namespace, pod.name) in told or pod.spec.node_name in cluster.snapshot.nodes
        (speaking if known else silent).append(subject)
    yield [*speaking[:1], *silent]
    yield from ([subject] for subject in speaking[1:])


def serves(pod: Pod) -> bool:
    """Whether a pod is one that an audit is about.

    It asks for an accelerator, runs an inference server or what is made to stand before or beside one, or belongs to an
    operator that serves models.
    """
    return (
        pod.gpus > 0
        or of_served_model(pod.labels)
        or any(beside_a_server(container.spec.image) for container in pod.containers)
        or bool(engines_of(pod, Logs([])))
    )


def _state(subject: Subject) -> Hashable:
    """What tells a replica from others of its workload, as far as statuses and events do; None for what is no replica."""
    if len(subject.pods) != 1 or not subject.exists or subject.item is None:
        return None
    pod, cluster = subject.pods[0], subject.cluster
    owners = cluster.chain(subject.item)
    if not owners:
        return None
    revision = pod.labels.get("controller-revision-hash", "")
    warnings = {e.reason for e in events_of(cluster).about([("Pod", pod.name)]) if e.warning}
    return (
        pod.namespace,
        owners[0].kind,
        owners[0].name,
        revision,
        frozenset(warnings),
        _kind_of(nodes_of(cluster).get(pod.spec.node_name)),
        pod.status.phase,
        pod.status.reason,
        tuple((c.type, c.status, c.reason) for c in pod.status.conditions),
        tuple(map(_instance, pod.status.of_containers)),
        pod.obj.metadata.deletion_timestamp,
    )


def _with_words(cluster: Cluster) -> set[tuple[str, str]]:
    """The pods that said something of their own: a log, metrics."""
    snapshot = cluster.snapshot
    return {(log.namespace or "default", log.pod) for log in snapshot.logs} | {
        (text.namespace or "default", text.pod) for text in snapshot.metrics
    }


def _kind_of(node: Node | None) -> Hashable:
    """What nodes of one kind have in common, as far as a pod on them depends on it."""
    if node is None:
        return None
    amounts = tuple(sorted((key, str(value)) for key, value in node.obj.status.allocatable.items()))
    drivers = tuple(value for key, value in sorted(node.labels.items()) if "driver" in key or "cuda" in key)
    return node.product, node.troubles, amounts, drivers, node.labels.get(MACHINE)


def _instance(status: k8s.ContainerStatus) -> Hashable:
    """The state of a container without times and names, but since when it is on its way."""
    state, running = status.state, status.state.running
    ends = [(t.reason, t.exit_code) if t else None for t in (state.terminated, status.last_state.terminated)]
    since = running.started_at if running and not status.ready else None
    waiting = state.waiting.reason if state.waiting else None
    restarts = min(status.restart_count, 5) // 5 + bool(status.restart_count)
    return status.name, status.ready, restarts, waiting, running is not None, since, *ends


def _judged(
    same: list[Subject], pages: dict[str, Check], plan: tuple[Step, ...], suppressions: Suppressions
) -> _Judged:
    """One of several replicas that are alike, examined for all of them."""
    subject = same[0]
    target = examine(subject, pages, plan, suppressions)
    pods = [pod for one in same for pod in one.pods if pod.exists]
    versions = {(e.name, e.version, _vulnerable(e)) for pod in subject.pods for e in subject.engines(pod)}
    return _Judged(
        target=msgspec.structs.replace(target, pods=tuple(pod.name for pod in pods)),
        replicas=len(same),
        down=len(same) if target.verdict in _DOWN else 0,
        deserted=target.impact.count("has no ready endpoint"),
        versions=tuple(sorted(versions, key=str)),
    )


def _merged(some: list[_Judged]) -> _Judged:
    """What is said of one workload in several states, the worst first: one finding of each id."""
    if len(some) == 1:
        return some[0]
    # That the cause of one replica is known says more than that the others' are not.
    some.sort(key=lambda one: (_VERDICTS.index(one.target.verdict), _place(one)))
    every = tuple(name for one in some for name in one.target.pods)
    findings: dict[str, doc.Finding] = {}
    for one in some:
        for finding in one.target.findings:
            old, mine = findings.get(finding.id), finding.pods or one.target.pods
            pods = mine if old is None else (*old.pods, *(name for name in mine if name not in old.pods))
            findings[finding.id] = msgspec.structs.replace(old or finding, pods=pods)
    told = [f if set(every) - set(f.pods) else msgspec.structs.replace(f, pods=()) for f in findings.values()]
    told.sort(key=lambda finding: ROLES.index(finding.role))  # stable: within a role the worst state's stand first
    worst = some[0].target
    parts = [one.target for one in some]
    target = msgspec.structs.replace(
        worst,
        pods=every,
        engines=_unlike(engine for part in parts for engine in part.engines),
        findings=tuple(told),
        suppressed=_unlike(row for part in parts for row in part.suppressed),
        not_checked=_unlike(row for part in parts for row in part.not_checked),
    )
    return _Judged(
        target=target,
        replicas=sum(one.replicas for one in some),
        down=sum(one.down for one in some),
        deserted=max(one.deserted for one in some),
        versions=_unlike(row for one in some for row in one.versions),
    )


def _unlike(rows: Iterable[T]) -> tuple[T, ...]:
    """The rows without repetitions, in their order."""
    found: list[T] = []
    for row in rows:
        if row not in found:
            found.append(row)
    return tuple(found)


def _ordered(judged: Sequence[_Judged]) -> Iterator[_Judged]:
    """The worst first, where workloads of which the same is said count, and stand, together: one cause may be behind them."""
    places = {id(one.target): (one, _place(one)) for one in judged}
    groups = [[places[id(target)] for target in same] for same in together([one.target for one in judged])]
    for same in groups:
        same.sort(key=lambda row: row[1])
    groups.sort(key=lambda same: (same[0][1][0], sum(place[1] for _, place in same), same[0][1]))
    return (one for same in groups for one, _ in same)


def _place(one: _Judged) -> tuple[bool, float, int, str, str, str]:
    """What is down before what may break; of each kind by likelihood times how much depends on it."""
    target = one.target
    is_down = target.verdict in _DOWN
    lead = next((f for f in target.findings if f.role == ("cause" if is_down else "risk")), None)
    likelihood = (_LIKELIHOOD[lead.confidence] if lead else 1.0) * (_WEIGHT[lead.severity] if lead else 1.0)
    radius = (one.down if is_down else one.replicas) + _SERVICE * one.deserted
    verdict = _VERDICTS.index(target.verdict)
    return (
        not is_down,
        -likelihood * radius if verdict < 3 else 0.0,
        verdict,
        target.namespace,
        target.kind,
        target.name,
    )


# -- what is no workload ----------------------------------------------------------------------------------------------


def _cluster(
    cluster: Cluster, checks: tuple[Check, ...], judged: Sequence[_Judged], context: str, broken: dict[str, str]
) -> doc.Cluster:
    """What holds for the cluster; `broken` takes the ids of checks that failed on a node, and why."""
    stock = inventory(cluster)
    replace: Callable[..., doc.Capacity] = msgspec.structs.replace
    return doc.Cluster(
        capacity=tuple(replace(row, context=context) for row in stock.capacity),
        findings=tuple(msgspec.structs.replace(f, context=context) for f in _of_nodes(cluster, checks, broken)),
        nodes=tuple(msgspec.structs.replace(row, context=context) for row in stock.nodes),
        engines=_versions(judged),
    )


def _of_nodes(cluster: Cluster, checks: tuple[Check, ...], broken: dict[str, str]) -> Iterator[doc.Finding]:
    """What is wrong with nodes by themselves: each node is asked about once, and one finding of an id names them all."""
    found: dict[tuple[str, str], list[tuple[Check, Finding, str]]] = {}
    for node in nodes_of(cluster):
        of_node: list[tuple[Check, Finding, str]] = []
        for check in checks:
            if check.on_node is None:
                continue
            try:
                of_node += [(check, f, node.name) for f in check.on_node(node, cluster) if isinstance(f, Finding)]
            except Exception as error:  # noqa: BLE001 # one broken check must not cost the others
                broken.setdefault(check.id, f"broken check: {type(error).__name__}: {error}")
        explained = {id for _, finding, _ in of_node for id in finding.explains}
        for row in of_node:
            if row[0].id not in explained:
                found.setdefault((row[0].id, row[1].role), []).append(row)
    merged = []
    for rows in found.values():
        check, first, _ = rows[0]
        others = [name for _, _, name in rows[1:]]
        evidence = dict.fromkeys(line for _, finding, _ in rows for line in finding.evidence)
        whole = msgspec.structs.replace(
            first,
            summary=f"{first.summary} The same holds for {few(others, _MOST_NAMES)}." if others else first.summary,
            evidence=tuple(evidence)[:_MOST_EVIDENCE],
            explains=(),
        )
        merged.append(document(check, whole))
    merged.sort(key=lambda finding: (ROLES.index(finding.role), SEVERITIES.index(finding.severity), finding.id))
    yield from merged


def _versions(judged: Sequence[_Judged]) -> tuple[doc.EngineVersion, ...]:
    found: dict[tuple[str, str | None], tuple[set[str], tuple[str, ...]]] = {}
    for one in judged:
        target = one.target
        name = f"{target.namespace}/{(target.workload or f'{target.kind}/{target.name}')}"
        for engine, version, known in one.versions:
            found.setdefault((engine, version), (set(), known))[0].add(name)
    return tuple(
        doc.EngineVersion(name=engine, version=version, workloads=tuple(sorted(names)), vulnerabilities=known)
        for (engine, version), (names, known) in found.items()
    )


def _vulnerable(engine: Engine) -> tuple[str, ...]:
    """The ids of what is known against its version; each needs a setting besides, which `version-vulnerable` looks for."""
    return tuple(
        row.id
        for row in VULNERABILITIES
        if row.engine == engine.name
        and engine.at_least(row.fixed) is False
        and (not row.first or engine.at_least(row.first))
    )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in "".join(c if c.isdigit() else " " for c in version).split())

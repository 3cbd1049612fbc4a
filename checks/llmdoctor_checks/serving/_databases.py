"""Databases that a pod needs before it serves, and does not reach: LiteLLM's, Open WebUI's, GPUStack's; and whatever else one ends of.

Of any other server (MongoDB, Redis, etcd, Milvus) only what the objects say is wrong with it counts.
"""

import re
from collections.abc import Iterator
from functools import partial

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Destination,
    Events,
    Evidence,
    Finding,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    contradicted,
    ended_logs,
    endings,
    engines_in,
    few,
    fixes,
    follow,
    is_headless,
    last_traceback,
    last_words,
    log_evidence,
    log_of,
    probe_kills,
    rows,
    say_pairs,
    selector_of,
    takes_telemetry,
)
from llmdoctor_checks._connections import BARE, NAMELESS, REFUSED, STATED, port_in
from llmdoctor_checks._consequences import FAILED_START

#: Prisma's errors P1001 and P1002 (schema-engine and query-engine, user-facing-errors; the port stands in quotes of its own up to 5),
#: libpq's, as psycopg passes them on. Each names host and port.
_AT = r"`(?P<host>[^`:\s]{1,253})(?:`:`|:)(?P<port>\d{1,5})`"
_UNREACHED = (
    ("Can't reach database server at", rf"Can't reach database server at {_AT}"),
    ("was reached but timed out", rf"database server at {_AT} was reached but timed out"),
    (
        'connection to server at "',
        r'connection to server at "(?P<host>[^"]{1,253})"(?: \([\d.:a-f]{2,45}\))?, port (?P<port>\d{1,5}) failed: '
        r"(?:Connection refused|Connection timed out|timeout expired|No route to host|Network is unreachable)",
    ),
    ('could not translate host name "', r'could not translate host name "(?P<host>[^"]{1,253})" to address'),
)
#: By what an exception speaks of a database.
_OF_DATABASES = r"(?i)prisma|psycopg|asyncpg|sqlalchemy|alembic|peewee|database|postgres|mysql|\bP10\d\d\b"
#: What is printed once the database answers, or the server is up.
_OVER = ("Application startup complete", "already in sync with the Prisma schema", "database is now in sync")

LITERALS = (*(literal for literal, _ in _UNREACHED), *_OVER, *REFUSED, *NAMELESS)

#: Exit codes of a program that somebody ended begin there; C++, Go and Rust abort with the other of what nobody caught.
_BY_SIGNAL, _ABORTED = 128, 134
#: An address in a line, as Go prints whom it dialled by a name.
_RESOLVED = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}:\d"
#: That a name does not exist; a resolver that did not answer says something else.
_NO_NAME = r"no such host|ENOTFOUND|[Nn]ame or service not known|UnknownHostException|Name does not resolve"

#: So many lines may follow the last such line where a program ends of it: a traceback, a shutdown; and in so many seconds a
#: program and its database may start side by side.
_AFTER, _BEGINS = 200, 300

_HERE = ("localhost", "127.0.0.1", "::1")
#: Ports of stores; at any other of its own pod a program may have asked a process that it had started itself.
_STORES = frozenset({2379, 3306, 5432, 5672, 6333, 6379, 8123, 9000, 9092, 9200, 19530, 27017})
_CONSEQUENCES = (*FAILED_START, "rollout-stuck", "probe-too-short")


class _Said(msgspec.Struct, frozen=True):
    """Where a pod says that it does not reach its database, or another server, and which."""

    line: Line
    host: str
    port: int | None
    what: str = "its database"
    told: str = "DATABASE_URL"


class _Why(msgspec.Struct, frozen=True):
    """Why nobody answers at a host, as far as the objects say so."""

    text: str
    evidence: tuple[Evidence, ...]
    advice: str
    commands: tuple[str, ...] = ()
    known: bool = True


def unreached(pod: Pod, cluster: Cluster, logs: Logs | None, events: Events | None) -> Iterator[Finding]:
    """A pod that does not start or serve since its database does not answer."""
    if logs is None or not pod.exists or pod.ready:
        return
    said = _said(pod, logs)
    why = _why(said, pod, cluster) if said is not None else None
    if said is not None and why is not None and not why.known and _went_on(pod, said.line):
        return  # nothing that was read is wrong with the database
    if said is None or why is None:
        ended = ((one, _why(one, pod, cluster)) for one in _ended_of(pod, logs, events))
        said, why = next(((one, why) for one, why in ended if why.known), (None, None))
    if said is None or why is None:
        return
    at = f"{said.host}:{said.port}" if said.port is not None else said.host
    yield Finding(
        severity="critical",
        confidence="likely" if why.known else "possible",
        summary=f"{said.line.log.source.container} does not reach {said.what} at {at}: {why.text}.",
        evidence=(log_evidence(said.line), *why.evidence),
        explains=_CONSEQUENCES,
        fix=fixes.advice(why.advice, *why.commands),
        order=said.line.order,
    )


def _went_on(pod: Pod, line: Line) -> bool:
    """Whether a program says much after a line, or anything in the first minutes of its first start."""
    after, age = len(line.log) - line.number, pod.cluster.seconds_since(pod.started_at)
    return after > _AFTER or (after > 0 and age is not None and age < _BEGINS and not any(endings(pod)))


def _said(pod: Pod, logs: Logs) -> _Said | None:
    """The last such line of an instance that ended, or of one that runs and is not ready."""
    ended = ended_logs(pod, logs)
    for log in ended or [log for log in logs if not log.previous]:
        over = max((line.number for line in log.find(*_OVER)), default=0)
        for literal, pattern in _UNREACHED:
            lines = [(line, found) for line, found in log.matching(pattern, literal, most=2000)]
            if lines and lines[-1][0].number > over and not _ended_otherwise(log, lines[-1][0]):
                line, found = lines[-1]
                port = found.groupdict().get("port")
                return _Said(line, found["host"], int(port) if port else None)
    return None


def _ended_of(pod: Pod, logs: Logs, events: Events | None) -> Iterator[_Said]:
    """Whom of the cluster's servers a program asked last, without a connection, that ended by itself, or of a probe."""
    engine = any(engines_in(pod))
    for ending in endings(pod):
        log = log_of(ending, logs)
        by_itself = 0 < ending.code < _BY_SIGNAL or ending.code == _ABORTED
        if log is None or not (by_itself or (events and any(probe_kills(pod, events, ending.container)))):
            continue
        last = last_words(log)
        for line in reversed([x for x in log.lines(min(last, default=1), max(last, default=0)) if x.number in last]):
            text = line.text[:4000]
            if any(words in text for words in (*REFUSED, *NAMELESS)) and not contradicted(line):
                yield from (one for one in _named_in(text, line, pod) if not _does_without(one, engine=engine))


def _named_in(text: str, line: Line, pod: Pod) -> Iterator[_Said]:
    """Whom a line names, by host and port; what only looks like one must lead somewhere."""
    other = partial(_Said, line, what="the server that it needs", told="its settings")
    for pattern in (*STATED, BARE):
        for found in re.finditer(pattern, text):
            said = found.groupdict()
            one = other(host=found["host"], port=port_in(said))
            to = follow(one.host, one.port, pod, pod.cluster) if pattern is BARE else None
            if pattern is not BARE or one.host in _HERE or (to is not None and (to.service is not None or to.pods)):
                yield one


def _does_without(said: _Said, *, engine: bool) -> bool:
    """Whether nothing follows of a server that is not reached, or another process of the program was to answer."""
    if said.host in _HERE and (engine or said.port not in _STORES):
        return True
    return takes_telemetry(said.host, said.port)


def _ended_otherwise(log: Log, line: Line) -> bool:
    """Whether the log ends, below a line, with an exception that has nothing to do with a database."""
    last = last_traceback(log)
    if last is None or last.first.number <= line.number:
        return False
    texts = [last.error, last.message[:2000], *(x.text[:1000] for x in log.lines(last.first.number, last.last.number))]
    while last.cause is not None:
        last = last.cause
        texts += [last.error, last.message[:2000]]
    return not any(re.search(_OF_DATABASES, text) for text in texts)


def _why(said: _Said, pod: Pod, cluster: Cluster) -> _Why:
    host, port = said.host, said.port
    if host in _HERE:
        return _of_this_pod(said, pod)
    to = follow(host, port, pod, cluster)
    if to is not None and to.service is not None:
        return _of_service(said, to.service, to, cluster)
    if to is not None and to.name and (gone := _not_there(said, to, cluster)):
        return _Why(
            gone,
            (),
            f"Correct the host in {said.told} (SERVICE.NAMESPACE), in {fixes.edited(pod)}",
            ("kubectl get services -A",),
        )
    return _Why(
        "whether it runs, and is let through, is not known here",
        (),
        f"See that the database runs and lets this namespace in, and that host and port in {fixes.edited(pod)} are right",
        ("kubectl get services,endpointslices -A | grep -i -e postgres -e sql -e db",),
        known=False,
    )


def _not_there(said: _Said, to: Destination, cluster: Cluster) -> str:
    """That a Service is none of the namespace's: all were read, or some were, and its name has no address; else empty."""
    there, text = cluster.exists("Service", to.namespace, to.name), said.line.text[:4000]
    nameless = re.search(_NO_NAME, text) is not None
    if not nameless and re.search(_RESOLVED, text):
        return ""  # the name had an address then
    if there is False:
        return f"namespace {to.namespace} has no Service {to.name}"
    if there or not nameless or not any(cluster.items("Service", to.namespace)):
        return ""
    return f"no Service {to.name} of namespace {to.namespace} was read, and its name has no address"


def _of_this_pod(said: _Said, pod: Pod) -> _Why:
    """Why nobody answers at the pod's own address."""
    if beside := [c.name for c in pod.containers if said.port in c.declared_ports]:
        return _Why(f"{beside[0]} of this pod does not answer", (), f"See the log of {beside[0]} of {pod.name}")
    others = [c for c in pod.containers if c.role != "init" and c.name != said.line.log.source.container]
    if undeclared := few(
        [c.name for c in others if not c.spec.ports], 3
    ):  # a container need not declare at what it listens
        return _Why(
            f"whether {undeclared} of this pod should answer there is not known here",
            (),
            f"See the log of {undeclared} of {pod.name}, or name the Service of {said.what} in {said.told}",
            known=False,
        )
    return _Why(
        "that is this pod itself, where no container declares that port",
        (),
        f"Name the Service of {said.what} in {said.told}, in {fixes.edited(pod)}",
    )


def _of_service(said: _Said, item: Item, to: Destination, cluster: Cluster) -> _Why:
    """Why nobody answers behind a Service."""
    where, port = f"Service/{item.name}", to.port
    ports = {row.get("port") for row in rows(item.raw, "spec.ports")}
    headless = is_headless(item)  # its pods are asked at whatever port they have
    if port is not None and ports and port not in ports and not headless:
        listed = ", ".join(str(one) for one in ports)
        evidence = Evidence(source="workload", ref=f"{where} spec.ports", text=listed)
        return _Why(f"its Service has no port {port}", (evidence,), f"Ask port {listed} of Service {item.name}")
    wanted, found = selector_of(item), to.pods
    if found and not any(one.ready for one in found):
        first = found[0]
        state = Evidence(
            source="workload", ref=f"Pod/{first.name} status", text=f"phase {first.status.phase}, not ready"
        )
        return _Why(
            f"no pod of its Service {item.name} is ready",
            (state,),
            f"See why {first.name} is not ready",
            (
                f"kubectl -n {item.namespace} describe pod {first.name}",
                f"kubectl -n {item.namespace} logs {first.name}",
            ),
        )
    if not found and wanted and cluster.complete("Pod", item.namespace):
        text = say_pairs(wanted, ": ")
        return _Why(
            f"its Service {item.name} selects no pod",
            (Evidence(source="workload", ref=f"{where} spec.selector", text=text),),
            f"Start {said.what} (scaled to zero, or never installed), or correct the selector of Service {item.name}",
            (f"kubectl -n {item.namespace} get statefulsets,deployments,pods",),
        )
    return _Why(
        f"why is not known here, where its Service {item.name} is",
        (),
        "See whether a NetworkPolicy or a mesh stands between the two, and whether it listens at that port",
        (f"kubectl -n {item.namespace} get networkpolicies,endpointslices",),
        known=False,
    )

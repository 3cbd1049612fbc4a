"""The last link of a way to a server: whether somebody listens in a ready pod where requests arrive."""

import re
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Destination,
    Engine,
    Evidence,
    Fix,
    Item,
    Line,
    Pod,
    dig,
    engines_in,
    fixes,
    is_headless,
    log_evidence,
    logs_of,
    object_evidence,
    pod_evidence,
    rows,
    setting_evidence,
)
from llmdoctor_checks._listening import ANY_IPV4, listens, listens_elsewhere, loopback_told, port_evidence
from llmdoctor_checks._services import target_ports
from llmdoctor_checks._told_where import readdressed

#: AIBrix' gateway asks a pod of a model at the port of this label, and at this one where it has none (`pkg/constants/model.go`).
AIBRIX_MODEL, AIBRIX_PORT, AIBRIX_DEFAULT = "model.aibrix.ai/name", "model.aibrix.ai/port", "8000"

#: The flag in Envoy's access log of a connection to a server that failed, be it one that a picker of endpoints chose.
_PICKED = r"(?<!\w)UF(?!\w)"
#: Fewer are of the moment in which a pool changes.
_FEWEST_PICKED = 3

#: All addresses of a pod, as servers are told them.
_ALL = "0.0.0.0"  # noqa: S104


class Why(msgspec.Struct, frozen=True):
    """At which link a way ends: the check that tells it, in words, and what shows it."""

    id: str
    text: str
    evidence: tuple[Evidence | None, ...]
    fix: Fix
    certain: bool = True
    #: the pod at which it ends, where no Service leads to it
    at: Pod | None = None
    #: whether the client itself names the port that is not there: nothing is wrong with the server or its Service
    astray: bool = False


class _Listener(msgspec.Struct, frozen=True):
    """Who listens in a pod, at which port, and what says so."""

    title: str
    port: int
    evidence: Evidence


def nobody_listens(to: Destination, line: Line, client: Container) -> Why | None:
    """Why a request does not get into one of the ready pods to which it is sent."""
    for pod in to.pods:
        target = to.target(pod) if pod.ready and not pod.spec.host_network else None
        why = _at(pod, target, to, line, client) if target is not None else None
        if why is not None:
            return why
    return None


def _at(pod: Pod, target: int, to: Destination, line: Line, client: Container) -> Why | None:
    mains = [c for c in pod.containers if c.role != "init"]
    engine = next((e for e in engines_in(pod) if isinstance(e.value("port"), int) and not e.announced), None)
    if len(mains) > 1 and (engine is None or any(target in c.declared_ports for c in mains)):
        return None
    asked, sent = _asked(pod, target, to)
    if len(mains) == 1 and (alone := _loopback(mains[0], engine, target)) is not None:
        return Why(
            "loopback-only",
            f"{engine.title if engine else mains[0].name} in {pod.name} listens on {alone[0]} alone",
            (sent, alone[1]),
            fixes.set_flag(engine, "host", "--host", _ALL, "Listen on all addresses of the pod")
            if engine is not None and engine.name in ("vllm", "sglang", "llama.cpp")
            else fixes.advice(
                f"Have {mains[0].name} of {fixes.edited(pod)} listen on {_ALL} in place of {alone[0]} (the host or address that its server "
                "binds)"
            ),
            at=pod,
        )
    picked = to.service is None and re.search(_PICKED, line.text[:4000]) is not None
    if picked and engine is not None and (gone := _gone_from_its_pool(pod, engine, target)) is not None:
        again = [x for x in line.log.find(f"{pod.status.pod_ip}:") if re.search(_PICKED, x.text[:4000])]
        return gone if len(again) >= _FEWEST_PICKED else None
    listener = _by_engine(engine, mains, target, to) if engine is not None else _by_probe(mains, target)
    if listener is None:
        return None
    why = Why(
        "port-mismatch",
        f"{asked}, and {listener.title} listens on {listener.port}",
        (sent, listener.evidence),
        _corrected(pod, listener.port, to, client),
        # a container that declares no ports may listen there, for the engine
        certain=all(c.spec.ports for c in mains if engine is None or c.name != engine.container.name),
        at=pod,
        # by its address, or a headless Service, the client asks the very port that it names
        astray=target == to.port and (to.service is None or is_headless(to.service)),
    )
    if to.service is not None:
        return why
    return _by_aibrix(_by_pool(why, pod, target, listener), pod, target, listener, line)


def _asked(pod: Pod, target: int, to: Destination) -> tuple[str, Evidence | None]:
    """At which port of a pod a request arrives, in words, and what leads it there."""
    if to.service is None:
        return f"that is port {target} of {pod.name}", None
    name = to.service.name
    if is_headless(to.service):
        text = f"the headless Service {name} leads to port {target} of {pod.name} itself"
        return text, object_evidence(to.service, "spec.clusterIP", "None")
    sent = object_evidence(to.service, "spec.ports", f"targetPort: {target}")
    return f"Service {name} sends to port {target} of {pod.name}", sent


def _by_engine(engine: Engine, mains: list[Container], target: int, to: Destination) -> _Listener | None:
    """The engine, where that is at another port, as far as it was told one."""
    port = engine.get("port")
    if port is None or target == port.value or _opens_besides(engine, target):
        return None
    if to.service is None and _serves_at_several(engine, target):
        return None
    declared = {port for c in mains for port in c.declared_ports}
    if port.source not in ("flag", "log", "env") and port.value not in declared:
        return None
    return _Listener(engine.title, port.value, port_evidence(engine.container, port))


def _by_probe(mains: list[Container], target: int) -> _Listener | None:
    """Another program, alone in its pod, where it answers its readiness probe at another port than one that it declares."""
    probed = _probed(mains[0]) if len(mains) == 1 else None
    declared = mains[0].declared_ports if probed else set()
    if probed is None or not declared or target in declared or target == probed[0]:
        return None
    return _Listener(mains[0].name, *probed)


def _corrected(pod: Pod, port: int, to: Destination, client: Container) -> Fix:
    """What leads requests to a port: the Service, if one sends them, else whoever asks."""
    if to.service is None or to.row is None or is_headless(to.service):
        otherwise = f"Ask {pod.name if to.service is None else to.service.name} at port {port}"
        return readdressed(client, to, f"{to.host}:{port}", f"{otherwise}, in {fixes.edited(client.pod)}")
    index = rows(to.service.raw, "spec.ports").index(to.row)
    patch = [{"op": "add", "path": f"/spec/ports/{index}/targetPort", "value": port}]
    return fixes.patch_object(to.service, f"Set targetPort to {port} in Service/{to.service.name}", patch)


def _by_pool(why: Why, pod: Pod, target: int, listener: _Listener) -> Why:
    """The same, where a picker of endpoints sent it there, by the ports of its InferencePool."""
    pool = _pool_that_lists(target, pod)
    if pool is None:
        return why
    return msgspec.structs.replace(
        why,
        text=f"{why.text}; InferencePool {pool.name} has {target} among its targetPorts",
        evidence=(object_evidence(pool, "spec.targetPorts", f"number: {target}"), listener.evidence),
        fix=fixes.advice(
            f"Set targetPorts of InferencePool/{pool.name} to {listener.port}, not {target}, as they hold for each pod that it "
            f"selects, or let {fixes.edited(pod)} listen there"
        ),
        astray=False,
    )


def _gone_from_its_pool(pod: Pod, engine: Engine, target: int) -> Why | None:
    """A port that no InferencePool of a pod lists, while one lists that of its engine: a picker of endpoints may know it from before.

    Up to 1.3 it keeps the ranks whose ports were taken out of targetPorts (gateway-api-inference-extension pkg/epp/datastore).
    """
    pools = [pool for pool in pod.pools if rows(pool.raw, "spec.targetPorts")]
    pool = next((pool for pool in pools if engine.value("port") in target_ports(pool)), None)
    others: set[Any] = {port for c in pod.containers for port in c.declared_ports}
    others |= {
        row.get("targetPort", row.get("port")) for service in pod.services for row in rows(service.raw, "spec.ports")
    }
    if pool is None or target in others.union(*map(target_ports, pools)) or _opens_besides(engine, target):
        return None
    have = ", ".join(map(str, sorted(target_ports(pool))))
    name = str(dig(pool.raw, "spec.endpointPickerRef.name") or "")
    restart = (
        f"rollout restart deployment/{name}"
        if pod.cluster.item("Deployment", pod.namespace, name)
        else "get deployments"
    )
    return Why(
        "port-mismatch",
        f"that is port {target} of {pod.name}, which InferencePool {pool.name} does not list ({have}): its endpoint picker still goes "
        "by ports that were taken out of targetPorts",
        (object_evidence(pool, "spec.targetPorts", f"number: {have}"),),
        fixes.advice(
            f"Restart the endpoint picker{f' ({name})' if name else ''} of InferencePool/{pool.name}, so that it forgets the ports that "
            "are gone; that of gateway-api-inference-extension does so by itself from 1.4 on",
            f"kubectl -n {pod.namespace} {restart}",
        ),
        at=pod,
        astray=True,
    )


def _by_aibrix(why: Why, pod: Pod, target: int, listener: _Listener, line: Line) -> Why:
    """The same, where AIBrix' gateway sent it there, by the label of the pod."""
    told = pod.labels.get(AIBRIX_PORT)
    of_aibrix = AIBRIX_MODEL in pod.labels and str(target) in (told, AIBRIX_DEFAULT)
    if not of_aibrix or "/metrics" in line.text:  # for which it goes by a label of their own
        return why
    if told == str(listener.port):
        text = f"that is port {target} of {pod.name}, and {listener.title} listens on {listener.port}, as its label {AIBRIX_PORT} says, "
        text += "by which this AIBrix does not go"
        fix = fixes.advice(f"Upgrade AIBrix, or let {fixes.edited(pod)} listen on {target}")
    else:
        text = f"{why.text}; AIBrix goes by the label {AIBRIX_PORT}, {told or f'without which it asks {target}'}"
        label = f'the label {AIBRIX_PORT}: "{listener.port}", in its pod template'
        fix = fixes.advice(f"Give {fixes.pods_of(pod)} {label}")
    said = pod_evidence(pod, "metadata.labels", f"{AIBRIX_PORT}: {told}" if told else f"no {AIBRIX_PORT}")
    return msgspec.structs.replace(why, text=text, evidence=(said, listener.evidence), fix=fix, astray=False)


def _pool_that_lists(port: int, pod: Pod) -> Item | None:
    """An InferencePool that selects a pod and has a port among those at which its picker of endpoints looks for servers."""
    return next(
        (pool for pool in pod.pools if any(row.get("number") == port for row in rows(pool.raw, "spec.targetPorts"))),
        None,
    )


def _serves_at_several(engine: Engine, port: int) -> bool:
    """Whether an engine may serve at a port besides its own: one for each of its data-parallel ranks, or what a script starts there."""
    ranks, spec = engine.value("data_parallel_size"), engine.container.spec
    several = not isinstance(ranks, int) or ranks > 1
    return several or re.search(rf"(?<!\d){port}(?!\d)", " ".join(spec.argv)) is not None


def _opens_besides(engine: Engine, port: int) -> bool:
    """Whether another setting of an engine names a port: of its metrics, of its events, of what passes its cache on."""
    told = {**engine.found.defaults, **engine.found.settings}
    named = re.compile(rf'(?::|port"?: ?"?){port}\b')
    return any(
        name != "port" and ((said.value == port and "port" in name) or named.search(said.text) is not None)
        for name, said in told.items()
    )


def _loopback(container: Container, engine: Engine | None, port: int) -> tuple[str, Evidence] | None:
    """The loopback address at which alone a server listens, by what it was told or by its log."""
    logs = logs_of(container.pod)
    said = listens(container, logs, {str(port)})
    if said is not None:
        alone = said[0] != ANY_IPV4 and not listens_elsewhere(container, logs, said[2])
        return (said[0], log_evidence(said[1])) if alone else None
    host = loopback_told(engine) if engine is not None else None
    if host is None or str(host.value) == ANY_IPV4 or host.source == "default":
        return None
    return str(host.value), setting_evidence(container, host)


def _probed(container: Container) -> tuple[int, Evidence] | None:
    """The port at which a ready program answers its readiness probe."""
    probe = container.spec.readiness_probe
    action = (probe.http_get or probe.tcp_socket) if probe else None
    number = container.port_number(action.port) if action else None
    if probe is None or action is None or number is None:
        return None
    path = f"readinessProbe.{'httpGet' if probe.http_get else 'tcpSocket'}.port"
    return number, pod_evidence(container, path, str(action.port))

"""Why an address that a pod asks may not answer, as far as the objects say so, and what mends that."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.engines.names import OPTIONS
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.clients import speaks_of_one, told_by
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.destinations import (
    Destination,
    engines_in,
    follow,
    has_namespace,
    idle_workload,
    is_headless,
    named,
    selector_of,
    service_at,
)
from kubectl_llmdoctor.facts.endings import endings
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import workload_of
from kubectl_llmdoctor.facts.troubles import Trouble
from kubectl_llmdoctor.facts.units import parse_time, say_seconds
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.fixes import advice, edited, patch_object, set_env, set_flag
from kubectl_llmdoctor.platforms.labels import rank_of
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.snapshot import MASK
from kubectl_llmdoctor.tree import dig, rows, say_selector

#: A host with a port or without, as settings and lines have it: in a URL, in brackets, as IPv4 in IPv6; no other IPv6.
ADDRESS = expression(
    r"(?!(?:[a-z][a-z0-9+]{1,12}://)?(?:[^\s@/]{1,100}@)?\[?(?!::ffff:\d{1,3}\.)[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2})"
    r"(?:[a-z][a-z0-9+]{1,12}://)?(?:[^\s@/]{1,100}@)?\[?(?:::ffff:)?(?P<host>[a-z0-9](?:[\w-]{0,62}\.){0,8}[\w-]{0,62})\]?"
    r"(?:[:<](?P<port>\d{2,5})\b)?"
)
#: What settings of addresses may hold that is none: Ray's words, and those of files.
_NO_HOST = ("auto", "local", "null", "none", "true", "false")
#: An address of IPv4.
IN_NUMBERS = expression(r"\d{1,3}(?:\.\d{1,3}){3}")
#: How the rpc-server of llama.cpp is told where it listens (tools/rpc/rpc-server.cpp), and where it does so untold.
_RPC_SERVER = expression(r"(?:^|[/ ])(?:ggml-|llama-)?rpc-server(?:\s|$)")
_LISTENS = expression(r"(?:^|\s)(?:-H|--host)[ =][\"']?(?P<at>[^\s\"']{0,253})")
_AT_PORT = expression(r"(?:^|\s)(?:-p|--port)[ =][\"']?(?P<port>\d{1,5})(?![^\s\"'])")
_PLAIN = expression(r"[\w.:-]+")
_RPC_PORT, _LOOPBACK, _EVERYWHERE = 50052, "127.0.0.1", "0.0.0.0"  # noqa: S104 - what it is told, not where this listens
#: What a name must have in common with one that is not there to be meant by it.
_ALIKE = 0.75
#: A part of a name that is so short, or a number in it, tells one from another of its kind: no slip of the pen.
_TELLS_APART = 3
#: Where a setting leads to.
_URL = expression(r"https?://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?(?![\w.:@-])")
#: Variables of which the value may be a host alone.
_OF_HOST = expression(r"(?i)host|addr|ur[il]|server|endpoint|master|base|remote")


def reach(text: str, pod: Pod, container: Container | None = None) -> Fix | None:
    """What lets a pod reach an address; None where the objects say nothing against it."""
    said = ADDRESS.match(text.strip())
    if said is None or said["host"] in _NO_HOST:
        return None
    host, port = said["host"], int(said["port"]) if said["port"] else None
    if port is not None and (apart := _rpc_server(host, port, pod)) is not None:
        return apart
    aliases = {str(name) for row in pod.spec.host_aliases for name in row.get("hostnames") or ()}
    if host in aliases | {pod.name, pod.spec.hostname}:
        return None
    if (peer := _named(host, pod)) is not None:
        hidden = service_at(host.partition(".")[2], pod.namespace, pod.cluster)
        return (
            None
            if _since(peer, pod)
            else of_pod(peer, f"which {host} leads to", hidden=hidden) or _coming(host, peer, pod)
        )
    if (made := _headless(host, pod) or _at_home(host, pod)) is not None:
        return made
    to = follow(host, port, pod, pod.cluster)
    if to is None or to.itself:
        return None
    if to.service is None:
        others = [one for one in to.pods if one.name != pod.name and not _since(one, pod)]
        if to.pods and not others:
            return None
        return of_pod(others[0], f"which has the address {host}") if others else _nobody(to, pod, container)
    return _of_service(to, to.service, pod)


def _rpc_server(host: str, port: int, asker: Pod) -> Fix | None:
    """The one rpc-server of llama.cpp at this port, where it listens on another address; without one it is on loopback.

    One that a shell puts in is not known; and a name mostly leads to the address of the pod.
    """
    found: list[tuple[Pod, str]] = []
    for item in asker.cluster.items("Pod", asker.namespace):
        peer = Pod.of(item, asker.cluster)
        for argv in (" ".join(c.spec.argv) for c in peer.containers if peer.name != asker.name):
            at, said = _LISTENS.search(argv), _AT_PORT.search(argv)
            if _RPC_SERVER.search(argv) and (int(said["port"]) if said else _RPC_PORT) == port:
                found.append((peer, at["at"] if at else _LOOPBACK))
    if len(found) != 1 or found[0][1] in (host, _EVERYWHERE, "::"):
        return None
    peer, only = found[0]
    wide = f"with -H {_EVERYWHERE} in {edited(peer)}"
    if only in (_LOOPBACK, "localhost"):
        return advice(f"Have the rpc-server of {peer.name} listen for others, {wide}: it listens on {only} alone")
    if not _PLAIN.fullmatch(only) or (
        not IN_NUMBERS.fullmatch(host) and only in (peer.status.pod_ip or only, peer.name)
    ):
        return None
    return advice(
        f"Ask the rpc-server of {peer.name} at {only}:{port}, where alone it listens (-H), in place of {host}, in {edited(asker)}; or let "
        f"it listen on all addresses, {wide}"
    )


def told(names: str, container: Container) -> Iterator[str]:
    """The addresses that a container is given by variables, options or keys of these names (a regular expression)."""
    given = re.compile(rf"(?<![\w-])(?:{names})[\"']?[=: \t]{{1,3}}[\"']?(?P<at>[^\s\"']{{1,400}})")
    texts = [f"{where}={value}" if where in container.env else value for where, value in told_by(container)]
    for text in (" ".join(container.spec.argv), *texts):
        for said in given.finditer(text[:20_000]):
            yield from said["at"].split(",")


def server_of(container: Container) -> Engine | None:
    """The server that a container without one asks, where its settings name one workload of servers alone, and no API of another one."""
    pod, found = container.pod, dict[tuple[str, str, str], tuple[Engine, set[str]]]()
    for _, value in told_by(container):
        for said in _URL.finditer(value[:20_000]):
            to = follow(said["host"], int(said["port"]) if said["port"] else None, pod, pod.cluster)
            for peer in to.others if to is not None else ():
                owner, names = workload_of(peer), {item.name for item in peer.services}
                whose = owner.ref if owner else peer.name
                found |= {(peer.namespace, whose, one.container.name): (one, names) for one in engines_in(peer)}
    engine, names = next(iter(found.values())) if len(found) == 1 else (None, set[str]())
    return engine if engine is not None and speaks_of_one(container, engine.pod, names) else None


def _named(host: str, pod: Pod) -> Pod | None:
    """The other pod that has a host as its own name, as those of a StatefulSet and of a LeaderWorkerSet do."""
    own, _, rest = host.lower().partition(".")
    subdomain, namespace = named(rest, pod.namespace, pod.cluster, guess=True) or ("", "")
    for item in pod.cluster.items("Pod", namespace) if subdomain else ():
        one = Pod.of(item, pod.cluster)
        if one.spec.subdomain == subdomain and (one.spec.hostname or one.name) == own and one.name != pod.name:
            return one
    return None


def _since(peer: Pod, asker: Pod) -> bool:
    """Whether a pod came, or fell and stands again, only after the one that asked had ended."""
    until = max((ending.finished for ending in endings(asker) if ending.finished), default=None)
    made = parse_time(peer.obj.metadata.creation_timestamp)
    fell = max((one.since for one in peer.troubles if one.since), default=None)
    return until is not None and ((made or until) > until or (peer.ready and (fell or until) > until))


def _coming(host: str, peer: Pod, asker: Pod) -> Fix | None:
    """To wait for a pod that is only being made: it has its address, and with that its name, once its containers start."""
    if not peer.being_made:
        return None
    rank = rank_of(peer.labels)
    newest = max((one for one in peer.events if one.last), key=lambda one: str(one.last), default=None)
    does = "pulls its image" if newest and newest.reason == "Pulling" else "is still being made"
    return advice(
        f"Have {asker.name} wait for {host} before it starts the engine (until getent hosts {host}; do sleep 5; done, "
        f"in {edited(asker)}): {rank + ' ' if rank else ''}{peer.name}, which has that name, {does}",
        f"kubectl -n {peer.namespace} describe pod {peer.name}",
    )


def _headless(host: str, pod: Pod) -> Fix | None:
    """The headless Service that gives the pods of the asker's own set their names, where there is none."""
    own, _, rest = host.lower().partition(".")
    workload, (name, namespace) = workload_of(pod), named(rest, pod.namespace, pod.cluster, guess=True) or ("", "")
    selector = dig(workload.raw, "spec.selector.matchLabels") if workload else None
    if (
        workload is None
        or not name
        or namespace != pod.namespace
        or not isinstance(selector, dict)
        or not re.fullmatch(rf"{re.escape(workload.name)}-\d{{1,4}}", own)
    ):
        return None
    if pod.cluster.exists("Service", pod.namespace, name) is not False:
        return None
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    made = shlex.quote(msgspec.json.encode(service).decode())
    also = (
        ""
        if pod.spec.subdomain == name
        else f", and name it as serviceName of {workload.ref}, which must be recreated for that"
    )
    return advice(
        f"Create the headless Service {name} in namespace {pod.namespace}, which gives {own} its name{also}",
        f"echo {made} | kubectl -n {pod.namespace} apply -f -",
    )


def _at_home(host: str, pod: Pod) -> Fix | None:
    """To ask in the pod's own namespace, where a host names a pod in another one, and the headless Service of that name is here."""
    own, _, rest = host.lower().rstrip(".").partition(".")
    name, namespace = named(rest, pod.namespace, pod.cluster) or ("", "")
    if namespace == pod.namespace or pod.cluster.exists("Service", namespace, name):
        return None
    if not any(one.name == name and is_headless(one) for one in pod.services):
        return None
    return advice(
        f"Ask {own}.{name}.{pod.namespace}.svc in place of {host}, in {edited(pod)}: the Service {name} that gives the pods of this group "
        f"their names is in namespace {pod.namespace}, and the address names {namespace}"
    )


def of_pod(peer: Pod, why: str, *, hidden: Item | None = None) -> Fix | None:
    """What mends a pod that another one waits for. That it is not ready may be only since it waits for the other."""
    trouble = next((one for one in peer.troubles if one.kind != "not-ready"), None)
    if trouble is not None:
        return _mend(peer, trouble, why)
    spec = dig(hidden.raw, "spec") if hidden else None
    if (
        hidden
        and not peer.ready
        and dig(spec, "clusterIP") == "None"
        and dig(spec, "publishNotReadyAddresses") is not True
    ):
        change = [{"op": "add", "path": "/spec/publishNotReadyAddresses", "value": True}]
        return patch_object(hidden, f"Have Service {hidden.name} publish {peer.name} before it is ready", change)
    return None


def _mend(peer: Pod, trouble: Trouble, why: str) -> Fix:
    rank = rank_of(peer.labels)
    ended = trouble.container.terminated if trouble.container else None
    code = f", exit code {ended.exit_code}" if ended and f"exit {ended.exit_code}" not in trouble.text else ""
    if ended and ended.reason == "OOMKilled" and ended.reason not in trouble.text:
        limit = trouble.container.spec.resources.limits.get("memory") if trouble.container else None
        code = f", OOMKilled{f' at its memory limit of {limit}' if limit else ''}{code}"
    state = f"{trouble.text[:160].rstrip('. ')}{code}"
    at = f"kubectl -n {peer.namespace}"
    commands = [f"{at} describe pod {peer.name}"]
    if trouble.kind in ("crashed", "not-ready", "dead") and trouble.container is not None:
        before = " --previous" if trouble.kind == "crashed" and trouble.container.restarts else ""
        commands = [f"{at} logs {peer.name} -c {trouble.container.name}{before} --tail=200"]
    return advice(f"Fix {rank + ' ' if rank else ''}{peer.name} first ({state}), {why}", *commands)


def _nobody(to: Destination, pod: Pod, container: Container | None) -> Fix | None:
    """What to ask instead of a Service that is not there."""
    cluster = pod.cluster
    # a node's resolver knows other names, and no Service
    if not to.name or cluster.exists("Service", to.namespace, to.name) is not False or pod.spec.host_network:
        return None
    lacks = f"namespace {to.namespace} has no Service {to.name}"
    said = re.compile(rf"(?<![\w.-])(?<![^/]/){re.escape(to.host)}(?![\w.@-]|://)")
    where, value = next(_written(to.host, said, container), ("", "")) if container else ("", "")
    if not (meant := _meant(to, cluster)):
        at = f"in {where} of {edited(pod)}" if where else f"in {edited(pod)}"
        command = f"kubectl -n {to.namespace} get services"
        return advice(f"Start what should answer at {to.shown}, or correct that address {at}: {lacks}", command)
    summary = f"Ask {meant} in place of {to.host}: {lacks}"
    if container and where in container.env and MASK not in value and container.env[where].origin == "value":
        return set_env(container, where, said.sub(meant, value, count=1), summary)
    return advice(f"{summary} ({where + ' ' if where else ''}in {edited(pod)})")


def _written(host: str, said: re.Pattern[str], container: Container) -> Iterator[tuple[str, str]]:
    """Where a container is told of a host; a word alone may be the name of something else."""
    for where, value in told_by(container):
        if said.search(value) and (value != host or _OF_HOST.search(where)):
            yield where, value


def _meant(to: Destination, cluster: Cluster) -> str:
    """The Service that somebody means who asks for one that is not there: of another namespace, or by the nearest name."""

    def offers(item: Item) -> bool:
        ports = [row.get("port") for row in rows(item.raw, "spec.ports")]
        return to.port is None or not ports or to.port in ports

    free = "." not in to.host or not has_namespace(to.namespace, cluster)
    others = [one for one in cluster.items("Service") if free and one.name == to.name and offers(one)]
    near = [one.name for one in cluster.items("Service", to.namespace) if offers(one) and _slip(one.name, to.name)]
    closest = difflib.get_close_matches(to.name, near, 1, _ALIKE)
    if len(others) == 1:
        return f"{to.name}.{others[0].namespace}.svc"
    return f"{closest[0]}{to.host[len(to.name) :]}" if closest else ""


def _slip(name: str, asked: str) -> bool:
    """Whether one name may be a slip of the pen of another: the same numbers, and no short part that tells them apart."""
    parts = zip(name.split("-"), asked.split("-"), strict=False)
    differ = [part for pair in parts if pair[0] != pair[1] for part in pair]
    numbers = re.findall(r"\d+", name) == re.findall(r"\d+", asked)
    return numbers and all(len(part) >= _TELLS_APART for part in differ)


def _of_service(to: Destination, service: Item, pod: Pod) -> Fix | None:
    """What mends a Service that leads to nobody."""
    spec, cluster = dig(service.raw, "spec"), pod.cluster
    headless = dig(spec, "clusterIP") == "None"
    ports = [row.get("port") for row in rows(service.raw, "spec.ports")]
    if to.port is not None and ports and to.port not in ports and not headless:
        listed = " or ".join(map(str, ports))
        return advice(f"Ask Service {service.name} at port {listed}, in {edited(pod)}: it has no port {to.port}")
    wanted = selector_of(service)
    if not to.pods and wanted and cluster.complete("Pod", service.namespace):
        idle = idle_workload(service, cluster)
        at = f"kubectl -n {service.namespace}"
        if idle is not None:
            command = f"{at} scale {idle.kind.lower()}/{idle.name} --replicas=1"
            return advice(
                f"Start {idle.kind}/{idle.name}, which is scaled to 0: Service {service.name} leads to nobody", command
            )
        labels = say_selector(wanted)
        command = f"{at} get pods --show-labels"
        return advice(f"Start the pods of Service {service.name}, or correct its selector: none has {labels}", command)
    why = f"which Service {service.name} leads to"
    # ranks that ask by a Service of their own group wait for each other
    if not to.pods or any(one.ready or one.item is pod.item for one in to.pods):
        return None
    if dig(spec, "publishNotReadyAddresses") is True:
        return of_pod(to.pods[0], why)
    return next((_mend(one, one.troubles[0], why) for one in to.pods if one.troubles), None)


#: So many seconds later does no server of the other side begin that was made together with this one.
_LATER = 900

#: What the two sides of disaggregated serving must have alike.
_ALIKE_SETTINGS = ("model", "kv_cache_dtype", "block_size", "page_size", "dtype")


#: What the pods of a server are made by.
_SERVED_BY = ("Deployment", "StatefulSet", "LeaderWorkerSet")


def sides(container: Container | None) -> dict[str, str]:
    """`prefill_url` and `decode_url`: of the one Service in the namespace that is called after each side; empty where several are."""
    found = {}
    for side in ("prefill", "decode"):
        items = container.pod.cluster.items("Service", container.pod.namespace) if container else ()
        urls = [
            f"http://{item.name}:{service.spec.ports[0].port}"
            for item in items
            if side in item.name and isinstance(service := item.typed(), k8s.Service) and service.spec.ports
        ]
        found[f"{side}_url"] = urls[0] if len(urls) == 1 else ""
    return found


def _sizes_apart(engine: Engine) -> Fix | None:
    """One tensor parallel size for both sides of a transfer: vLLM's NIXL connector takes from no prefill with a larger one."""
    alike = _beside(engine)
    return _one_size(engine, alike[0], alike[0].container.pod.name) if alike else None


def _beside(engine: Engine) -> list[Engine]:
    """The other side of a transfer, where neither need say which it is (`kv_both`), or nothing.

    It is the one workload beside it, or the pods of one, that serves the same model and moves its KV cache by the same connector.
    """
    pod = engine.container.pod
    own = workload_of(pod)
    if engine.name != "vllm" or not engine.explicit("kv_transfer_config") or own is None:
        return []
    items = [item for kind in _SERVED_BY for item in pod.cluster.items(kind, pod.namespace) if item.name != own.name]
    made = [one for item in items for one in Pod.planned(Workload(item, pod.cluster))]
    made += [one for one in pod.of_namespace if workload_of(one) is None and not (one.completed or one.leaving)]
    beside = {_maker(e.container.pod): e for one in made for e in engines_in(one) if _alike(e, engine)}
    return list(beside.values()) if len(beside) == 1 else []


def _alike(one: Engine, other: Engine) -> bool:
    return all(one.value(name) == other.value(name) for name in ("model", "kv_transfer_config"))


def _maker(pod: Pod) -> str:
    """What made a pod, by the name that is written in it."""
    owners = rows(pod.item.metadata, "ownerReferences") if pod.item is not None else []
    return str(owners[0].get("name")) if owners else pod.name


def _tensor_size(engine: Engine) -> int | None:
    """The tensor parallel size of an engine, of which other sizes (data, pipeline) are no part; None where it is not known."""
    size, found = engine.get("tensor_parallel_size"), engine.found
    if size is None:
        return 1 if found.argv_known and "tensor_parallel_size" not in found.unresolved else None
    return size.value if isinstance(size.value, int) and size.value > 0 else None


def _one_size(engine: Engine, other: Engine, there: str) -> Fix | None:
    """The same tensor parallel size there and here, where it is larger there."""
    pod, ours, theirs = engine.container.pod, _tensor_size(engine), _tensor_size(other)
    if ours is None or theirs is None or theirs <= ours:
        return None
    flag, here = "--tensor-parallel-size", edited(pod)
    return advice(
        f"Give both sides one tensor parallel size: {here} has {ours}, and {there} {theirs}. Set {flag}={theirs} and as many GPUs "
        f"in {here}, or {flag}={ours} and as many in {there} where the model fits",
        *(() if here.startswith("Pod/") else (f"kubectl -n {shlex.quote(pod.namespace)} edit {here}",)),
    )


_OTHER_SIDE = {"prefill": "decode", "decode": "prefill"}


def other_side(engine: Engine) -> Fix | None:
    """What lets the two sides of disaggregated serving understand each other, where the other one is there to be compared with."""
    if (apart := _sizes_apart(engine)) is not None:
        return apart
    pod, other = engine.container.pod, _OTHER_SIDE.get(engine.side, "")
    peers = _peers(engine, other) if other else []
    if not peers or pod.log_only:
        return _uneven(engine)
    if not any(peer.container.pod.ready for peer in peers):
        worst = min((peer.container.pod for peer in peers), key=lambda one: not one.failing)
        return _mend(worst, worst.troubles[0], f"the {other} side of {pod.name}") if worst.troubles else None
    theirs = peers[0]
    here, there = engine.container.spec.image, theirs.container.spec.image
    where = f"{edited(pod)} and {edited(theirs.container.pod)}"
    if engine.name == theirs.name and here.rpartition("/")[2] != there.rpartition("/")[2]:  # a mirror has the same
        return advice(f"Run one image on both sides, {where}: here it is {here}, and {there} in {other}")
    if (older := _older_than(engine, peers)) is not None:
        return older
    moves = [one.explicit("kv_transfer_config") for one in (engine, theirs)]
    nixl = engine.name == theirs.name == "vllm" and other == "prefill" and all(moves)
    if nixl and (apart := _one_size(engine, theirs, edited(theirs.container.pod))) is not None:
        return apart
    return (_unlike(engine, theirs, other, where) if engine.name == theirs.name else None) or _uneven(engine)


def _peers(engine: Engine, other: str) -> list[Engine]:
    """The engines of the other side; where several models are served so, each has sides of its own."""
    pod = engine.container.pod
    sides = [e for one in pod.of_namespace if not one.leaving and not one.completed for e in engines_in(one) if e.side]
    served = {_model(one) for one in sides if one.side == engine.side} - {_model(engine)}
    peers = [one for one in sides if one.side == other and _model(one) not in served]
    return [one for one in peers if _model(one) == _model(engine)] or peers


def _unlike(engine: Engine, theirs: Engine, other: str, where: str) -> Fix | None:
    """A setting that both sides must have alike, and have not."""
    for name in _ALIKE_SETTINGS:
        ours, wanted = engine.explicit(name), theirs.explicit(name)
        if (ours.value if ours else None) == (wanted.value if wanted else None):
            continue
        flag = OPTIONS.get(name, {}).get(engine.name, "")
        if wanted is not None and flag and isinstance(wanted.value, (str, int)):
            return set_flag(
                engine, name, flag, str(wanted.value), f"Set {flag} here to {wanted.value}, as {other} has it"
            )
        if ours is not None:
            return advice(f"Give {other} {ours.text} too, or take it away here ({where})")
    return None


def _older_than(engine: Engine, peers: list[Engine]) -> Fix | None:
    """To start a server anew that keeps what it knew of peers which have all been replaced since: NIXL connects anew to none of them."""
    pod, started = engine.container.pod, engine.container.started
    began = [(since, one.container.pod.name) for one in peers if (since := one.container.started) is not None]
    if started is None or not pod.ready or not began:
        return None
    first, peer = min(began)
    seconds = (first - started).total_seconds()
    if seconds < _LATER:
        return None
    maker, command = edited(pod), f"kubectl -n {shlex.quote(pod.namespace)}"
    anew, restarted = maker.startswith(("Deployment/", "StatefulSet/")), shlex.quote(maker.lower())
    return advice(
        f"Start {pod.name} again: {peer} began {say_seconds(seconds)} after it, and it may keep what it knew of the one before",
        f"{command} rollout restart {restarted}" if anew else f"{command} delete pod {shlex.quote(pod.name)}",
    )


def _uneven(engine: Engine) -> Fix | None:
    """One tensor parallel size for both sides, where a transfer ended the server, and they have nothing else that differs."""
    pod, alike = engine.container.pod, _beside(engine)
    ours, theirs = _tensor_size(engine), _tensor_size(alike[0]) if alike else None
    if not pod.failing or pod.log_only or ours is None or theirs is None or ours == theirs:
        return None
    return advice(
        f"Give both sides one tensor parallel size: {edited(pod)} has {ours}, and {alike[0].container.pod.name} {theirs}. "
        "vLLM's connector does not manage uneven ones for each model"
    )


def _model(engine: Engine) -> str:
    """The model that an engine is told to serve."""
    told = engine.explicit("model")
    return str(told.value) if told else ""

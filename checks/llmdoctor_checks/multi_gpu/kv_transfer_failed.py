"""Prefill and decode that serve different models, and a cache that never comes."""

import re
import shlex
from collections.abc import Iterable, Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    answered,
    check,
    count_of,
    endings,
    engines_in,
    expression,
    fixes,
    log_evidence,
    log_of,
    long_past,
    other_side,
    pod_evidence,
    say_seconds,
    seconds_between,
    served,
    setting_evidence,
)
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks.multi_gpu import _came_up_without, _computed_again, _lmcache_ranks, _slow_transfers, _stopped
from llmdoctor_checks.multi_gpu._layouts import MISMATCH, other_layout, unlike
from llmdoctor_checks.scheduling._devices import for_other_hardware

#: vLLM's scheduler says this at each step of a request whose cache has not come yet (`v1/core/sched/scheduler.py`, a debug message).
_WAITS = " is still in WAITING_FOR_REMOTE_KVS state"
#: And this, once, when the cache has come.
_CAME = "Finished recving KV transfer for request "

#: vLLM's prefill side, of a cache that nobody fetched (`nixl_connector.py`, later `nixl/base_worker.py`); so it is with a request that
#: was cancelled between the two.
_EXPIRED = "Releasing expired KV blocks for request "
_UNFETCHED = expression(_EXPIRED + r"(\S{1,200}) which were retrieved by 0 (?:decode|remote) worker")
#: And of one whose cache was fetched all the same, after that: its blocks may have been of another request by then.
_LATE = "Potentially invalid KV blocks for unrecognized request "
_FETCHED_LATE = expression(_LATE + r"(\S{1,200}) were retrieved by a decode worker")
#: How long prefill keeps a cache: so many seconds by a variable, or (as `nixl/base_worker.py` has it) a lease that the connector is told.
_LEASE, _LEASED, _KEPT = "kv_lease_duration", "before lease expired", "VLLM_NIXL_ABORT_REQUEST_TIMEOUT"
#: So many requests are not all cancelled.
_SEVERAL = 3
#: Where vLLM's side channel listens when nothing else is said (`vllm/envs.py`).
_HOST, _LOOPBACK = "VLLM_NIXL_SIDE_CHANNEL_HOST", ("localhost", "127.0.0.1", "::1")

#: A cache is there within seconds; who still waits then waits for one that does not come.
_NEVER_SECONDS = 30

#: SGLang numbers what prefill and decode hand over (`disaggregation/`). The side that gives a request up says only that it was
#: aborted, as if its client had gone; the side that failed says why, under the same number.
_GIVEN_UP = "): Aborted by "
_ABORTED = expression(r"bootstrap_room=(\d{1,20})\): Aborted by (?:AbortReq|decode-side abort)")
#: UCX uses no transport that this does not name (a leading ^ names those that it does not use), and knows a GPU's memory only by those
#: of CUDA. NIXL then refuses to register it (its ucx_utils.cpp) since 2026-03; before it only warned, and some transfers came through.
_TRANSPORTS, _OF_CUDA = "UCX_TLS", ("cuda", "gdr_copy", "all")
#: The first release of vLLM that is surely newer: the images of 0.20 still warned.
_REFUSES = "0.21"
#: The cache goes through the host's memory then, which each transport knows, or NIXL sends it by something else than UCX.
_NOT_BY_IT = r"kv_buffer_device\W{1,4}cpu\b|\bbackends\W{1,6}(?![^\]]{0,200}UCX)\w"

#: SGLang's two sides (`disaggregation/mooncake/conn.py`, nixl, mori), of the other one.
_DEAD = ("instance, it might be dead", "instance could be dead")
_OTHER_SIDE = {"prefill": "decode", "decode": "prefill"}

#: What SGLang's scheduler says of a request that does not name where prefill and decode meet for it, spelt in two ways, which a router
#: of its own puts into each. The ranks of a server all say so of one request.
_UNPAIRED = "Disaggregated request received without "
_WITHOUT_ROOM = expression(
    r"^[^'\"]{0,120}" + _UNPAIRED + r"boot?strap room id\..{0,40}?\brid='(?P<request>[^']{1,200})'"
)

#: Paths at which SGLang makes a request of its own of what it got, without the room (`anthropic/serving.py`, `serving_responses.py`).
_ROOMLESS = frozenset({"/v1/messages", "/v1/responses"})

#: So many answers for each refusal, and the two are paired as a rule.
_MANY = 10

#: NIXL's word of a peer that is gone (`ucx_utils.cpp`), how its statements begin, and by which signals a program dies of itself.
_LOST = ", UCX error handling callback was invoked with status "
_PEER_LOST = (
    r" ucx_utils\.cpp:\d+\] ep \w{1,20}: state \w{1,30}" + re.escape(_LOST) + r"-\d{1,3} \((?P<why>[^)]{1,80})\)"
)
_OF_NIXL = expression(r"\s*$|[IWE]\d{4} [\d:.]{8,15} {1,8}\d{1,9} \w{1,40}\.(?:cpp|h):\d")
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS")

#: Beside so many times as many answers those that failed are few.
_MANY = 10
#: Clocks of two nodes differ by less; and nobody waits for longer.
_SKEW, _A_DAY = 5, 86400
_OF_A_ROOM = ("error for room ", " failed for request rank=")
_FAILED_ROOM = expression(r"(?:error for room |bootstrap_room=)(\d{1,20})(?!\d)")


@check(
    "kv-transfer-failed",
    since="0.1",
    literals=(
        *(_WAITS, _CAME, _EXPIRED, _LATE, _GIVEN_UP, *_OF_A_ROOM, *_stopped.LITERALS, *_DEAD, _LOST),
        *(MISMATCH, _lmcache_ranks.WAITING, _UNPAIRED, *_came_up_without.LITERALS, *_computed_again.LITERALS),
        *_slow_transfers.LITERALS,
    ),
)
def kv_transfer_failed(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The KV cache does not get from prefill to decode.

    In disaggregated serving one engine reads the prompt and hands its KV cache to another that generates. The hand-over
    fails: the peer crashed, its address or side-channel port is wrong (the default address is the loopback), versions or
    settings differ, or the transport (UCX, RDMA, Mooncake) does not work between these pods. Requests then time out, or
    the decode engine computes everything again.

    vLLM's NIXL connector says nothing of a cache that never comes, but in debug messages: each step repeats that the request
    waits. On the other side it says which caches nobody fetched in time: those of cancelled requests, and all of them where the
    side channel listens on the loopback, its default. A cache that is fetched after that may hold what belongs to another request: the
    answer is wrong, and no error says so.

    SGLang's decode side says of a transfer that failed in prefill only that the request was aborted, which it says of one whose
    client has gone, too. The log of prefill has the reason, under the same `bootstrap_room`.

    Nor do both say anything where transfers neither end nor fail: SGLang's decode side then counts the same requests whose cache it
    awaits (`#transfer-req`) for minutes, its prefill side ever more that no decode server takes (`#prealloc-req`), and TensorRT-LLM's
    context side repeats that a cache is not fetched, and begins no request.

    SGLang's two sides refuse a request that does not say where they meet for it (a bootstrap room): its own router puts that into each
    request, and a gateway that takes them for servers like any other does not. Of requests to `/v1/messages` and `/v1/responses` SGLang
    itself loses it.

    Where the cache does come, vLLM says every ten seconds how long that took. Over TCP it is a second and more for each request, which
    RDMA or NVLink does in some hundredths: the first token comes later by as much.

    SGLang's prefill server says in each step how many requests wait for their cache to be sent (`#inflight-req`). Many of them, each for
    seconds, mean a slow way: TCP, one adapter for all GPUs, or sides with other numbers of tensor parallel ranks, between which the cache
    of a model without latent attention goes token by token.

    A server may come up without its store of KV caches, or without being found by its peers, which it says once, as it starts.

    LMCache hands the cache from each tensor parallel rank of prefill to the one of the same number in decode: an engine with more or
    fewer ranks than the other side may not even come up.

    It is a risk where a prefill server's NIXL connector listens on the loopback, where prefill and decode of a model have other
    connectors or types of the KV cache, and in a manifest where the two sides of one object
    serve different models: the KV cache of one means nothing to the other; and where UCX_TLS leaves out the transports by which UCX
    knows a GPU's memory (cuda_copy, cuda_ipc).

    ## Fix

    Look first whether the peer is alive. Set the side channel's host to the pod's address, use one image and one model on
    both sides, and test the transport with TCP (`UCX_TLS=tcp,cuda_copy`) before RDMA.

    ## References

    - https://docs.vllm.ai/en/latest/features/nixl_connector_usage/
    - https://docs.sglang.ai/advanced_features/pd_disaggregation.html
    """
    if logs is not None and (waited := _waits(pod, logs)):
        yield _never_came(pod, *waited)
    elif logs is not None and (engine := _unreachable(pod, subject)):
        yield from _never_fetched(engine, logs)
    elif logs is not None and (failed := _failed_elsewhere(pod, logs)):
        yield _given_up(pod, *failed)
    elif logs is not None:
        for server in subject.engines(pod):
            yield from _stopped.stopped(pod, server, logs)
            yield from _lmcache_ranks.unequal(pod, server, logs)
    if logs is not None:
        for server in subject.engines(pod):
            yield from _slow_transfers.slow(pod, server, logs)
            yield from _slow_transfers.piled_up(pod, server, logs)
    yield from _fetched_late(pod, subject, logs) if logs is not None else ()
    yield from _in_vain(pod, subject, logs) if logs is not None else ()
    yield from _computed_again.computed_again(pod, logs) if logs is not None else ()
    yield from _unpaired(pod, logs) if logs is not None else ()
    yield from other_layout(pod, list(subject.engines(pod)), logs) if logs is not None and pod.exists else ()
    yield from _died_with_its_peer(pod, logs) if logs is not None else ()
    yield from _came_up_without.came_up_without(pod, logs) if logs is not None else ()
    yield from _alone(pod, subject, logs) if logs is not None and pod.exists else ()
    yield from _without_cuda(pod, subject, logs)
    yield from _on_loopback(pod, subject)
    yield from unlike(pod, list(subject.engines(pod)))
    if pod is subject.pods[0] and not subject.exists:
        yield from _of_different_models(subject)


def _died_with_its_peer(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """An engine that crashed in native code as NIXL lost its connection to a peer, which is the last that it says."""
    for ended in endings(pod):
        log = log_of(ended, logs) if ended.signal in _CRASHES else None
        lost = [*log.matching(_PEER_LOST, _LOST)] if log is not None else []
        if log is None or not lost or any(log.find("Caught signal ", "Fatal Python error")):
            continue  # UCX's and Python's own words of it say where it was
        if not all(_OF_NIXL.match(x.text[:300]) for x in log.lines(lost[-1][0].number + 1)):
            continue
        line, said = lost[-1]
        yield Finding(
            summary=f"{ended.container.name} crashed in native code ({ended.signal}) when NIXL lost its connection to a peer "
            f"({said['why']}), which was restarted or is not reached any more.",
            evidence=(log_evidence(line), pod_evidence(pod, ended.path, ended.text)),
            explains=CRASHED,
            fix=fixes.advice(
                "Take an image with a later NIXL and UCX for prefill and decode; until then start both together whenever one was "
                "restarted",
                f"kubectl -n {shlex.quote(pod.namespace)} get pods -o wide",
            ),
            order=line.order,
        )


def _of_different_models(subject: Subject) -> Iterator[Finding]:
    """The two sides of a manifest with a model each: said once."""
    sides: dict[str, Engine] = {}
    for one in subject.pods:
        for engine in subject.engines(one):
            if engine.side and engine.explicit("model"):
                sides.setdefault(engine.side, engine)
    if set(sides) != {"prefill", "decode"}:
        return
    prefill, decode = sides["prefill"], sides["decode"]
    ours, theirs = decode.explicit("model"), prefill.explicit("model")
    if ours is None or theirs is None or _bare(ours.value) == _bare(theirs.value):
        return
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"The prefill side serves {theirs.value} and the decode side {ours.value}: "
        "the KV cache of one is of no use to the other.",
        evidence=(setting_evidence(prefill.container, theirs), setting_evidence(decode.container, ours)),
        fix=fixes.set_flag(prefill, "model", theirs.flag, str(ours.value), f"Serve {ours.value} on both sides"),
    )


def _without_cuda(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """A NIXL connector whose UCX may not use what knows the memory of an NVIDIA GPU, where it has not served so."""
    for engine in () if pod.ready else subject.engines(pod):
        container, config = engine.container, engine.explicit("kv_transfer_config")
        named = container.env.get(_TRANSPORTS)
        words = str(config.value) if config else ""
        if config is None or "NixlConnector" not in words or re.search(_NOT_BY_IT, words):
            continue
        if named is None or not named.value or not any("nvidia.com/" in name for name in container.accelerators):
            continue
        if for_other_hardware(container) or not engine.at_least(_REFUSES):
            continue  # charts ask for nvidia.com/gpu whatever the image is, unless told otherwise
        if named.value.startswith("^") or any(name in named.value for name in (*_OF_CUDA, "$(")):
            continue
        if any(served(log) for log in container.own_logs(logs)):
            continue
        yield Finding(
            role="risk",
            summary=f"{_TRANSPORTS}={named.value} in {container.name} names no transport that knows the GPU's memory, in which "
            "the NIXL connector registers the KV cache: it will not start.",
            evidence=(
                pod_evidence(container, "env", f"{_TRANSPORTS}: {named.value}"),
                setting_evidence(container, config),
            ),
            fix=fixes.set_env(
                container, _TRANSPORTS, f"{named.value},cuda_copy,cuda_ipc", f"Add CUDA's transports to {_TRANSPORTS}"
            ),
        )


def _alone(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """One side that takes the other for dead, of which no pod is ready."""
    for engine in subject.engines(pod):
        log, side = logs.current(engine.container.name), _OTHER_SIDE.get(engine.side)
        last = next(reversed(list(log.find(*_DEAD))), None) if log is not None and side else None
        if log is None or last is None or answered(log, after=last.number):
            continue
        peers = [one for one in pod.of_namespace if not one.leaving and any(e.side == side for e in engines_in(one))]
        if not peers or any(one.ready for one in peers):
            continue
        worst = min(peers, key=lambda one: not one.failing)
        state = worst.troubles[0].text if worst.troubles else "not ready"
        yield Finding(
            summary=f"{pod.name} has no {side} server that answers: none of {count_of(len(peers), 'pod')} is ready, and {worst.name} is "
            f"{state}.",
            evidence=(log_evidence(last), pod_evidence(worst, "status", state)),
            explains=("http-5xx", "queue-growing", "gateway-timeout"),
            fix=fixes.advice(f"Bring {worst.name} up", f"kubectl -n {pod.namespace} describe pod {worst.name}"),
            order=last.order,
            awaits=tuple(f"{one.namespace}/{one.name}" for one in peers),
        )


def _told(pod: Pod, logs: Logs, literal: str) -> list[Line]:
    """What a pod says of its requests: one that is ready has none any more of an instance that is gone."""
    return [line for line in logs.find(literal) if not (pod.ready and line.log.previous)]


def _by_request(lines: Iterable[Line], pattern: re.Pattern[str]) -> dict[str, Line]:
    """The last line that says something of a request, by what the pattern takes for its name."""
    return {said[1]: line for line in lines if (said := pattern.search(line.text[:2000]))}


def _unpaired(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """A server of SGLang's prefill or decode that refuses what it is sent: nobody paired the two for these requests."""
    for container in pod.containers:
        log = logs.current(container.name)
        said = (
            [(x, found) for x in log.find(_UNPAIRED) if (found := _WITHOUT_ROOM.search(x.text[:2000]))] if log else []
        )
        refused = len({found["request"] for _, found in said})
        if log is None or not refused or long_past([x for x, _ in said]):
            continue
        # one that asks past the router, or tries the server, is refused rightly
        others = refused == 1 or answered(log, after=said[0][0].number) > 0 or answered(log) >= _MANY * refused
        posts = (
            re.search(r'"POST (/\S{1,100})', x.text[:2000]) for x in log.find('"POST /') if x.number > said[0][0].number
        )
        asked = {found[1].partition("?")[0] for found in posts if found}
        if refused > 1 and asked and asked <= _ROOMLESS:
            yield _roomless(container, refused, min(asked), said[-1][0])
            return
        yield Finding(
            role="note" if others else "cause",
            summary=f"{container.name} refused {count_of(refused, 'request')} that came without a bootstrap room: "
            + (
                "a client asks this server itself, not the router of its prefill and decode servers."
                if others
                else "what sends them to this server does not pair prefill and decode as SGLang has it."
            ),
            evidence=(log_evidence(said[-1][0], _UNPAIRED),),
            fix=fixes.advice(
                "Send requests through a router that knows SGLang's prefill and decode servers, which puts the bootstrap host and room "
                "into each (sglang_router with --pd-disaggregation, llm-d's sidecar with --connector=sglang), not to these pods themselves"
            ),
            order=said[0][0].order,
        )
        return


def _roomless(container: Container, refused: int, path: str, line: Line) -> Finding:
    """That the requests which a server of SGLang's refuses are all of a path at which it loses their room."""
    return Finding(
        summary=f"{container.name} refused {count_of(refused, 'request')} without a bootstrap room, all asked at {path}: SGLang does not "
        "pass on there what its router puts into a request.",
        evidence=(log_evidence(line, _UNPAIRED),),
        fix=fixes.advice(
            f"Have clients ask the router at /v1/chat/completions, where SGLang passes the room on, in place of {path}, or take a release "
            "that does so there too"
        ),
        order=line.order,
    )


def _waits(pod: Pod, logs: Logs) -> tuple[str, Line, Line, float] | None:
    """The last request that waited for a cache which never came: its name, the first and the last line, the seconds between."""
    last = next(reversed(_told(pod, logs, _WAITS)), None)
    said = re.search(rf"(?<!\S)(\S{{1,200}}){_WAITS}", last.text) if last else None
    if (
        last is None
        or said is None
        or long_past([last])
        or any(line.text.rstrip().endswith(said[1]) for line in last.log.find(_CAME))
    ):
        return None
    first = next((line for line in last.log.find(_WAITS) if said[1] in line.text), last)
    seconds = seconds_between(first, last)
    return (said[1], first, last, seconds) if seconds is not None and seconds >= _NEVER_SECONDS else None


def _never_came(pod: Pod, request: str, first: Line, last: Line, seconds: float) -> Finding:
    return Finding(
        severity="warning",
        summary=f"Request {request} waited for {say_seconds(seconds)} or longer for a KV cache that another engine computed.",
        evidence=(log_evidence(first), log_evidence(last)),
        explains=("queue-growing", "gateway-timeout"),
        fix=fixes.advice(
            "Look whether prefill serves and is reached at the address that it gives for its side channel "
            "(VLLM_NIXL_SIDE_CHANNEL_HOST: the pod's own), and take a router or sidecar of vLLM's own release",
            *((f"kubectl -n {pod.namespace} get pods -o wide",) if pod.exists else ()),
        ),
        order=first.order,
    )


def _failed_elsewhere(pod: Pod, logs: Logs) -> tuple[int, Line, Line] | None:
    """How many requests were given up here that had failed in another pod, the last one's line, and that of the other pod."""
    given_up = _by_request(_told(pod, logs, _GIVEN_UP), _ABORTED)
    failed = pod.cluster.once("rooms that failed", lambda: _rooms(pod.cluster)) if given_up else {}
    both = [
        room
        for room, line in given_up.items()
        if room in failed and failed[room].log.pod != pod.name and not _later(failed[room], line)
    ]
    return (len(both), given_up[both[-1]], failed[both[-1]]) if both else None


def _later(failed: Line, given_up: Line) -> bool:
    """Whether a transfer failed only after it had been given up, since its client had gone: the other side waited in vain then."""
    seconds = seconds_between(given_up, failed)
    return seconds is not None and _SKEW < seconds < _A_DAY


def _rooms(cluster: Cluster) -> dict[str, Line]:
    """By which line each transfer failed, of all logs."""
    found: dict[str, Line] = {}
    for text in cluster.snapshot.logs:
        for line in Log(text).find(*_OF_A_ROOM) if text.pod else ():
            said = _FAILED_ROOM.search(line.text[:2000]) if _GIVEN_UP not in line.text else None
            if said is not None:
                found.setdefault(said[1], line)
    return found


def _given_up(pod: Pod, count: int, line: Line, failed: Line) -> Finding:
    # the exception stands at the end of its traceback, or in the line that gives the request up
    below = failed.log.lines(failed.number + 1, failed.number + 40)
    why = next((x for x in below if re.match(r"\w{1,80}(?:Error|Exception): ", x.text)), failed)
    return Finding(
        role="note" if pod.ready and answered(line.log) >= _MANY * count else "cause",
        severity="warning",
        summary=f"{count_of(count, 'request')} failed here since the KV cache could not be transferred: {failed.log.pod} says why.",
        evidence=(log_evidence(line), log_evidence(failed), *((log_evidence(why),) if why is not failed else ())),
        fix=fixes.advice(
            f"Look at what {failed.log.pod} says of its transfers, and give both sides one release and settings that fit together",
            *((f"kubectl -n {pod.namespace} logs {failed.log.pod} -c {failed.log.container}",) if pod.exists else ()),
        ),
        order=line.order,
    )


def _unreachable(pod: Pod, subject: Subject) -> Engine | None:
    """A vLLM that offers KV caches by NIXL to other pods, at an address that only its own pod reaches."""
    engines = subject.engines(pod)
    engine = engines[0] if len(engines) == 1 else None
    if engine is None or engine.name != "vllm" or pod.log_only or pod.spec.host_network:
        return None  # of two in one pod the other may be the peer
    container = engine.container
    host = container.env.get(_HOST)
    words = " ".join(container.spec.argv)
    set_here = host is not None and host.value not in _LOOPBACK
    # Dynamo's worker sets it by itself, a start script may
    if set_here or _HOST in words or "dynamo" in f"{container.spec.image} {words}" or container.spec.env_from:
        return None
    config = engine.explicit("kv_transfer_config")
    if config is None or config.source != "flag" or re.search(r"\.(?:sh|bash|py)\b", words):
        return None
    return engine if "NixlConnector" in str(config.value) else None


def _on_loopback(pod: Pod, subject: Subject) -> Iterator[Finding]:
    """A prefill server that will send decode to the loopback."""
    engine = None if pod.completed else _unreachable(pod, subject)
    if engine is None or engine.side != "prefill":
        return
    container, config = engine.container, engine.explicit("kv_transfer_config")
    host = container.env.get(_HOST)
    yield Finding(
        role="risk",
        summary=f"The side channel of NIXL in {container.name} listens on localhost, and decode in another pod is sent there: it meets "
        "itself, and no KV cache is transferred.",
        evidence=(
            pod_evidence(container, "env", f"{_HOST}: {host.value}" if host else f"{_HOST} is not set"),
            *((setting_evidence(container, config),) if config else ()),
        ),
        fix=fixes.set_variables(
            container,
            {_HOST: fixes.FromField("status.podIP")},
            f"Give {_HOST} the pod's own address, here and on the decode side",
        ),
    )


def _never_fetched(engine: Engine, logs: Logs) -> Iterator[Finding]:
    lines = _by_request(logs.find(_EXPIRED), _UNFETCHED)
    if len(lines) < _SEVERAL or any(logs.find(_LATE)):
        return  # who fetches late reaches it
    first, last = min(lines.values(), key=lambda line: line.number), max(lines.values(), key=lambda line: line.number)
    container, config = engine.container, engine.explicit("kv_transfer_config")
    host = container.env.get(_HOST)
    yield Finding(
        severity="warning",
        summary=f"The KV caches of {len(lines)} requests were fetched by nobody: the side channel of {engine.title} in "
        f"{container.name} listens on localhost, which decode in another pod does not reach.",
        evidence=(
            log_evidence(first),
            log_evidence(last),
            pod_evidence(container, "env", f"{_HOST}: {host.value}" if host else f"{_HOST} is not set"),
            *((setting_evidence(container, config),) if config else ()),
        ),
        explains=("queue-growing", "gateway-timeout"),
        fix=fixes.set_variables(
            container,
            {_HOST: fixes.FromField("status.podIP")},
            f"Give {_HOST} the pod's own address, here and on the decode side",
        ),
        order=first.order,
    )


def _in_vain(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """A prefill server whose caches decode fetches of hardly any request, though its side channel is not on the loopback."""
    for engine in subject.engines(pod) if _unreachable(pod, subject) is None else ():
        log = logs.current(engine.container.name)
        lines = _by_request(log.find(_EXPIRED), _UNFETCHED) if log else {}
        done = answered(log)
        if log is None or len(lines) < _SEVERAL or not done or 2 * len(lines) < done or any(log.find(_LATE)):
            continue  # those of a few clients that went away
        if long_past([*lines.values()]):
            continue
        first, last = min(lines.values(), key=lambda x: x.number), max(lines.values(), key=lambda x: x.number)
        yield Finding(
            severity="warning",
            summary=f"Nobody fetched the KV caches of {len(lines)} requests, of {done} that {engine.container.name} answered: decode does "
            "not get to this pod, or does not know that it should.",
            evidence=(log_evidence(first), log_evidence(last)),
            explains=("queue-growing", "gateway-timeout"),
            fixes=(
                *((theirs,) if (theirs := other_side(engine)) else ()),
                fixes.advice(
                    "See in decode's log whether it takes the caches from here: where it says nothing of them, have the router pass on all "
                    "of kv_transfer_params that this server answers with; where its handshake fails, let it reach this pod at the side "
                    "channel's port (VLLM_NIXL_SIDE_CHANNEL_PORT, 5600) and by the transfer's own network",
                    f"kubectl -n {shlex.quote(pod.namespace)} get pods -o wide",
                    f"kubectl -n {shlex.quote(pod.namespace)} get networkpolicies",
                ),
            ),
            order=first.order,
        )


def _fetched_late(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """KV caches that decode fetched when prefill had given their blocks away, which nothing but these two lines says."""
    expired = _by_request(_told(pod, logs, _EXPIRED), _UNFETCHED)
    late = _by_request(_told(pod, logs, _LATE), _FETCHED_LATE)
    both = [name for name, line in late.items() if name in expired and expired[name].order < line.order]
    if not both or long_past([late[name] for name in both]):
        return
    first, last = expired[both[0]], late[both[-1]]
    engine = next((e for e in subject.engines(pod) if e.container.name == last.log.container), None)
    kept = f"{_LEASE} in kv_connector_extra_config of --kv-transfer-config" if _LEASED in first.text else _KEPT
    # who was cancelled while decode had not fetched its cache yet is told of in the same words
    few, answers = len(both) < _SEVERAL, answered(last.log)
    yield Finding(
        role="note" if pod.ready and (answers >= _MANY * len(both) or (few and not answers)) else "cause",
        severity="warning",
        confidence="possible" if few else "likely",
        summary=f"Decode fetched the KV caches of {count_of(len(both), 'request')} after {last.log.container} had given their blocks away, "
        "since nobody had in time: these answers may be made of what belongs to other requests.",
        evidence=(log_evidence(first), log_evidence(last)),
        fix=fixes.advice(
            f"Have prefill keep the caches for longer than decode takes to fetch them: raise {kept} (seconds) in "
            f"{fixes.edited(engine.pod if engine else pod)}; and see why decode is so late, most of all its queue"
        ),
        order=first.order,
    )


def _bare(model: object) -> str:
    """A model's name without what differs between copies of it: the path, capitals."""
    return str(model).rstrip("/").rpartition("/")[2].lower()

"""KV caches that come from prefill to decode at the pace of TCP, or for which many requests wait whose prompt is read.

Sources: vLLM `kv_connector/v1/metrics.py` (every ten seconds with a transfer in them), `nixl/stats.py` and `mooncake/stats.py`: of several
ranks each transfer counts by itself, and the throughput is that of a rank. SGLang `scheduler_metrics_mixin.py` (`#inflight-req` of a
prefill server: those that are read, and of which the cache is on its way); `disaggregation/common/conn.py` and `mooncake/conn.py`: where
both sides have as many tensor parallel ranks, or the model's attention is latent, whole pages go, else a piece for each token and head.
"""

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    engines_in,
    expression,
    fixes,
    log_evidence,
    pod_evidence,
    say_seconds,
    seconds_between,
    written_ago,
)
from llmdoctor_checks.multi_gpu._layouts import beside
from llmdoctor_checks.multi_gpu._network import rdma_device

_STATED = "KV Transfer metrics: Num successful transfers="
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_SAID = expression(
    rf"KV Transfer metrics: Num successful transfers=(?P<count>\d{{1,9}}), .{{0,60}}?Avg xfer time \(ms\)=(?P<ms>{_NUMBER}), "
    rf".{{0,120}}?Avg MB per transfer=(?P<size>{_NUMBER}), Throughput \(MB/s\)=(?P<pace>{_NUMBER})"
)
#: What SGLang's prefill server states of a step, and of the requests whose cache it sends.
_UNDER_WAY = "#inflight-req: "
_STEP = expression(r"Prefill batch.{0,20}?#new-seq: (?P<new>\d{1,6}),.{0,300}?#inflight-req: (?P<sent>\d{1,6})")
#: All that is looked for here.
LITERALS = (_STATED, _UNDER_WAY)

#: So many statements in so many seconds, and so many requests in each of them of which each waits so long, at least.
_STEPS, _STEP_SECONDS, _MANY, _WAITS_SECONDS = 12, 60, 8, 5.0
#: A page of so many tokens goes in one piece.
_PAGE = 64
#: By latent attention each rank has the whole of the cache, so that the sides need not be alike.
_LATENT = expression(r"(?i)deepseek[-_]?(?:v[2-9]|r1|coder-v2)|kimi|glm-?5|longcat|mistral-large-3")

#: The last statements, and the fewest of them and of transfers in them that say how it is: the first ones set up connections.
_LATEST, _FEWEST, _TRANSFERS = 12, 5, 10
#: One rank's transfer over RDMA or NVLink is many times as fast; who waits for longer notices it, and a second is a lot.
_MB_A_SECOND, _NOTICED_MS, _LONG_MS = 1000.0, 500.0, 1000.0
#: Of how many seconds a statement is, and what a rank moves in one where many transfers side by side have a fast network to share: each
#: is slow then.
_STATED_SECONDS, _MB_TOGETHER = 10, 2000.0
#: What was said longer ago is over.
_LATELY = 3600

_TRANSPORTS = "UCX_TLS"
#: Transports of UCX that are RDMA or NVLink, by name (`rc_mlx5`, `dc_x`, with a backslash where a group of that name is not meant) or as
#: a group.
_FAST = expression(r"\\?(?:(?:rc|dc|ud|srd|gga)(?:_\w{1,20})?|ib|all|(?:cuda|rocm|ze)_ipc|cuda|rocm|ze|efa)")


class _Statement(msgspec.Struct, frozen=True):
    line: Line
    count: int
    milliseconds: float
    megabytes: float
    pace: float


def slow(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A vLLM whose every KV cache from the other side takes long, at a pace that no RDMA network has."""
    container = engine.container
    log = logs.current(container.name)
    if engine.name != "vllm" or log is None or not (pod.ready or pod.log_only):
        return
    said = [
        _Statement(line, int(x["count"]), float(x["ms"]), float(x["size"]), float(x["pace"]))
        for line, x in log.matching(_SAID, _STATED, most=2000)
        if int(x["count"])
    ][-_LATEST:]
    if len(said) < _FEWEST or sum(one.count for one in said) < _TRANSFERS:
        return
    if not all(one.pace < _MB_A_SECOND and one.milliseconds >= _NOTICED_MS for one in said):
        return
    if any(one.count * one.megabytes > _MB_TOGETHER * _STATED_SECONDS * (engine.workers or 1) for one in said):
        return
    last = said[-1]
    if (written_ago(last.line, pod.cluster.now) or 0) > _LATELY:
        return
    from statistics import median  # 3 ms, and few transfers are slow

    took, pace = median(one.milliseconds for one in said), median(one.pace for one in said)
    named = container.env.get(_TRANSPORTS)
    yield Finding(
        role="cause" if took >= _LONG_MS else "risk",
        severity="warning",
        summary=f"Each KV cache that {container.name} fetches takes {took / 1000:.1f} s ({median(one.megabytes for one in said):.0f} MB at "
        f"{pace:.0f} MB/s), for which its request waits: that is the pace of TCP, not of RDMA or NVLink.",
        evidence=(
            log_evidence(last.line),
            *((pod_evidence(container, f"env[{_TRANSPORTS}]", f"{_TRANSPORTS}={named.value}"),) if named else ()),
        ),
        explains=("queue-growing", "gateway-timeout"),
        fixes=tuple(_fixes(pod, engine)),
        order=last.line.order,
    )


def piled_up(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A prefill server of SGLang whose requests are read, and then wait long for their cache to be sent.

    By Little's law each waits as long as those that are on their way, divided by how many are read in a second.
    """
    log = logs.current(engine.container.name)
    if engine.name != "sglang" or log is None or not (pod.ready or pod.log_only):
        return
    said = [*log.matching(_STEP, _UNDER_WAY, most=4000)]
    said = [one for one in said if "TP" not in one[0].text[:60] or " TP0" in one[0].text[:60]][-4 * _STEPS :]
    if len(said) < _STEPS or (written_ago(said[-1][0], pod.cluster.now) or 0) > _LATELY:
        return
    seconds = seconds_between(said[0][0], said[-1][0]) or 0
    sent, read = [int(one["sent"]) for _, one in said], sum(int(one["new"]) for _, one in said[1:])
    if seconds < _STEP_SECONDS or min(sent) < _MANY or not read or sent[-1] < sent[0] / 2:
        return
    waits = sum(sent) / len(sent) * seconds / read
    if waits < _WAITS_SECONDS:
        return
    yield Finding(
        severity="warning",
        confidence="likely",
        summary=f"{sent[-1]} requests whose prompt {engine.container.name} has read wait for their KV cache to be sent to the decode "
        f"side, each for about {say_seconds(waits)}: it reads prompts faster than it sends what it made of them.",
        evidence=(log_evidence(said[0][0], _UNDER_WAY), log_evidence(said[-1][0], _UNDER_WAY)),
        explains=("queue-growing", "gateway-timeout"),
        fixes=tuple(_as_fast(pod, engine)),
        order=said[-1][0].order,
    )


def _as_fast(pod: Pod, engine: Engine) -> Iterator[Fix]:
    """As many ranks on both sides, where they are not alike; RDMA otherwise."""
    peers = [
        peer
        for other in pod.of_namespace
        if not other.leaving
        for peer in engines_in(other)
        if peer.name == engine.name and peer.side == "decode" and peer.value("model") == engine.value("model")
    ]
    ranks = engine.value("tensor_parallel_size", 1)
    apart = next((peer for peer in peers if peer.value("tensor_parallel_size", 1) != ranks), None)
    # with attention divided by data each rank has another number of heads
    plain = all(one.value("data_parallel_size", 1) == 1 for one in (engine, *peers))
    if apart is not None and plain and not _LATENT.search(str(engine.value("model"))):
        theirs = apart.value("tensor_parallel_size", 1)
        yield fixes.advice(
            f"Give prefill and decode as many tensor parallel ranks (--tp-size: {ranks} in {fixes.edited(pod)}, {theirs} in "
            f"{fixes.edited(apart.container.pod)}): between unlike ones a cache goes token by token"
        )
    asked = fixes.request_rdma(
        engine.container, "Give {container} the RDMA devices of its nodes ({rdma}), on both sides"
    )
    if not rdma_device(pod) and asked is not None:
        yield asked
    by_rdma, pages = engine.explicit("disaggregation_ib_device") is not None, engine.explicit("page_size")
    faster = fixes.advice(
        f"Have the caches go by RDMA: --disaggregation-ib-device naming the adapters beside the GPUs, on both sides ({fixes.edited(pod)}); "
        "where they do, add decode servers or adapters"
    )
    if not by_rdma:
        yield faster
    # a page of one token, the default of most models, lies beside no other after a while, and goes by itself
    if pages is None or pages.value == 1:
        where = " and ".join(dict.fromkeys(fixes.edited(one) for one in (pod, *(peer.container.pod for peer in peers))))
        yield fixes.advice(f"Send larger pieces: --page-size {_PAGE} on both sides, in {where}")
    if by_rdma:
        yield faster


def _fixes(pod: Pod, engine: Engine) -> Iterator[Fix]:
    container = engine.container
    named = container.env.get(_TRANSPORTS)
    words = (named.value or "").lower() if named else ""
    if words and not words.startswith("^") and not any(map(_FAST.fullmatch, words.replace(",", " ").split())):
        yield fixes.remove_env(
            container,
            _TRANSPORTS,
            f"Let UCX take what is there: {_TRANSPORTS}={words} leaves it no RDMA and no NVLink; on both sides",
        )
    elif not rdma_device(pod) and (
        asked := fixes.request_rdma(container, "Give {container} the RDMA devices of its nodes ({rdma}), on both sides")
    ):
        yield asked
    elif not rdma_device(pod) and (others := beside(pod, engine)):
        where = " and ".join(dict.fromkeys(fixes.edited(one) for one in (others[0].container.pod, pod)))
        yield fixes.advice(
            'Have the prefill side send ("kv_connector": "NixlPushConnector" in --kv-transfer-config of '
            f"{where}, where the release has it): both are on {pod.spec.node_name}, and without RDMA UCX goes from GPU to GPU there "
            "(cuda_ipc) when it writes, and over TCP when the decode side reads, as NixlConnector does"
        )
    else:
        yield fixes.advice(
            "Have UCX go over RDMA between nodes: the devices in both pods (a resource of the nodes, IPC_LOCK), UCX_NET_DEVICES naming "
            f"the right ones, UCX_TLS naming them or not set, in {fixes.edited(pod)}; without RDMA on one node, NixlPushConnector in "
            "place of NixlConnector, where this release has it, for UCX reads over NVLink only when it sends"
        )

"""How the load of an engine stands over time, by its metrics, and how many replicas it takes.

The number of replicas follows from Little's law, L = λ W: what arrives in a second times how long one request is in
service is how many are in service at once; divided by how many one replica has in service it is the number of replicas.
One replica that is full serves as many requests in a second as it finishes, so W is what it has in service by what it
finishes in a second.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from kubectl_llmdoctor.api import Engine, Evidence, Fix, Item, Metrics, Pod, Span, count_of, dig, fixes, pickers_of
from llmdoctor_checks._scalers import scalers_of

#: What lasts so long is no burst and no warm-up.
SUSTAINED_SECONDS = 600

#: The share of points in which something must hold to be called lasting.
_MOSTLY = 0.9

#: A queue whose last third is shorter than its first by this factor is being worked off.
_DRAINS = 0.75

#: The queue grows where its last third is longer than its first by this factor.
_GROWS = 1.5

#: Who computes nothing for so long stands still: the prefill of the longest prompts takes less.
_STILL_SECONDS = 300

#: Fewer points say nothing of how something went.
_FEWEST_POINTS = 3


class Load(msgspec.Struct, frozen=True):
    """The queue, the requests in service, and the KV cache (0 to 1) as far as it is exported, of the same window."""

    waiting: Span
    running: Span
    cache: Span | None

    @property
    def recent(self) -> Load:
        """The end of it, as long as what is called lasting."""
        cache = self.cache.tail(SUSTAINED_SECONDS) if self.cache else None
        return Load(self.waiting.tail(SUSTAINED_SECONDS), self.running.tail(SUSTAINED_SECONDS), cache)

    @property
    def queues(self) -> bool:
        """Whether somebody has waited all through the end of the window."""
        return self.recent.waiting.share(lambda n: n >= 1) >= _MOSTLY and self.waiting.last >= 1

    @property
    def drains(self) -> bool:
        """Whether the queue is being worked off: a batch that was handed in at once, whenever that was."""
        spans = (self.waiting.tail(n * SUSTAINED_SECONDS) for n in (1, 2, 3, 6))
        return any(span.third(2) < _DRAINS * span.third(0) for span in spans)

    @property
    def grows(self) -> bool:
        """Whether the queue is longer at the end of the window than at its beginning, and still growing."""
        whole, recent = self.waiting, self.recent.waiting
        return whole.third(2) >= _GROWS * whole.third(0) and whole.slope > 0 and recent.third(2) >= recent.third(0)

    def full(self, share: float) -> bool:
        """Whether the cache has been so full all through the end of the window."""
        cache = self.recent.cache
        return cache is not None and cache.share(lambda n: n >= share) >= _MOSTLY


def load_of(metrics: Metrics | None) -> Load | None:
    """The load over a window that is long enough to judge; None where it is not, or not exported."""
    waiting, running = (metrics.span(name) if metrics else None for name in ("waiting", "running"))
    if metrics is None or waiting is None or running is None or waiting.seconds < SUSTAINED_SECONDS:
        return None
    if len(waiting.tail(SUSTAINED_SECONDS).points) < _FEWEST_POINTS:
        return None
    cache = metrics.cache
    return Load(waiting, running, cache if cache and cache.seconds >= SUSTAINED_SECONDS else None)


def stands_still(engine: Engine, metrics: Metrics) -> bool:
    """Whether vLLM, which counts tokens with each step, has counted none for minutes: what waits, then waits for that to end."""
    made, read = (metrics.rates(name) for name in ("generation_tokens", "prompt_tokens"))
    if engine.name != "vllm" or made is None or read is None:
        return False
    return not any(value for span in (made, read) for value in span.tail(_STILL_SECONDS).values)


class Need(msgspec.Struct, frozen=True):
    """How many replicas the load takes, with what it was computed from."""

    replicas: int
    now: int
    #: requests in a second that arrive at all replicas together, and that a full one finishes
    arriving: float
    finishing: float
    #: what a full replica has in service, and for how long each
    in_service: float
    seconds: float

    @property
    def text(self) -> str:
        """The computation in words."""
        many = self.arriving * self.seconds
        return (
            f"{self.arriving:.2g} requests a second arrive and each is in service for {self.seconds:.0f} s, which makes "
            f"{many:.0f} at once; a replica has {self.in_service:.0f}"
        )


def need_of(metrics: Metrics, load: Load) -> Need | None:
    """The replicas that take what arrives now, at least one more than there are; None where too little is exported.

    What already waits comes on top.
    """
    rates = [_rates(one) for one in (metrics, *metrics.peers)]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates) or known[0][1] <= 0:
        return None  # how much arrives there is not known
    arriving, finishing = sum(arrives for arrives, _ in known), max(finishes for _, finishes in known)
    now, in_service = 1 + len(metrics.peers), load.recent.running.mean
    if not in_service:
        return None
    replicas = max(math.ceil(arriving / finishing), now + 1)
    return Need(replicas, now, arriving, finishing, in_service, in_service / finishing)


def _rates(metrics: Metrics) -> tuple[float, float] | None:
    """The requests in a second that arrive at a replica and that it finishes.

    Where the arrivals are not counted they are what was finished and what the queue grew by.
    """
    finished, arrived, queue = metrics.increase("finished"), metrics.increase("arrived"), metrics.span("waiting")
    if finished is None or finished.lifetime or queue is None:
        return None
    counted = arrived.rate if arrived is not None and not arrived.lifetime else 0.0
    return counted or finished.rate + max(queue.slope, 0.0), finished.rate


def spread_fix(pod: Pod) -> Fix:
    """What to do where one replica has the load and another none."""
    for pool in pod.pools[:1]:
        named = ", ".join(dict.fromkeys(pickers_of(pool).values()))
        return fixes.advice(
            f"Have the endpoint picker of InferencePool {pool.name}{f' ({named})' if named else ''} spread the requests: in its "
            "EndpointPickerConfig a weight for queue-scorer beside that of prefix-cache-scorer, and weighted-random-picker in place of "
            "max-score-picker, which sends a burst to one pod. Who asks the pods past it (a Service) is not spread by it"
        )
    return fixes.advice(
        f"Spread the requests over the replicas of {fixes.edited(pod)}: clients that keep one connection (HTTP/2, gRPC, "
        "keep-alive) stay with one pod behind a Service; balance each request, by queue length"
    )


#: Kinds with a plain number of replicas, which nothing else sets but for what scales them (KEDA's before the one that it makes, and the
#: field of its maximum); and those with one in another place, by their API group.
_PLAIN = ("Deployment", "StatefulSet", "LeaderWorkerSet")
_SCALERS = (("ScaledObject", "maxReplicaCount"), ("HorizontalPodAutoscaler", "maxReplicas"))
_OF_OPERATORS = {
    ("serving.kserve.io", "LLMInferenceService"): "/spec/replicas",
    ("workload.serving.volcano.sh", "ModelServing"): "/spec/replicas",
    ("inference.llmkube.dev", "InferenceService"): "/spec/replicas",
    ("serving.kserve.io", "InferenceService"): "/spec/predictor/minReplicas",
}
#: What says in such an object that somebody else sets the number.
_SET_BY_OTHERS = ("spec.scaling", "spec.autoscaling", "autoscaling", "scalingAdapter")

#: More replicas than so many times as many are asked for by no single look: a queue may be a burst.
_MOST_TIMES = 4


def more_replicas(pod: Pod, times: float, why: str, more: str = "") -> Fix:
    """So many times the replicas of what a person edits, as far as one step goes; where an autoscaler has them, its maximum."""
    chain = [*pod.cluster.chain(pod.item)] if pod.item is not None else []
    top = chain[-1] if chain else None
    in_groups = any(one.kind == "LeaderWorkerSet" for one in chain)
    gpus = pod.gpu_container.gpus if pod.gpu_container is not None else 0
    gpus *= (pod.nodes or 1) if in_groups else 1
    each = f" (each has {count_of(gpus, 'GPU')})" if gpus else ""
    if times > _MOST_TIMES:
        times, why = _MOST_TIMES, "what waits then says whether more are needed"
    why += more
    at = place_of_replicas(pod, top) if top is not None else ""
    if top is None or not at or fixes.maker(top):
        return fixes.advice(f"Run {math.ceil(times)} times as many replicas of {fixes.edited(pod)}{each}: {why}")
    told = dig(top.raw, at.strip("/").replace("/", "."))
    counted = [one for one in chain if one.kind in _PLAIN and not (in_groups and one.kind == "StatefulSet")]
    below = [dig(one.raw, path) for one in counted for path in _COUNTS]
    now = max([1, *(count for count in (told, *below) if isinstance(count, int))])
    wanted = max(now + 1, math.ceil(now * times))
    if found := _scaler_of(pod, [*counted, top], chain):
        return _scaled_further(*found, now, wanted, f"{each}: {why}")
    whose = f"{pod.template.part} in " if pod.template and at.startswith("/spec/services/") else ""
    summary = f"Run {wanted} replicas of {whose}{top.kind}/{top.name} instead of {now}{each}: {why}"
    return with_replicas(top, at, wanted, summary)


def _scaler_of(pod: Pod, scaled: list[Item], chain: list[Item]) -> tuple[Item, str] | None:
    """The autoscaler that has the replicas of one of these, and its field for the most of them.

    What an operator makes of its object has the bounds that this one says.
    """
    names, owners = {(one.kind, one.name) for one in scaled}, {f"{one.kind}/{one.name}" for one in chain}
    for kind, field in _SCALERS:
        for scaler in scalers_of(kind, pod.namespace, names, pod.cluster):
            if fixes.maker(scaler) not in owners:
                return scaler, field
    return None


def _scaled_further(scaler: Item, field: str, now: int, wanted: int, why: str) -> Fix:
    """More replicas where an autoscaler has them: a higher maximum, if that is what keeps them few."""
    most, made_of = dig(scaler.raw, f"spec.{field}"), fixes.maker(scaler)
    where = made_of or f"{scaler.kind}/{scaler.name}"
    if not isinstance(most, int) or most >= wanted or made_of:
        return fixes.advice(
            f"Have {where} scale on waiting requests, so that it runs {wanted} replicas instead of {now}{why}"
        )
    operations = [{"op": "add", "path": f"/spec/{field}", "value": wanted}]
    return fixes.patch_object(scaler, f"Raise {field} of {where} from {most} to {wanted}{why}", operations)


def with_replicas(top: Item, at: str, wanted: int, summary: str) -> Fix:
    """So many replicas, where an object says how many there are, and no fewer as its maximum."""
    operations = [{"op": "add", "path": at, "value": wanted}]
    most = dig(top.raw, "spec.predictor.maxReplicas") if at.endswith("/minReplicas") else None
    if isinstance(most, int) and 0 < most < wanted:
        operations.append({"op": "add", "path": "/spec/predictor/maxReplicas", "value": wanted})
    return fixes.patch_object(top, summary, operations)


_COUNTS = ("spec.replicas", "status.replicas", "status.readyReplicas")


def place_of_replicas(pod: Pod, top: Item) -> str:
    """Where what a person edits says how many replicas there are of what the pod is one of; empty where it does not, or others set it."""
    if top.kind in _PLAIN:
        return "/spec/replicas"
    group, part = top.api_version.rpartition("/")[0], pod.template.part if pod.template else ""
    if (group, top.kind) == ("nvidia.com", "DynamoGraphDeployment"):
        service = dig(top.raw, f"spec.services.{part}") if re.fullmatch(r"[\w-]{1,63}", part) else None
        free = isinstance(service, dict) and not _set_by_others(service)
        return f"/spec/services/{part}/replicas" if free else ""
    of_prefill = top.kind == "LLMInferenceService" and part.startswith("prefill")
    if _set_by_others({"spec": dig(top.raw, "spec.prefill")} if of_prefill else top.raw):
        return ""
    return "/spec/prefill/replicas" if of_prefill else _OF_OPERATORS.get((group, top.kind), "")


def _set_by_others(tree: Any) -> bool:
    """Whether an object, or a part of one, says that somebody else sets the number of replicas."""
    return any((told := dig(tree, name)) and dig(told, "enabled") is not False for name in _SET_BY_OTHERS)


def engines_fix(pod: Pod) -> Fix:
    """What to do where one of a server's data parallel engines has the load and another none."""
    return fixes.advice(
        f"Start {'the server' if pod.log_only else pod.name} again, so that its requests are spread over all its engines "
        "again; where it comes back, run each engine as a pod of its own behind a router that balances by queue length, or "
        "try another release"
    )


class Peer(msgspec.Struct, frozen=True):
    """Who has hardly anything to do meanwhile, what it runs, and how the load is spread."""

    name: str
    running: Span
    fix: Fix


def idle_peer(metrics: Metrics, load: Load) -> Peer | None:
    """Another engine of the same server, or another replica, that has hardly anything to do meanwhile."""
    waiting, running = metrics.spans("waiting", "engine"), metrics.spans("running", "engine")
    busiest = max((span.tail(SUSTAINED_SECONDS).mean for span in running.values()), default=0.0)
    for engine in sorted((waiting.keys() & running.keys()) - {""}, key=lambda one: (running[one].last, one)):
        if busy := _idle(waiting[engine], running[engine], busiest):
            name = f"engine {engine} of the same server"
            return Peer(name, _named(busy, f"engine {engine}"), engines_fix(metrics.pod))
    for peer in metrics.peers:
        queue, runs = peer.span("waiting"), peer.span("running")
        if queue and runs and (busy := _idle(queue, runs, load.recent.running.mean)):
            return Peer(peer.pod.name, _named(busy, peer.pod.name), spread_fix(metrics.pod))
    return None


def _idle(waiting: Span, running: Span, busiest: float) -> Span | None:
    """What one ran of late, where it had no queue and ran less than half of what the busiest did."""
    if running.seconds < SUSTAINED_SECONDS:
        return None
    queue, busy = waiting.tail(SUSTAINED_SECONDS), running.tail(SUSTAINED_SECONDS)
    return busy if max(queue.values) < 1 and max(busy.values) < busiest / 2 else None


def _named(span: Span, who: str) -> Span:
    return msgspec.structs.replace(span, metric=f"{span.metric} of {who}")


def limit_of(engine: Engine, load: Load) -> int | None:
    """The limit of requests at once that the engine stands at, where its cache has room for more; None elsewhere."""
    limit, cache = engine.value("max_num_seqs"), load.recent.cache
    if not isinstance(limit, int) or limit < 1 or cache is None:
        return None
    stands = load.recent.running.share(lambda n: n >= 0.95 * limit) >= _MOSTLY
    return limit if stands and max(cache.values) < 0.7 else None


def evidence(load: Load) -> tuple[Evidence, ...]:
    """The quotations."""
    cache = (load.cache.evidence(lambda n: f"{n:.0%}"),) if load.cache else ()
    return (load.waiting.evidence(), load.running.evidence(), *cache)

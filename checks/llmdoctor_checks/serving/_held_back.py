"""Requests that a proxy in the server's own pod refuses, while the engine would take many more at once: Knative's containerConcurrency."""

from __future__ import annotations

from kubectl_llmdoctor.api import (
    KNATIVE_REVISION,
    Cluster,
    Container,
    Engine,
    Finding,
    Fix,
    Logs,
    Pod,
    count_of,
    current_logs,
    fixes,
    log_evidence,
    pod_evidence,
)
from llmdoctor_checks._clients import refused
from llmdoctor_checks._load import last_load, lasts, works
from llmdoctor_checks.symptoms._by_gateways import refused_behind

#: Knative's proxy, and by what it is told how many requests it lets through at once (0 is no limit). It keeps ten times as many, and
#: answers all others with 503 (its pkg/queue/breaker.go: "pending request queue full").
_PROXY, _LETS = "queue-proxy", "CONTAINER_CONCURRENCY"

FULL = "pending request queue full"
#: Fewer lines are a moment's.
_FEWEST = 3

#: Engines that compute many requests at once, and what of it is few.
_BATCHES, _FEW = frozenset({"vllm", "sglang", "tgi", "lmdeploy", "tensorrt-llm", "nim"}), 16


def _let_through(proxy: Container | None) -> int:
    """How many requests at once Knative's proxy lets through; 0 where it is not told."""
    told = next((x for x in proxy.spec.env if x.name == _LETS), None) if proxy is not None else None
    return int(str(told.value)) if told is not None and str(told.value).isdecimal() else 0


def held_back(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """An engine that runs as many requests as its proxy lets through, all the while, and a gateway that is told 503 for others."""
    proxy = pod.container(_PROXY)
    limit = _let_through(proxy)
    said = last_load(engine.container, logs)
    if proxy is None or logs is None or not 0 < limit <= _FEW or engine.name not in _BATCHES or not lasts(said):
        return None
    if not works(pod, said) or any(load.running != limit or load.waiting for load in said):
        return None
    most = engine.value("max_num_seqs")
    if isinstance(most, int) and most <= limit:
        return None
    own = refused(logs.current(engine.container.name), "503")[0]
    lines, among = refused_behind(pod, cluster)
    if own or not lines:
        return None
    return Finding(
        summary=f"{_PROXY} lets {count_of(limit, 'request')} through to {engine.container.name} at once ({_LETS}), which runs {limit} all "
        f"the while and has room for many more: {lines[-1].log.pod} was answered 503 for {len(lines)} of its last "
        f"{count_of(among, 'request')} to this pod.",
        evidence=(pod_evidence(proxy, "env", f"{_LETS}={limit}"), log_evidence(lines[-1]), log_evidence(said[-1].line)),
        explains=("http-5xx",),
        fix=_more(pod, engine),
    )


def queue_full(pod: Pod, engine: Engine, cluster: Cluster) -> Finding | None:
    """The same by what Knative says of the requests that it answers with 503: its proxy in the pod, or its activator of the revision."""
    proxy, revision = pod.container(_PROXY), pod.labels.get(KNATIVE_REVISION)
    limit = _let_through(proxy)
    if proxy is None or not 0 < limit <= _FEW or engine.name not in _BATCHES or not revision:
        return None
    own = (pod.name, _PROXY)
    lines = [
        line
        for log in current_logs(cluster)
        for line in log.find(FULL)
        if (log.pod, log.container) == own or f'"{pod.namespace}/{revision}"' in line.text
    ]
    if len(lines) < _FEWEST:
        return None
    return Finding(
        summary=f"{lines[-1].log.container} refused {count_of(len(lines), 'request')} to this pod (503), as {_PROXY} lets "
        f"{count_of(limit, 'request')} through to {engine.container.name} at once ({_LETS}), which has room for many more.",
        evidence=(pod_evidence(proxy, "env", f"{_LETS}={limit}"), log_evidence(lines[-1])),
        explains=("http-5xx",),
        fix=_more(pod, engine),
    )


def _more(pod: Pod, engine: Engine) -> Fix:
    """As many requests as the engine runs at once, or without a limit where nobody knows how many those are."""
    most = engine.value("max_num_seqs")
    known = isinstance(most, int) and most > 0
    why = f"{most}, as many as {engine.title} runs at once" if known else "0, which is no limit"
    summary = f"Set containerConcurrency to {why}, and scale on concurrency with the annotation autoscaling.knative.dev/target"
    return fixes.set_spec(pod, "/containerConcurrency", most if known else 0, summary)

"""An endpoint picker that weighs its servers by a metric which they do not emit, or is refused their metrics.

Sources: gateway-api-inference-extension `pkg/epp/server/options.go` (up to 1.1 `vllm:gpu_cache_usage_perc` by itself) and
`cmd/epp/runner/runner.go`, which logs the flags as they are; before 1.0 their names were in camel case. A server that refuses the scrape:
`pkg/epp/backend/metrics/metrics.go`, in llm-d's router `datalayer/source/http/client.go`, which names a rank of the pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Log,
    Logs,
    Pod,
    engines_in,
    fixes,
    log_evidence,
    pod_evidence,
)
from llmdoctor_checks._services import target_ports
from llmdoctor_checks.serving._autoscaling import absent, alike

#: What a picker prints of its flags when it starts.
FLAGS = '"msg":"Flags processed"'
_METRIC = (
    r"(?P<flag>kv-cache-usage-percentage-metric|kvCacheUsagePercentageMetric)[\"']?[=:]\s?[\"']?(?P<name>[\w:]{3,100})"
)
_POOL = r"\bpool-?[Nn]ame[\"']?[=: ]\s?[\"']?(?P<name>[a-z0-9][a-z0-9.-]{0,252})"


#: What a picker prints where a server answers its scrape with another status than 200.
SCRAPES = "unexpected status code from "
_SCRAPED = (
    SCRAPES
    + r"(?P<namespace>[a-z0-9-]{1,63})/(?P<pod>[a-z0-9][a-z0-9.-]{0,252}?)(?:-rank-\d{1,4})?: (?P<code>40[0-9])\b"
)


def refused_picker(engine: Engine, off: Fix | None) -> Finding | None:
    """A picker that asks for metrics where a server has none: they are `off`, or another container listens at the pool's port."""
    pod, port = engine.pod, engine.value("port")
    lines = pod.cluster.once(
        SCRAPES, lambda: [x for text in pod.cluster.snapshot.logs for x in Log(text).find(SCRAPES)]
    )
    mine = ((line, re.search(_SCRAPED, line.text[:4000])) for line in lines)
    found = next(((x, m) for x, m in mine if m and (m["namespace"], m["pod"]) == (pod.namespace, pod.name)), None)
    asked = sorted({number for pool in pod.pools for number in target_ports(pool)})
    beside = next((c for c in pod.containers if c is not engine.container and c.declared_ports & {*asked}), None)
    if (
        found is None
        or not pod.ready
        or not isinstance(port, int)
        or (off is None and (beside is None or port in asked))
    ):
        return None
    line, said = found
    where = (
        f"{beside.name} listens at the pool's port {asked[0]}, and has none"
        if beside and port not in asked
        else "they are not on"
    )
    return Finding(
        severity="warning",
        summary=f"{line.log.pod} is refused the metrics of {pod.name} ({said['code']}): {where}. It takes each server for idle, and its "
        "cache for empty.",
        evidence=(log_evidence(line, SCRAPES), *((pod_evidence(beside, "ports", str(asked[0])),) if beside else ())),
        fix=off
        if off is not None and (beside is None or port in asked)
        else fixes.advice(
            f"Let the picker scrape {engine.title} at its own port {port}: parameters port: {port} of metrics-data-source in the "
            f"EndpointPickerConfig of {line.log.pod} (llm-d's router from 2026-08 on); the pool keeps its port. Or have "
            f"{beside.name if beside else 'what stands before it'} pass /metrics on"
        ),
        order=line.order,
    )


def blind_picker(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The picker of a pool whose servers have another name for how full their cache is, by their release."""
    for container in pod.containers if pod.ready else ():
        for text, evidence in _told(container, logs):
            asked, named = re.search(_METRIC, text), re.search(_POOL, text)
            for engine in _servers(pod, cluster, named["name"]) if asked and named else ():
                gone = absent(engine, asked["name"]) if asked else None
                if asked and gone and alike(*gone) and not _exposed(engine, gone[0]):
                    yield _finding(pod, container, engine, asked, gone, evidence)
                    return


def _told(container: Container, logs: Logs | None) -> Iterator[tuple[str, Evidence]]:
    words = " ".join(container.spec.argv)[:8000]
    yield words, pod_evidence(container, "args", words[:200])
    log = container.own_log(logs)
    for line in log.find(FLAGS) if log is not None else ():
        yield line.text[:8000], log_evidence(line, "-metric")


def _servers(pod: Pod, cluster: Cluster, name: str) -> Iterator[Engine]:
    pool = cluster.item("InferencePool", pod.namespace, name)
    for item in cluster.items("Pod", pod.namespace) if pool is not None else ():
        other = Pod.of(item, cluster)
        if other.ready and pool in other.pools:
            yield from engines_in(other)


def _finding(
    pod: Pod, container: Container, engine: Engine, asked: re.Match[str], gone: tuple[str, str], evidence: Evidence
) -> Finding:
    exposed = _exposed(engine, gone[1])
    return Finding(
        # who has seen what the server emits knows that the picker gets nothing
        role="cause" if exposed else "risk",
        severity="warning",
        summary=f"{container.name} of {pod.name} goes by {gone[0]}, and {engine.label} in {engine.container.pod.name} emits {gone[1]} "
        "instead: it takes the KV cache of each server for empty.",
        evidence=(evidence, exposed or pod_evidence(engine.container, "image", engine.container.spec.image)),
        fix=_renamed(pod, container, asked["flag"], gone),
    )


def _exposed(engine: Engine, name: str) -> Evidence | None:
    """That the metrics which were read of a server have one of this name."""
    pod = engine.container.pod
    for read in pod.cluster.snapshot.metrics:
        if (read.namespace, read.pod) == (pod.namespace, pod.name) and re.search(
            rf"^{re.escape(name)}\b", read.text, re.MULTILINE
        ):
            return Evidence(source="metric", ref=f"{pod.namespace}/{pod.name}", text=name)
    return None


def _renamed(pod: Pod, container: Container, flag: str, gone: tuple[str, str]) -> Fix:
    """The flag with the new name, in place of the word that has the old one, or behind the others."""
    summary, option = f"Let {container.name} go by {gone[1]}", f"--{flag}={gone[1]}"
    args = container.spec.args
    at = next((n for n, word in enumerate(args) if str(word).lstrip("-").startswith(f"{flag}=")), None)
    if at is None and any(flag in str(word) for word in container.spec.argv):
        return fixes.advice(f"{summary}: {option} in {fixes.edited(pod)}")
    path, op = (
        (f"{container.pointer}/args/{at}", "replace") if at is not None else (f"{container.pointer}/args/-", "add")
    )
    return fixes.patch(pod, f"{summary}: {option}", [{"op": op, "path": path, "value": option}])

"""An endpoint picker that weighs its servers by a metric which they do not emit.

Sources: gateway-api-inference-extension `pkg/epp/server/options.go` (up to 1.1 `vllm:gpu_cache_usage_perc` by itself) and
`cmd/epp/runner/runner.go`, which logs the flags as they are; before 1.0 their names were in camel case.
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
    Logs,
    Pod,
    engines_in,
    fixes,
    log_evidence,
    pod_evidence,
)
from llmdoctor_checks.serving._autoscaling import absent, alike

#: What a picker prints of its flags when it starts.
FLAGS = '"msg":"Flags processed"'
_METRIC = (
    r"(?P<flag>kv-cache-usage-percentage-metric|kvCacheUsagePercentageMetric)[\"']?[=:]\s?[\"']?(?P<name>[\w:]{3,100})"
)
_POOL = r"\bpool-?[Nn]ame[\"']?[=: ]\s?[\"']?(?P<name>[a-z0-9][a-z0-9.-]{0,252})"


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
    log = logs.current(container.name) if logs is not None else None
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

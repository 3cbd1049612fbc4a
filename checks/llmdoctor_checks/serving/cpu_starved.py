"""Too little CPU to feed the GPUs."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Container, Engine, Evidence, Finding, Fix, Pod, check, fixes, pod_evidence, say_cores
from llmdoctor_checks.serving._processes import busy

#: A container that waited for its CPU quota in more than this share of periods is starved.
_THROTTLED = 0.25


@check("cpu-starved", since="0.1", severity="warning")
def cpu_starved(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """Too little CPU for the API server, the tokenizer and the GPU workers.

    HTTP, tokenizing, scheduling and each GPU worker's own loop run on the CPU. vLLM with tensor parallelism keeps one
    busy process per GPU besides the engine core and the API server, SGLang one per GPU besides the process that
    tokenizes. With fewer cores than busy processes they wait for each other, and the GPU waits for them: latency grows
    while GPU utilisation falls.

    ## Fix

    Give at least one core per GPU worker and two for the API server and the engine core. Raise or remove the CPU
    *limit* first: a limit throttles even when the node is idle.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/optimization/
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run
    """
    container = engine.container
    limit, request = container.limit("cpu"), container.request("cpu")
    throttled = _throttling(container)
    if throttled and throttled[0] > _THROTTLED:
        share, evidence = throttled
        quota = f" of {say_cores(limit)} cores" if limit else ""
        yield Finding(
            role="risk",
            severity="warning",
            confidence="certain",
            summary=f"Container {container.name} waited for its CPU quota{quota} in {share:.0%} of periods.",
            evidence=(evidence, *_spec(container)),
            fixes=_fixes(container, engine, limit),
            pods=(pod.name,) if pod.exists else (),
        )
        return
    if not container.gpus:
        return  # on CPU the model itself computes there: another matter
    processes = busy(engine)
    if processes is None:
        return
    amount, kind = (limit, "limit") if limit is not None else (request, "request")
    if amount is None or amount >= processes.total * 1000:
        return
    hard = kind == "limit"
    yield Finding(
        role="risk" if hard else "note",
        severity="warning" if hard else "info",
        confidence="likely" if hard else "possible",
        summary=f"{engine.label} keeps {processes.total} processes busy ({processes.text}), the CPU {kind} is {say_cores(amount)}.",
        evidence=_spec(container),
        fixes=_fixes(container, engine, amount),
        pods=(pod.name,) if pod.exists else (),
    )


def _throttling(container: Container) -> tuple[float, Evidence] | None:
    """Share of CPU periods in which the container was throttled, as the node agent saw it."""
    pod = container.pod
    node = pod.cluster.snapshot.nodes.get(pod.spec.node_name)
    listed = node.agent.get("containers") if node and node.agent else None
    for seen in listed if isinstance(listed, list) else []:
        cpu = seen.get("cpu") if isinstance(seen, dict) else None
        if not isinstance(cpu, dict) or (seen.get("pod"), seen.get("container")) != (pod.name, container.name):
            continue
        periods, throttled = cpu.get("nrPeriods"), cpu.get("nrThrottled")
        if isinstance(periods, int) and isinstance(throttled, int) and periods >= 100:
            text = f"nrThrottled: {throttled} of nrPeriods: {periods}"
            return throttled / periods, Evidence(source="agent", ref=f"{pod.name}/{container.name} cpu", text=text)
    return None


def _spec(container: Container) -> tuple[Evidence, ...]:
    resources = container.spec.resources
    found = []
    for kind, values in (("limits", resources.limits), ("requests", resources.requests)):
        if "cpu" in values:
            found.append(pod_evidence(container, f"resources.{kind}.cpu", str(values["cpu"])))
    return tuple(found)


def _fixes(container: Container, engine: Engine, amount: int | None) -> tuple[Fix, ...]:
    processes = busy(engine)
    wanted = max(4, processes.total if processes else 0)
    kind = "limits" if container.limit("cpu") is not None else "requests"
    if amount is not None and amount >= wanted * 1000:
        wanted = 2 * amount // 1000
    summary = f"Give {container.name} {wanted} cores"
    return (fixes.set_resource(container, kind, "cpu", str(wanted), summary),)

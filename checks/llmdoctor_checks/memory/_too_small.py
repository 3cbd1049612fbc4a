"""Limits of host memory below what an engine surely takes."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    MIB,
    Engine,
    Finding,
    Pod,
    Sizing,
    Subject,
    fixes,
    say_bytes,
)
from llmdoctor_checks.memory._killed import (
    HOOK_BYTES,
)
from llmdoctor_checks.memory._memory_limit import stated
from llmdoctor_checks.memory._pinned import PYTHON, uses_of
from llmdoctor_checks.scheduling._devices import asks_for_nothing, near_gpus
from llmdoctor_checks.start._library import asked, least_bytes

#: What Ollama takes beside the weights of a model, at the least: the cache of 2048 tokens, the buffers of its graph.
_BESIDE_WEIGHTS = 256 * MIB


def of_planned(pod: Pod, subject: Subject) -> Iterator[Finding]:
    """What will be killed of a pod that has not served yet."""
    for engine in subject.engines(pod):
        yield from _of_ollama(pod, engine) if engine.name == "ollama" else _risk(pod, engine, subject.sizing(engine))


def _risk(pod: Pod, engine: Engine, sizing: Sizing) -> Iterator[Finding]:
    """A limit below what the engine surely takes."""
    container = engine.container
    limit = container.memory_limit
    uses = list(uses_of(engine, sizing))
    needed = sum(use.size for use in uses)
    if limit is None or needed <= limit or engine.name not in PYTHON or pod.lent:
        return
    if container.gpus and limit < HOOK_BYTES and "memory" in container.spec.resources.limits:
        return  # hook-oomkilled: a slip in the unit
    own = container.spec.resources.limits.get("memory")
    larger = f"{-(-(needed * 5 // 4) // (8 * GIB)) * 8}Gi"
    summary = f"Raise the memory limit of {container.name} from {say_bytes(limit)} to {larger}"
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"{engine.label} takes {say_bytes(needed)} of host memory or more ({', '.join(use.text for use in uses)}); "
        f"the memory limit of {container.name} is {say_bytes(limit)}, so it is killed while it starts.",
        evidence=(*(use.evidence for use in uses if use.evidence), stated(container)),
        fixes=(fixes.set_resource(container, "limits", "memory", larger, summary),) if own is not None else (),
    )


def _of_ollama(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A limit below the weights of a model that the pod pulls, which Ollama holds in host memory where it has no GPU."""
    container = engine.container
    own = container.spec.resources.limits.get("memory")
    limit = container.limit("memory")
    if pod.exists or own is None or limit is None or near_gpus(container) or not asks_for_nothing(container):
        return
    models = asked(pod, pod.cluster)
    size, name = max(((least_bytes(name) or 0, name) for name in models), default=(0, ""))
    needed = size + _BESIDE_WEIGHTS
    if not size or needed <= limit:
        return
    larger = f"{-(-(needed * 5 // 4) // GIB)}Gi"
    summary = f"Raise the memory limit of {container.name} from {say_bytes(limit)} to {larger}"
    yield Finding(
        role="risk",
        summary=f"{name} takes {say_bytes(needed)} of host memory or more without a GPU; the memory limit of {container.name} is "
        f"{say_bytes(limit)}, so Ollama refuses to load it or is killed.",
        evidence=(models[name], stated(container)),
        fixes=(
            fixes.set_resource(container, "limits", "memory", larger, summary),
            fixes.advice(f"Pull a smaller model than {name}"),
        ),
    )

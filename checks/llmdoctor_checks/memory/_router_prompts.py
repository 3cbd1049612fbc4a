"""The prompts that a router keeps, to send those that begin alike to the same server."""

from __future__ import annotations

from kubectl_llmdoctor.api import Ending, expression, fixes, pod_evidence
from llmdoctor_checks.memory._prompt_cache import Greed

#: vLLM's router (production-stack), by its image or its program, and its logic that keeps a tree of hashes of all prompts: a node for each
#: 128 characters that it has not seen, none of which it ever forgets (src/vllm_router/prefix/hashtrie.py, as of 2026).
_ROUTER = expression(r"\b(?:lmstack-router|vllm[-_]router|production-stack)\b")
_PREFIXES = expression(r"(?:^| )--routing-logic[= ]prefixaware(?: |$)")

#: A router that ran for so long was not killed by what it takes to start.
_SERVED_SECONDS = 1800


def prefixes(ending: Ending) -> Greed | None:
    """What vLLM's router keeps of the prompts, where it was killed after it has served for a while."""
    container = ending.container
    argv = " ".join(container.spec.argv)
    if not _ROUTER.search(f"{container.spec.image} {argv}") or not _PREFIXES.search(argv):
        return None
    if ending.seconds is None or ending.seconds < _SERVED_SECONDS:
        return None
    return Greed(
        " With --routing-logic prefixaware the router keeps every prompt that it has seen, and forgets none.",
        pod_evidence(container, "args", "--routing-logic prefixaware"),
        fixes.advice(
            f"Take another --routing-logic than prefixaware in {fixes.edited(container.pod)} (session, kvaware, roundrobin), or an image "
            "whose tree of prefixes has a limit; a higher memory limit lasts only until that is full as well"
        ),
    )

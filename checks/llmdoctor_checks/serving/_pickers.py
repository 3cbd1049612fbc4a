"""What endpoint pickers of InferencePools print of requests that they refuse, as they know no pod."""

from __future__ import annotations

from kubectl_llmdoctor.api import Cluster, Item, Line, Log, dig

#: gateway-api-inference-extension and llm-d, `pkg/epp/requestcontrol/director.go`: the older word and the newer.
NO_CANDIDATES = (
    "failed to find candidate pods for serving the request",
    "failed to find endpoint candidates for serving the request",
)


def refused_by(pool: Item, cluster: Cluster) -> list[Line]:
    """Where the endpoint picker of a pool says so, in the order of its log."""
    said = cluster.once(
        "pickers without pods",
        lambda: [
            (text.pod, line)
            for text in cluster.snapshot.logs
            for words in NO_CANDIDATES
            for line in Log(text).find(words)
        ],
    )
    names = {pool.name, *(dig(pool.raw, f"spec.{ref}.name") for ref in ("extensionRef", "endpointPickerRef"))}
    of_it = tuple(f"{name}-" for name in names if isinstance(name, str))
    return [line for who, line in said if who.startswith(of_it)]

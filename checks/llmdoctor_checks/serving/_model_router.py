"""LLMKube's router, which has one line for each request (`internal/router/proxy.go`): how old it was, and no word of why it failed.

Its times for an answer stand in a ModelRouter: of a backend, of a rule, and of its client for headers.
"""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Fix, Item, Line, dig, duration, fixes, rows, say_seconds

ROUTED = '"msg":"router.dispatch"'

#: Its image, by whatever words it says that it waited.
IMAGE = "llmkube-router-proxy"

#: What it prints where no backend answered, and how old the request was.
_FAILED = r'"status":50[24],"outcome":"all_backends_failed","latencyMs":(\d{5,9})[,}]'

#: A timeout is a round number of seconds; what it takes to print the line comes to that.
_ROUND, _SPENT = 10_000, 100

#: What a request may take: the client of the proxy waits so long for headers, whatever a backend or a rule allows.
_HEADERS, _AT_HEADERS, _UNSAID_SECONDS = "spec.proxy.responseHeaderTimeout", "/spec/proxy/responseHeaderTimeout", 120
_SAID = f"timeout of the rule, else of the backend, and {_HEADERS} ({_UNSAID_SECONDS} s where it is not set), which holds for all"


def routed_late(line: Line) -> bool:
    """Whether no backend answered a request in time: a refused connection fails at once, and an error comes at any age."""
    said = re.search(_FAILED, line.text[:4000])
    return said is not None and int(said[1]) % _ROUND <= _SPENT


def longer(line: Line, seconds: float | None, allowed: int, cluster: Cluster) -> Fix:
    """More time where a ModelRouter says as much as was met, else where it may."""
    routers = list(cluster.items("ModelRouter", line.log.source.namespace))
    told = [one for router in routers for one in _times(router)]
    found = [one for one in told if seconds and abs((duration(one[2]) or 0) - seconds) < 1]
    if len(routers) == 1 and not told:
        return fixes.patch_object(
            routers[0],
            f"Set {_HEADERS} of ModelRouter/{routers[0].name} to {allowed}s, where its release has that field (else take a later one): "
            "nothing else says how long it waits for an answer",
            [{"op": "add", "path": _AT_HEADERS, "value": f"{allowed}s"}],
        )
    if len(found) != 1:
        return fixes.advice(f"Raise what is as long in its ModelRouter to {say_seconds(allowed)} ({allowed}s): {_SAID}")
    router, path, now, what = found[0]
    summary = f"Raise {what} in ModelRouter/{router.name} from {now} to {allowed}s"
    operations = [{"op": "replace", "path": path, "value": f"{allowed}s"}]
    headers = dig(router.raw, _HEADERS)
    if path != _AT_HEADERS and (duration(headers if isinstance(headers, str) else "") or _UNSAID_SECONDS) < allowed:
        summary += f", and {_HEADERS} to as much, which ends what is longer ({headers or f'{_UNSAID_SECONDS} s'})"
        operations.append({"op": "add", "path": _AT_HEADERS, "value": f"{allowed}s"})
    return fixes.patch_object(router, summary, operations)


def _times(router: Item) -> Iterator[tuple[Item, str, str, str]]:
    """The times of a ModelRouter: where each stands, what it is, and in words."""
    for kind in ("backends", "rules"):
        for at, one in enumerate(rows(router.raw, f"spec.{kind}")):
            if isinstance(said := one.get("timeout"), str):
                yield router, f"/spec/{kind}/{at}/timeout", said, f"the timeout of {kind[:-1]} {one.get('name') or at}"
    said = dig(router.raw, _HEADERS)
    if isinstance(said, str):
        yield router, _AT_HEADERS, said, _HEADERS

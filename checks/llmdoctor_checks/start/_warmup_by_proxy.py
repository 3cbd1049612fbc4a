"""SGLang's own first requests, which a variable of its container sends to a proxy.

Sources: sglang/srt/entrypoints/http_server.py (`_execute_server_warmup`, before 0.4.7 `_wait_and_warmup`), which asks itself with
`requests` 120 times, logs the last exception and kills itself; `ServerArgs.url()`, of later releases 127.0.0.1 for 0.0.0.0. Through a
proxy the whole address stands where `requests` names the path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    expression,
    fixes,
    log_evidence,
    variable_evidence,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.serving._by_proxy import exempt_from, exempting, proxy_of

WARMUP = "Initialization failed. warmup error: "
_BELOW = 80
#: What a proxy answers, and never the server itself of its model's description; or that the proxy did not answer.
_STATUS = expression(r"^AssertionError: (?:res=)?<Response \[(?P<status>40[3457]|50[234])\]>")
_UNANSWERED = expression(
    r"^requests\.exceptions\.\w{1,40}: .{0,200}url: https?://(?P<host>\[[\da-f:]{2,40}\]|[\w.-]{1,253}):\d{1,5}/(?:get_)?model_info "
    r"\(Caused by (?P<why>\w{1,40})"
)


def warmup_by_proxy(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A server that ended since its own warm-up went to a proxy."""
    container = engine.container
    if engine.name != "sglang" or pod.ready or (set_by := proxy_of(container, "http")) is None:
        return
    proxy, exempt, told = set_by
    hosts = [host for host in _asked(engine) if not exempt_from(host, told, ranges=True)]
    found = next(filter(None, (_failed(line) for log in logs.of(container.name) for line in log.find(WARMUP))), None)
    if not hosts or found is None:
        return
    begun, line, said = found
    name = exempting(proxy, exempt)
    yield Finding(
        # which of two addresses this release asks is not told by a status
        confidence="certain" if len(hosts) == len(_asked(engine)) else "likely",
        summary=f"SGLang's own warm-up goes through the proxy that {proxy.name} names, which {said}, and the server ends itself: "
        + (f"{name} does not name {hosts[0]}." if exempt else f"{name} is not set."),
        evidence=(
            log_evidence(begun),
            log_evidence(line),
            variable_evidence(proxy),
            *((variable_evidence(exempt),) if exempt else ()),
        ),
        explains=("service-selects-nothing", *FAILED_START),
        fix=_named(container, name, told, hosts),
        order=line.order,
    )


def _asked(engine: Engine) -> tuple[str, ...]:
    """Where a server may ask itself: later releases by the loopback address where they listen on all."""
    host = str(engine.value("host") or "127.0.0.1").strip("[]")
    return (host, "127.0.0.1") if host == "0.0.0.0" else (host,)  # noqa: S104


def _failed(begun: Line) -> tuple[Line, Line, str] | None:
    """The exception that the warm-up ended with, where a proxy is in it."""
    for line in begun.log.lines(begun.number + 1, begun.number + _BELOW):
        text = line.text[:2000]
        if (answer := _STATUS.search(text)) is not None:
            return begun, line, f"answers {answer['status']}"
        # without a proxy the path alone stands there
        if (none := _UNANSWERED.search(text)) is not None:
            return begun, line, f"does not answer ({none['why']})"
    return None


def _named(container: Container, name: str, told: str, hosts: list[str]) -> Fix:
    """What the server asks of itself, kept from the proxy."""
    wanted = [*filter(None, re.split(r"[,\s]+", told)), *hosts]
    wanted += [host for host in ("localhost", "127.0.0.1") if host not in wanted]
    value = ",".join(wanted)
    return fixes.set_env(
        container, name, value, f"Keep what {container.name} asks of itself from the proxy: {name}={value}"
    )

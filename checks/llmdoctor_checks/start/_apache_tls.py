"""Apache as a proxy that speaks TLS to a server of models which speaks none.

Source: modules/proxy/proxy_util.c and mod_proxy_http.c of httpd 2.4. Its word for it (AH00898) is the same where a certificate is not
trusted, so that the server itself must be known, and told of no certificate. Whom it asks stands in the line before.
"""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Destination,
    Engine,
    Finding,
    Line,
    Logs,
    Pod,
    engines_in,
    fixes,
    follow,
    log_evidence,
    pod_evidence,
)

FAILED = "AH00898: Error during SSL Handshake with remote server"
_ASKED = (
    r"AH\d{5}: (?:pass request body failed|failed to make connection|HTTP: attempt to connect) to "
    r"(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5})\b"
)
_BESIDE = 3

#: How engines take a certificate, of those that can speak TLS themselves.
_OPTIONS = {
    "vllm": ", or give the server a certificate (--ssl-certfile and --ssl-keyfile)",
    "llama.cpp": ", or give the server a certificate (--ssl-cert-file and --ssl-key-file)",
}


def apache_speaks_tls(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The last such line of a container whose next request was not answered, either."""
    for container in pod.containers if pod.exists and logs is not None else ():
        log = container.own_log(logs)
        lines = list(log.find(FAILED)) if log is not None else []
        answered = max((x.number for x in log.find('" 200 ')), default=0) if log is not None and lines else 0
        if not lines or lines[-1].number < answered or engines_in(pod):
            continue
        found = _plain_server(container, lines[-1])
        if found is None:
            continue
        to, engine = found
        yield Finding(
            severity="warning",
            summary=f"{container.name} speaks TLS to {to.shown}, where {engine.title} in {engine.pod.name} was given no certificate: "
            "requests to the model fail.",
            evidence=(
                log_evidence(lines[-1]),
                pod_evidence(engine.container, "args", f"{engine.pod.name}: no option of a certificate"),
            ),
            fix=fixes.advice(
                f"Have ProxyPass of {fixes.edited(pod)} ask http://{to.shown}" + _OPTIONS.get(engine.name, "")
            ),
            order=lines[-1].order,
        )
        return


def _plain_server(container: Container, line: Line) -> tuple[Destination, Engine] | None:
    """Whom a line beside this one names, where an engine listens whose arguments are all known, and none of them is of TLS."""
    for near in line.log.lines(max(line.number - _BESIDE, 1), line.number + 1):
        asked = re.search(_ASKED, near.text[:2000])
        to = follow(asked["host"], int(asked["port"]), container.pod, container.pod.cluster) if asked else None
        if to is None or not to.others:
            continue
        served = [engines_in(pod) for pod in to.pods]
        if all(len(own) == 1 and without_tls(own[0], to.target(own[0].pod)) for own in served):
            return to, served[0][0]
    return None


def without_tls(engine: Engine, port: int | None) -> bool:
    """Whether a server listens there without TLS, as far as its arguments are known, and alone in its pod."""
    settings = {**engine.found.defaults, **engine.found.settings}
    told = any(name.startswith("ssl") and engine.explicit(name) is not None for name in settings)
    alone = all(one is engine.container or one.role == "init" for one in engine.pod.containers)
    return engine.found.argv_known and not told and alone and port == engine.value("port")

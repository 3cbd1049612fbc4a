"""Clients that go on, and speak TLS to a server of models that speaks none, as they are told to ask it by https.

Sources: OpenSSL as Python's ssl passes it on, Node's (EPROTO), Go's net/http, rustls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Line, Log, Logs, Pod, engines_in, fixes, follow, log_evidence, told_by
from llmdoctor_checks._unreached import last_answered
from llmdoctor_checks.start._apache_tls import without_tls

NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "wrong version number",
    "record layer failure",
    "server gave HTTP response to HTTPS client",
    "received corrupt message of type InvalidContentType",
)
_URL = r"https://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?(?=[/?#\s\"',)}\]]|$)"


def client_with_tls(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The first container that is told of such an address, and whose log says that it met with no TLS, up to the last."""
    for container in pod.containers if pod.exists and not engines_in(pod) else ():
        log = container.own_log(logs)
        said = _last(log) if log is not None else None
        for where, value in told_by(container) if said is not None else ():
            for url in re.finditer(_URL, value):
                to = follow(url["host"], int(url["port"] or 443), pod, pod.cluster)
                if to is None or to.itself or not to.pods:
                    continue
                served = [engines_in(one) for one in to.pods]
                if not all(len(own) == 1 and without_tls(own[0], to.target(own[0].pod)) for own in served):
                    continue
                engine = served[0][0]
                right = f"http://{url['host']}" + (f":{url['port']}" if url["port"] else "")
                text = f"Write {right} in place of {url[0]} ({where}) in {fixes.edited(pod)}"
                yield Finding(
                    severity="warning",
                    summary=f"{container.name} is told to ask {url[0]}, and {engine.title} in {engine.pod.name} speaks no TLS there: its "
                    "requests fail.",
                    evidence=(*((log_evidence(said),) if said else ()),),
                    fix=fixes.set_env(container, where, value.replace(url[0], right), text)
                    if where in container.env and container.env[where].value == value
                    else fixes.advice(text),
                    order=said.order if said else None,
                )
                return


def _last(log: Log) -> Line | None:
    """The last line of these, where nothing was answered since."""
    found = [line for words in NO_TLS if (line := log.last(words)) is not None]
    last = max(found, key=lambda line: line.number, default=None)
    return last if last is not None and last.number > last_answered(log) else None

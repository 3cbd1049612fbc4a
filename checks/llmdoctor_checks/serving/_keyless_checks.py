"""A router of vLLM's production stack that checks its servers without the key which they ask for (utils.py: is_model_healthy)."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    engines_in,
    expression,
    fixes,
    follow,
    log_evidence,
    logs_of,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks._unreached import last_answered

#: What it says of a server that did not answer its check, and leaves out until the next one.
_UNHEALTHY, _LOGGER = " not healthy!", "vllm_router"
_SERVER = expression(r"\bat (?P<url>https?://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?[^\s,]{0,200}) not healthy!")

#: Requests in the access log of a server; what it refuses for want of the key.
_POST, _REFUSED = '"POST /', '" 401'
LITERALS = (_UNHEALTHY, _REFUSED)

#: By which it checks them, and the key that servers have, and clients bring.
_CHECKS, _KEY = "--static-backend-health-checks", "VLLM_API_KEY"


def checked_without_key(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A router that leaves out a server, since that refuses the router's own question for want of its key."""
    for container in pod.containers if not engines_in(pod) else ():
        log = container.own_log(logs)
        line = log.last(_UNHEALTHY) if log is not None else None
        said = _SERVER.search(line.text) if line is not None else None
        if line is None or said is None or _LOGGER not in line.text or line.number < last_answered(line.log):
            continue  # another server answers, or it was mended
        to = follow(said["host"], int(said["port"]) if said["port"] else None, pod, cluster)
        engines = [engine for one in to.pods if one.ready for engine in engines_in(one)] if to is not None else []
        for engine in engines:
            last = _last_asked(engine, pod)
            refused = last if last is not None and _REFUSED in last.text else None
            if refused is not None or (last is None and _keyed(engine) and _KEY not in container.env):
                yield _finding(container, line, said["url"], engine, refused)
                return


def _keyed(engine: Engine) -> bool:
    """Whether a vLLM asks for a key, be it one out of a Secret."""
    if engine.name != "vllm":
        return False
    given = engine.container.env.get(_KEY)
    return engine.explicit("api_key") is not None or (given is not None and given.value != "")


def _last_asked(engine: Engine, router: Pod) -> Line | None:
    """The last request of a router in the access log of a server; while it leaves that out, it sends its checks alone."""
    log, address = engine.container.own_log(logs_of(engine.pod)), router.status.pod_ip
    if log is None or not address:
        return None
    asked = (one for one in log.find(_POST) if re.search(rf"(?<![\d.]){re.escape(address)}:\d", one.text[:4000]))
    return max(asked, key=lambda one: one.number, default=None)


def _finding(container: Container, line: Line, url: str, engine: Engine, refused: Line | None) -> Finding:
    key, server = engine.explicit("api_key"), engine.container
    told = [setting_evidence(server, key)] if key is not None else []
    if not told and (given := server.env.get(_KEY)) is not None:
        told = [pod_evidence(server, f"env[{_KEY}]", "out of a Secret" if given.value is None else "set")]
    return Finding(
        severity="warning",
        # no release up to 0.1.12 sends its own key with a check
        summary=f"{container.name} leaves out {url}: its check asks without a key{', or with another' if _KEY in container.env else ''}, "
        f"and {server.pod.name}, which is well, refuses that{' (401)' if refused is not None else ''}.",
        evidence=(log_evidence(line), *((log_evidence(refused),) if refused is not None else ()), *told),
        explains=("http-5xx", "probe-path-wrong"),
        fixes=(
            unchecked(container),
            fixes.advice(
                f"Have {server.name} ask for no key, and let no one but the router reach it (a NetworkPolicy)"
            ),
        ),
        order=line.order,
    )


def checks_of(pod: Pod) -> Container | None:
    """The router of a pod, if it is told to check its servers."""
    return next((c for c in pod.containers if any(_CHECKS in text.split() for _, text in c.words)), None)


def unchecked(container: Container) -> Fix:
    """A router that sends no checks."""
    text = "Have the router send no checks, which carry no key: it passes on the key that clients send; "
    if all(_CHECKS not in word for _, word in container.words):
        where = "static_backend_health_checks: false in the file of its dynamic configuration"
        return fixes.advice(f"{text}{where}, which {fixes.edited(container.pod)} names")
    words = container.spec.words("args")
    at = next((i for i, word in enumerate(words) if word == _CHECKS), None)
    return fixes.remove_word(container, "" if at is None else f"args[{at}]", f"{text}without {_CHECKS}")

"""At which addresses and ports a server listens, by what it was told and by its log."""

import re

from kubectl_llmdoctor.api import Container, Engine, Evidence, Line, Logs, Setting, pod_evidence, setting_evidence

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]", "ip6-localhost"})

#: Every IPv4 address of the pod, and none of its IPv6 addresses.
ANY_IPV4 = "0.0.0.0"  # noqa: S104 # what an engine was told

#: What servers print once they listen: llama-server, Uvicorn, Gunicorn, Ollama, vLLM before it starts Uvicorn.
_LISTENS = (
    r"(?:[Ll]istening (?:on|at:?)|is listening, hostname:|[Rr]unning on|API server(?: \d+)? on) +(?:https?://)?"
    r"(?P<host>127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0)(?::|, port: )(?P<port>\d{1,5})\b"
)

#: BentoML says localhost for every address (`log_host`), before it listens at all.
_SAYS_LOCALHOST = " BentoServer from "

#: The proxy of Ray Serve names its port alone. It listens on the loopback address where its http_options name no other.
SERVE_PROXY = "Proxy starting on node "
_SERVE_PORT = r"Proxy starting on node \S{1,80} \(HTTP port: (?P<port>\d{1,5})\)"


def loopback_told(engine: Engine) -> Setting | None:
    """The address that the engine was told, or its default, where not everybody reaches it there."""
    host = engine.get("host")
    if host is None or (host.source == "default" and not engine.found.argv_known):
        return None
    return host if str(host.value).lower() in (*_LOOPBACK, ANY_IPV4) else None


def listens_elsewhere(container: Container, logs: Logs | None, port: str) -> bool:
    """Whether the log names another address as well: Flask prints each at which it listens."""
    other = rf"[Rr]unning on (?:all addresses|https?://(?!127\.|localhost|\[::1\])\S+:{port}\b)"
    found = (line for log in container.own_logs(logs) for line in log.find("unning on "))
    return any(re.search(other, line.text) for line in found)


def listens(container: Container, logs: Logs | None, ports: set[str]) -> tuple[str, Line, str] | None:
    """The address at which the log says that it listens on one of the ports, the line and the port."""
    for log in reversed(container.own_logs(logs)):
        for line, said in log.matching(_LISTENS, "127.0.0.1", "localhost", "[::1]", ANY_IPV4):
            if said["port"] in ports and not (said["host"] == "localhost" and _SAYS_LOCALHOST in line.text):
                return said["host"], line, said["port"]
    return None


def serve_proxy(container: Container, logs: Logs | None, ports: set[str]) -> tuple[str, Line, str] | None:
    """The last line by which a proxy of Ray Serve says that it starts on one of the ports, with the address where nothing names one."""
    log, found = container.own_log(logs), None
    for line, said in log.matching(_SERVE_PORT, SERVE_PROXY, most=400) if log is not None else ():
        if said["port"] in ports:
            found = "127.0.0.1", line, said["port"]
    return found


def port_evidence(container: Container, port: Setting) -> Evidence:
    """Where an engine was told its port, or that it was not told one."""
    if port.source == "default":
        return pod_evidence(container, "args", f"no --port ({port.text})")
    return setting_evidence(container, port)

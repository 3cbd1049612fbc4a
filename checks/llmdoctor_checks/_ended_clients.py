"""Programs that ask a server of models and ended of it, by the exception with which their log ends.

Sources: the openai, anthropic, ollama and litellm packages, LangChain and LlamaIndex, which raise their own exceptions from httpx's;
requests and aiohttp, whose messages name the address.
"""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Evidence,
    Line,
    Logs,
    Pod,
    Subject,
    Traceback,
    endings,
    host_of,
    last_traceback,
    log_evidence,
    log_of,
    pod_evidence,
)
from llmdoctor_checks.serving._gateways import GENERATES

#: Libraries that ask servers of models: by the exception, or by a frame of its traceback.
_LIBRARY = r"openai|anthropic|ollama|litellm|langchain\w{0,40}|llama_index|instructor|mistralai"
_ERROR = rf"(?:{_LIBRARY})\."
_FRAME = rf"File \"[^\"]{{0,300}}/(?:{_LIBRARY})/"

#: So many lines may follow the exception: notes that a library adds to it.
_AFTER = 4

#: Variables that name a server of models, and not where models are kept or counted.
_OF_A_SERVER = (
    r"^(?!.*(?:REGISTRY|TRACK|HUB|MIRROR|DOWNLOAD|STORE)).*(?:OPENAI|OLLAMA|LLM|ANTHROPIC|INFERENCE|MODEL|COMPLETION)"
)

#: An answer that did not come in time, and not a connection, nor a place in a pool.
_LATE, _NO_CONNECTION = r"(?:APITimeoutError|ReadTimeout(?:Error)?|Timeout)$", r"(?:Connect|Pool)(?:ion)?Timeout"

#: TLS asked of a port where none is spoken, by OpenSSL 1.1 and 3, and by 3.2 and later.
_NO_TLS = r"WRONG_VERSION_NUMBER|wrong version number|record layer failure"

#: What an exception names of whom it asked: requests and urllib3, aiohttp.
_WHOM = r"(?:\bhost='|\bto host )(?P<host>[\w.-]{1,253})"

#: By which clients are told to ask through a proxy. TLS to one that speaks none fails like TLS to such a server.
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

#: Exit codes from here on tell of a signal: somebody ended the program, whatever it said last.
_BY_SIGNAL = 128

#: A name that the cluster's DNS does not have, and a DNS that does not answer.
_NO_NAME = r"\[Errno -[25]\] |Name or service not known|No address associated with hostname"
_NO_DNS = r"\[Errno -3\] |Temporary failure in name resolution"


class Ended(msgspec.Struct, frozen=True):
    """A container that ended of what it asked of a server: why, and the lines that say so."""

    container: Container
    #: `late`, `no tls`, `no name`, `no dns`
    why: str
    error: str
    lines: tuple[Line, ...]
    #: the variable that names the server, and its address; empty where none does, or several
    variable: str
    url: str

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What its log says, and where it is told whom to ask."""
        told = pod_evidence(self.container, f"env[{self.variable}]", self.url)
        return (*(log_evidence(line) for line in self.lines), told)


def ended_clients(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Ended]:
    """Containers of a pod that ended with an error, and whose log ends with what a server of models, or the way to it, did."""
    engines = {engine.container.name for engine in subject.engines(pod)}
    for ending in endings(pod) if logs is not None else ():
        container = ending.container
        log = log_of(ending, logs) if container.name not in engines else None
        last = last_traceback(log) if log is not None else None
        if log is None or last is None or not 0 < ending.code < _BY_SIGNAL:
            continue
        if not _is_the_end(last) or not _of_a_model(last):
            continue
        chain, (variable, url) = [last, *_causes(last)], _asked(container)
        if (why := _why(chain)) is None or _asked_another(chain, url):
            continue
        if why == "no tls" and (_by_proxy(container) or not url.startswith("https://")):
            continue  # it is not known whom it asked with TLS
        lines = (chain[-1].last, last.last) if chain[-1].last.text != last.last.text else (last.last,)
        yield Ended(container, why, last.error.rpartition(".")[2], lines, variable, url)


def _causes(one: Traceback) -> Iterator[Traceback]:
    while one.cause is not None:
        one = one.cause
        yield one


def _is_the_end(last: Traceback) -> bool:
    """Whether the program said nothing more after its exception."""
    log, number = last.last.log, last.last.number
    return not any(log.lines(number + _AFTER + 1, number + _AFTER + 50))


def _of_a_model(last: Traceback) -> bool:
    """Whether it is the exception of a library that asks for models, or one that names such a request."""
    if re.match(_ERROR, last.error) or re.search(GENERATES, last.message[:2000]):
        return True
    frames = last.first.log.lines(last.first.number, last.last.number)
    return any(re.search(_FRAME, line.text[:1000]) for line in frames)


def _why(chain: list[Traceback]) -> str | None:
    said = [one.message[:2000] for one in chain]
    if any(re.search(_NO_TLS, text) for text in said):
        return "no tls"
    if any(re.search(_NO_DNS, text) for text in said):
        return "no dns"
    if any(re.search(_NO_NAME, text) for text in said):
        return "no name"
    connecting = any(re.search(_NO_CONNECTION, f"{one.error} {one.message[:500]}") for one in chain)
    return "late" if re.search(_LATE, chain[0].error) and not connecting else None


def _asked_another(chain: list[Traceback], url: str) -> bool:
    """Whether the exceptions name a host, which is not that of the model's server: a hub, a database, a tool."""
    said = " ".join(one.message[:2000] for one in chain)
    hosts = {found["host"] for found in re.finditer(_WHOM, said)}
    return bool(hosts) and host_of(url) not in hosts and not re.search(GENERATES, said)


def _by_proxy(container: Container) -> bool:
    """Whether the container is told to speak TLS to a proxy itself."""
    found = (container.env.get(name) for name in _PROXIES)
    return any(one is not None and (one.value or "").startswith("https://") for one in found)


def _asked(container: Container) -> tuple[str, str]:
    """The one address of a server of models that the container's environment has, and its variable."""
    found = {
        host_of(value): (name, value)
        for name, variable in container.env.items()
        if (value := variable.value) and re.match(r"https?://[\w.-]{1,253}", value) and re.search(_OF_A_SERVER, name)
    }
    return next(iter(found.values())) if len(found) == 1 else ("", "")

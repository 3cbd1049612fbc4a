"""Requests to servers of the cluster, or to the container itself, that go to the proxy for what is outside.

Sources: squid's page of an error, urllib3's ProxyError, what requests and httpx say of a status. Who reads NO_PROXY: curl, Go, requests and
httpx take names and their endings; ranges of addresses (10.0.0.0/8) requests, Go and newer curls, not httpx, aiohttp and urllib.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    EnvVar,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    dig,
    expression,
    fixes,
    host_of,
    in_order,
    log_evidence,
    variable_evidence,
    written_ago,
)
from llmdoctor_checks._consequences import CRASHED

_SQUID = "The requested URL could not be retrieved"
_PAGE = expression(r'href=\\?"(?P<url>https?://[^"\\\s]{1,500})')
_BELOW = 12
_ERROR = "ProxyError("
_CAUSED = expression(
    r"(?:host='(?P<host>[\w.-]{1,253})', port=\d{1,5}\): )?Max retries exceeded with url: (?P<url>\S{1,500}) \(Caused by ProxyError\("
)
_STATUS = (" for url '", " for url: ")
_ANSWERED = expression(
    r"(?:(?P<httpx>'(?:403|50[234]) [\w ]{1,40}' for url '(?=http))|\b(?:403|50[234]) (?:Client|Server) Error: [^\n]{0,80} for url: )"
    r"(?P<url>https?://[^\s'\"]{1,500})"
)
LITERALS = (_SQUID, _ERROR, *_STATUS)

_ANY, _NOT = ("all_proxy", "ALL_PROXY"), ("no_proxy", "NO_PROXY")
_PROXIES = {"http": ("http_proxy", "HTTP_PROXY", *_ANY), "https": ("https_proxy", "HTTPS_PROXY", *_ANY)}
#: What must not go to a proxy in a cluster.
_INSIDE = ("localhost", "127.0.0.1", ".svc", ".cluster.local")
#: One status may have any reason; and what is so long ago in a pod that is ready, or was answered since, is over.
_FEWEST, _LATELY = 2, 3600
_FINE = expression(r"\b(?:HTTP/[\d.]{1,3} )?200 OK\b")


def through_proxy(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """What a container asks of the cluster through the proxy that it is told of, as it was refused there."""
    for container in pod.containers if pod.exists and logs is not None else ():
        if logs is None or not any(proxy_of(container, scheme) for scheme in _PROXIES):
            continue
        lines = in_order(line for line in logs.find(*LITERALS) if line.log.container == container.name)
        found = [
            (line, address, set_by)
            for line in lines
            for address in _refused(line)
            if (set_by := proxy_of(container, address.scheme)) is not None
            and _inside(address.host, pod, cluster)
            and not exempt_from(address.host, set_by[2], ranges=address.by != "httpx", port=address.port)
        ]
        by_status = [one for one in found if one[1].by in ("httpx", "status")]
        if not found or len(found) == len(by_status) < _FEWEST or (pod.ready and _over(*found[-1][:2], cluster)):
            continue
        (line, address, (proxy, exempt, told)), sure = found[0], len(by_status) < len(found)
        ranged = exempt_from(address.host, told, ranges=True)
        yield Finding(
            severity="critical" if pod.failing else "warning",
            confidence="likely" if sure else "possible",
            summary=f"{container.name} asks {address.host} through the proxy that {proxy.name} names, which does not pass it on"
            + (
                f"; {'httpx reads no ranges in' if ranged else 'it is not in'} {exempt.name}."
                if exempt
                else "; no NO_PROXY is set."
            ),
            evidence=(log_evidence(line), variable_evidence(proxy)),
            explains=CRASHED,
            fix=_spare(container, address.host, told, exempting(proxy, exempt)),
            order=line.order,
        )
        return


def _over(last: Line, asked: _Address, cluster: Cluster) -> bool:
    """Whether the last refusal is long ago, or the same host answered since: what goes through a proxy goes there each time."""
    ago = written_ago(last, cluster.now)
    if ago is not None and ago > _LATELY:
        return True
    since = (line for line in last.log.find("200 OK") if line.number > last.number)
    return any(asked.host in line.text and _FINE.search(line.text[:4000]) for line in since)


def proxy_of(container: Container, scheme: str) -> tuple[EnvVar, EnvVar | None, str] | None:
    """The variable that names a proxy for addresses of a scheme, the one that names what is kept from it, and its value.

    None where a value is not known, or none is seen and there may be one among those that nobody read.
    """
    proxy = next((container.env[name] for name in _PROXIES.get(scheme, _ANY) if name in container.env), None)
    exempt = next((container.env[name] for name in _NOT if name in container.env), None)
    if proxy is None or not proxy.value or (exempt is not None and exempt.value is None):
        return None
    if exempt is None and _unread(container):
        return None
    return proxy, exempt, (exempt.value or "") if exempt is not None else ""


def _unread(container: Container) -> bool:
    """Whether variables come as a whole from an object that is not at hand."""
    pod = container.pod
    named = (
        ("ConfigMap" if source.config_map_ref else "Secret", source.config_map_ref or source.secret_ref)
        for source in container.spec.env_from
    )
    return any(ref is not None and pod.cluster.item(kind, pod.namespace, ref.name) is None for kind, ref in named)


def exempting(proxy: EnvVar, exempt: EnvVar | None) -> str:
    """The name of the variable that keeps hosts from the proxy, where none is set the one that is spelt alike."""
    return exempt.name if exempt else "NO_PROXY" if proxy.name.isupper() else "no_proxy"


class _Address(NamedTuple):
    """Whom a request was for that a proxy did not pass on, and who says it."""

    scheme: str
    host: str
    port: str
    by: str


def _address(url: str, by: str) -> _Address:
    port = re.match(r"https?://[^/\s]{1,253}?:(\d{1,5})(?:[/?]|$)", url)
    return _Address(url.partition("://")[0], host_of(url), port[1] if port else "", by)


def _refused(line: Line) -> Iterator[_Address]:
    """What a proxy did not pass on."""
    text = line.text[:8000]
    if _SQUID in text:
        page = "\n".join([text, *(one.text[:2000] for one in line.log.lines(line.number + 1, line.number + _BELOW))])
        if (named := _PAGE.search(page)) is not None:
            yield _address(named["url"], "squid")
    elif _ERROR in text:
        if (named := _CAUSED.search(text)) is not None:
            # a request for an address with TLS is one for a tunnel, and names the path alone
            whole = "://" in named["url"]
            yield _address(named["url"], "error") if whole else _Address("https", named["host"] or "", "", "error")
    elif (named := _ANSWERED.search(text)) is not None and named["url"].startswith("http://"):
        # what stands in a tunnel is the server's own answer: a proxy that makes none says so by an error of its own
        yield _address(named["url"], "httpx" if named["httpx"] else "status")


def _inside(host: str, pod: Pod, cluster: Cluster) -> bool:
    """Whether a host is the container itself, a Service, or a pod."""
    if host in ("localhost", "127.0.0.1") or host.endswith((".svc", ".cluster.local")):
        return True
    name, _, rest = host.partition(".")
    if cluster.item("Service", rest or pod.namespace, name) is not None:
        return True
    at = (
        str(dig(item.raw, path))
        for kind, path in (("Pod", "status.podIP"), ("Service", "spec.clusterIP"))
        for item in cluster.items(kind)
    )
    return bool(re.fullmatch(r"[\d.]{7,15}", host)) and host in at


def exempt_from(host: str, told: str, *, ranges: bool, port: str = "") -> bool:
    """Whether NO_PROXY names a host, with or without the port, to who reads ranges of addresses or does not."""
    for entry in re.split(r"[,\s]+", told.strip()):
        ending = entry.removeprefix("*").lstrip(".").removesuffix(f":{port}" if port else "")
        if entry == "*" or (ending and (host == ending or host.endswith(f".{ending}"))):
            return True
        if ranges and "/" in entry and _in_range(host, entry):
            return True
    return False


def _in_range(host: str, entry: str) -> bool:
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False


def _spare(container: Container, host: str, told: str, name: str) -> Fix:
    """NO_PROXY with what is in the cluster."""
    if exempt_from(host, told, ranges=True):
        return fixes.advice(
            f"Have {container.name} ask by the name of a Service, with .svc in {name}, or give its client no proxy (trust_env=False): "
            f"httpx takes {told} for names"
        )
    wanted = [
        *filter(None, told.split(",")),
        *(one for one in _INSIDE if not exempt_from(one.lstrip("."), told, ranges=False)),
    ]
    if not exempt_from(host, ",".join(wanted), ranges=False):
        wanted.append(host)
    value = ",".join(wanted)
    return fixes.set_env(container, name, value, f"Keep what is in the cluster from the proxy: {name}={value}")

"""Connections to one API server that are used again, through TLS and proxies.

It builds on the standard library: an HTTP library costs more time to load than the whole gathering takes.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.gather.connection import Endpoint
from kubectl_llmdoctor.gather.failure import RequestError, Why, of_connecting, of_talking

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class Route:
    """How to get to the API server. Raises AccessError for certificates, keys and proxies that cannot be used."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.server = _address(endpoint.server, "the server of the cluster")
        self.host, self.port = _host_port(self.server)
        self.tls = _tls(endpoint) if self.server.scheme == "https" else None
        self.tls_name = _ascii(endpoint.tls_server_name or self.host)
        proxy = endpoint.proxy or environment_proxy(self.server)
        self.proxy = _address(proxy, "the proxy") if proxy else None
        if self.tls is not None and self.proxy is not None and self.proxy.scheme == "https":
            raise AccessError("a proxy that itself speaks TLS is not supported; give it as http:// or socks5://")

    @property
    def proxy_authorization(self) -> str:
        """The header value for a proxy that wants a password; empty for others."""
        if self.proxy is None or not self.proxy.username:
            return ""
        pair = f"{unquote(self.proxy.username)}:{unquote(self.proxy.password or '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    @property
    def asks_proxy(self) -> bool:
        """Whether the proxy gets the requests themselves, not only a connection to pass on."""
        return self.proxy is not None and self.tls is None and self.proxy.scheme.startswith("http")


class Wire(http.client.HTTPConnection):
    """One connection."""

    def __init__(self, route: Route) -> None:
        super().__init__(route.host, route.port)
        self.default_port = _PORTS[route.server.scheme]
        self._route = route

    def connect(self) -> None:
        """Connects; each step takes `timeout` seconds at most. Raises RequestError."""
        route = self._route
        too_late = f"timed out after {self.timeout:g} s"
        if route.proxy is None:
            sock = self._direct(route.host, route.port, too_late)
        else:
            sock = self._through_proxy(route.proxy, too_late)
        try:
            if route.tls is not None:
                sock = route.tls.wrap_socket(sock, server_hostname=route.tls_name)
        except OSError as error:
            sock.close()
            is_tls = isinstance(error, ssl.SSLError)
            raise (of_connecting(error, too_late) if is_tls else of_talking(error, too_late)) from None
        self.sock = sock

    def _direct(self, host: str, port: int, too_late: str, who: str = "") -> socket.socket:
        try:
            # As bytes, because a str would load the tables of international names.
            sock = socket.create_connection((_ascii(host), port), self.timeout)  # type: ignore[arg-type]
        except OSError as error:
            raise of_connecting(error, too_late, who) from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _through_proxy(self, proxy: SplitResult, too_late: str) -> socket.socket:
        sock = self._direct(*_host_port(proxy), too_late, "the proxy")
        try:
            if proxy.scheme == "https":
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=proxy.hostname)
            if proxy.scheme.startswith("socks"):
                _socks_connect(sock, self._route, proxy)
            elif self._route.tls is not None:
                _http_connect(sock, self._route)
        except RequestError:
            sock.close()
            raise
        except (OSError, EOFError, http.client.HTTPException) as error:
            sock.close()
            reason = of_talking(error, too_late)
            raise RequestError(reason.why, f"the proxy: {reason.reason}") from None
        return sock


class Wires:
    """The connections that wait to be used again."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._idle: list[Wire] = []
        self._lock = threading.Lock()
        self._closed = False

    def get(self, seconds: float) -> Wire:
        """A connection that answers within `seconds`. Raises RequestError."""
        with self._lock:
            wire = self._idle.pop() if self._idle else None
        if wire is None:
            wire = Wire(self.route)
            wire.timeout = seconds
            wire.connect()
        return wire

    def put(self, wire: Wire) -> None:
        """Keeps a connection whose last answer was read to its end."""
        with self._lock:
            if not self._closed:
                self._idle.append(wire)
                return
        wire.close()

    def close(self) -> None:
        """Closes those that wait, and from now on those that come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()


@contextlib.contextmanager
def talking(too_late: str) -> Iterator[None]:
    """The errors of a connection that is in use, as RequestErrors."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise of_talking(error, too_late) from None


def _http_connect(sock: socket.socket, route: Route) -> None:
    host = f"[{route.host}]" if ":" in route.host else route.host
    lines = [f"CONNECT {host}:{route.port} HTTP/1.1", f"Host: {host}:{route.port}"]
    if route.proxy_authorization:
        lines.append(f"Proxy-Authorization: {route.proxy_authorization}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = http.client.HTTPResponse(sock, method="CONNECT")
    answer.begin()
    answer.close()
    if answer.status != 200:
        raise RequestError(Why.UNREACHABLE, f"the proxy refuses: {answer.status} {answer.reason}")


def _socks_connect(sock: socket.socket, route: Route, proxy: SplitResult) -> None:
    """SOCKS5 (RFC 1928, 1929); the proxy resolves the name."""
    user, password = (unquote(part or "").encode()[:255] for part in (proxy.username, proxy.password))
    sock.sendall(b"\x05\x01\x02" if user else b"\x05\x01\x00")
    if _exactly(sock, 2)[1] == 0xFF:
        raise RequestError(Why.UNREACHABLE, "the proxy wants another way to sign in")
    if user:
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        if _exactly(sock, 2)[1]:
            raise RequestError(Why.UNREACHABLE, "the proxy does not accept the user and password")
    host = _ascii(route.host)
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + route.port.to_bytes(2, "big"))
    _, code, _, kind = _exactly(sock, 4)
    if code:
        raise RequestError(Why.UNREACHABLE, f"the proxy cannot connect (SOCKS code {code})")
    # What follows is an address that nobody needs: IPv4, a name, or IPv6, and a port.
    _exactly(sock, {1: 4, 4: 16}.get(kind) or _exactly(sock, 1)[0])
    _exactly(sock, 2)


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = sock.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def _address(url: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in _PORTS and parts.port != 0 and 0 < len(_ascii(parts.hostname or "")) < 256:
            return parts
    except ValueError:
        pass
    raise AccessError(f"{what} is not an address: {url.rpartition('@')[2]}")


def _host_port(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _ascii(host: str) -> bytes:
    return host.encode("ascii") if host.isascii() else host.encode("idna")


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if endpoint.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif endpoint.authority:
        try:
            context.load_verify_locations(cadata=endpoint.authority.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise AccessError("certificate-authority of the kubeconfig is not a PEM certificate") from None
    else:
        context.load_default_certs()
    certificate, key = endpoint.credentials.certificate, endpoint.credentials.key
    if certificate and key:
        _load_client_certificate(context, certificate, key, endpoint.user)
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes, user: str) -> None:
    try:
        with _file_of(certificate.rstrip() + b"\n" + key) as name:
            # An empty password, lest OpenSSL asks for one on the terminal.
            context.load_cert_chain(name, password="")
    except (ssl.SSLError, OSError, ValueError):
        raise AccessError(f"the client certificate and key of user {user or 'of the kubeconfig'} do not fit") from None


@contextlib.contextmanager
def _file_of(secret: bytes) -> Iterator[str]:
    """The name of a file for OpenSSL's binding, which reads nothing else: in memory where there are such files, else gone at once."""
    try:
        handle, name = os.memfd_create("llmdoctor"), ""
    except (AttributeError, OSError):  # another system than Linux, or one that forbids them (vm.memfd_noexec)
        import tempfile

        handle, name = tempfile.mkstemp(prefix="llmdoctor-")  # only this user can read it
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
            file.flush()
            yield name or f"/proc/self/fd/{handle}"
    finally:
        if name:
            Path(name).unlink()


def environment_proxy(server: SplitResult) -> str:
    """The proxy that HTTPS_PROXY or HTTP_PROXY asks for, unless NO_PROXY or the address itself excludes it."""
    variable = f"{server.scheme}_proxy"
    proxy = os.environ.get(variable.upper()) or os.environ.get(variable) or ""
    host = server.hostname or ""
    if not proxy or host == "localhost" or host.startswith("127.") or host == "::1":
        return ""
    excluded = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    port = server.port or _PORTS[server.scheme]
    if any(_excludes(rule.strip().lower(), host, port) for rule in excluded.split(",")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _excludes(rule: str, host: str, port: int) -> bool:
    """Whether one entry of NO_PROXY covers a host: `*`, a domain, an address, a network, each maybe with a port."""
    if rule == "*":
        return True
    if not rule:
        return False
    if "/" in rule:
        import ipaddress

        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    name, _, wanted = rule.rpartition(":")
    if name and wanted.isdigit() and ":" not in name:
        if int(wanted) != port:
            return False
        rule = name
    rule = rule.removeprefix("*")
    return host == rule.lstrip(".") or host.endswith(rule if rule.startswith(".") else f".{rule}")

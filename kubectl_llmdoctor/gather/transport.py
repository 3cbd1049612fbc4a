"""Requests to one API server: a connection pool, bounded retries, and every failure as a reason in words.

The official client is not imported: loading it takes longer than a whole diagnosis, and all that is needed of it is
an authenticated GET.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from kubectl_llmdoctor import __version__
from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.gather.connection import Endpoint

if TYPE_CHECKING:
    import urllib3

#: Requests that run at the same time; a human's requests share a small part of the API server's capacity.
PARALLEL = 8

JSON = "application/json"

#: The largest answer that is read into memory.
_MAX_BODY_BYTES = 512 * 2**20

_CHUNK_BYTES = 2**16

#: Seconds before the first retry; each further one waits twice as long.
_BACKOFF = 0.2


class Why(StrEnum):
    """Kinds of failure that call for different advice."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    #: no such object
    NOT_FOUND = "not found"
    #: the server does not know this kind of object
    NO_SUCH_KIND = "no such kind"
    THROTTLED = "throttled"
    SERVER = "server"
    OTHER = "other"


class RequestError(Exception):
    """One request failed for good; `reason` says why in one line, without the address."""

    def __init__(self, why: Why, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.why = why
        self.reason = reason
        self.retry_after = retry_after


#: How often a request is sent again, by kind of failure. What timed out once is not tried again.
_RETRIES = {Why.THROTTLED: 6, Why.SERVER: 3, Why.BROKEN: 2}

Query = Mapping[str, str | int]
Decode = Callable[[bytes], Any]
T = TypeVar("T")


class Client:
    """Sends requests; safe to be used by several threads."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        #: seconds after which one request is cut
        self.timeout = timeout
        #: requests sent so far, retries included
        self.requests = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pool = _pool(endpoint)
        self._headers = _headers(endpoint)

    def close(self) -> None:
        """Closes the connections that are idle; requests that wait for another try give up."""
        self._closed.set()
        self._pool.clear()

    def get(self, path: str, query: Query | None = None, *, accept: str = JSON, decode: Decode) -> Any:
        """The body of an answer, decoded. Raises RequestError."""
        return self._send("GET", path, query, accept=accept, decode=decode)

    def post(self, path: str, body: Any, *, decode: Decode) -> Any:
        """The answer to a question that needs a body, such as an access review. Raises RequestError."""
        return self._send("POST", path, None, body=msgspec.json.encode(body), decode=decode)

    def stream(self, path: str, query: Query | None, *, seconds: float) -> Iterator[bytes]:
        """The body in pieces as they come, each within `timeout`, all within `seconds`. Raises RequestError.

        Retries only before the first piece.
        """
        response = self._retried(lambda until: self._open("GET", path, query, f"{JSON}, */*", None, until))
        yield from self._pieces(response, time.monotonic() + seconds, f"not read to its end in {seconds:g} s")

    def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        decode: Decode,
        accept: str = JSON,
        body: bytes | None = None,
    ) -> Any:
        def attempt(until: float) -> Any:
            response = self._open(method, path, query, accept, body, until)
            pieces: list[bytes] = []
            size = 0
            for piece in self._pieces(response, until, self._too_late):
                pieces.append(piece)
                size += len(piece)
                if size > _MAX_BODY_BYTES:
                    response.close()
                    raise RequestError(Why.OTHER, f"the answer is larger than {_MAX_BODY_BYTES // 2**20} MiB")
            try:
                return decode(b"".join(pieces))
            except (msgspec.DecodeError, RecursionError) as error:
                # A proxy that dies in the middle can leave an answer that ends cleanly and is not whole.
                raise RequestError(Why.BROKEN, f"the answer is not whole: {_one_line(str(error))}") from None

        return self._retried(attempt)

    @property
    def _too_late(self) -> str:
        return f"timed out after {self.timeout:g} s"

    def _retried(self, attempt: Callable[[float], T]) -> T:
        """Calls `attempt(deadline)` until it answers; gives up after about twice the timeout."""
        give_up = time.monotonic() + 2 * self.timeout
        tried = 0
        while True:
            try:
                return attempt(min(time.monotonic() + self.timeout, give_up))
            except RequestError as error:
                pause = _BACKOFF * 2**tried if error.retry_after is None else error.retry_after
                if tried >= _RETRIES.get(error.why, 0) or time.monotonic() + pause >= give_up:
                    raise
                tried += 1
                if self._closed.wait(pause):
                    raise

    def _open(
        self, method: str, path: str, query: Query | None, accept: str, body: bytes | None, until: float
    ) -> urllib3.BaseHTTPResponse:
        """An answer with a good status, its body still to be read."""
        import urllib3

        with self._lock:
            self.requests += 1
        headers = self._headers.copy()
        headers["Accept"] = accept
        if body is not None:
            headers["Content-Type"] = JSON
        seconds = max(until - time.monotonic(), 0.001)
        url = self.endpoint.server + quote(path) + (f"?{urlencode(query)}" if query else "")
        with _named_errors(self._too_late):
            response = self._pool.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=seconds, read=seconds),
            )
        if response.status >= 300:
            raise self._refusal(response, until)
        return response

    def _refusal(self, response: urllib3.BaseHTTPResponse, until: float) -> RequestError:
        """An answer with another status as an error."""
        text = b""
        with contextlib.suppress(RequestError):
            for piece in self._pieces(response, until, ""):
                text += piece
                if len(text) > _CHUNK_BYTES:
                    response.close()
                    break
        return _refusal(response.status, text, response.headers.get("Retry-After"), response.headers.get("Location"))

    def _pieces(self, response: urllib3.BaseHTTPResponse, until: float, too_late: str) -> Iterator[bytes]:
        try:
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    raise RequestError(Why.TIMEOUT, too_late)
                # Also a server that sends a byte now and then must not be waited for beyond the deadline.
                connection = response.connection
                sock = getattr(connection, "sock", None)
                if sock is not None:
                    sock.settimeout(min(left, self.timeout))
                with _named_errors(too_late if left < self.timeout else self._too_late):
                    piece = response.read1(_CHUNK_BYTES)
                if not piece:
                    break
                yield piece
        except BaseException:
            # What is left of this answer must not be taken for the next one's.
            response.close()
            raise
        response.release_conn()


def _refusal(status: int, body: bytes, retry_after: str | None, location: str | None) -> RequestError:
    """The server's own words for a status that is no success."""
    message, kind, named = _status_message(body)
    match status:
        case 401:
            return RequestError(Why.UNAUTHORIZED, f"unauthorized: {message or 'the credentials are not accepted'}")
        case 403:
            return RequestError(Why.FORBIDDEN, f"forbidden: {message or 'the server says no more'}")
        case 404 if kind and named:  # the server names the object that it does not have
            return RequestError(Why.NOT_FOUND, f"not found: {message}")
        case 404:
            return RequestError(Why.NO_SUCH_KIND, "not found: the server does not know this kind of object")
        case 429:
            return RequestError(
                Why.THROTTLED, _said("too many requests (429)", message), retry_after=_seconds(retry_after)
            )
        case _ if status >= 500 and status != 501:
            return RequestError(Why.SERVER, _said(f"server error {status}", message), retry_after=_seconds(retry_after))
        case _ if status < 400:
            return RequestError(Why.OTHER, f"the server sends elsewhere ({status}, {location}): is it an API server?")
    return RequestError(Why.OTHER, _said(f"refused ({status})", message))


def _said(what: str, message: str) -> str:
    return f"{what}: {message}" if message else what


def _status_message(body: bytes) -> tuple[str, bool, bool]:
    """The message of a metav1.Status, whether it is one, and whether it names an object; other text is shortened."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        tree = None
    if isinstance(tree, dict) and tree.get("kind") == "Status":
        details = tree.get("details")
        message = tree.get("message")
        named = isinstance(details, dict) and bool(details.get("name"))
        return _one_line(message if isinstance(message, str) else ""), True, named
    text = body.decode(errors="replace")
    if "<html" in text.lower():
        return "a web page instead of an answer; is it an API server?", False, False
    return _one_line(text), False, False


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:299] + "…"


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After as seconds, from either of its forms."""
    if not retry_after:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


@contextlib.contextmanager
def _named_errors(too_late: str) -> Iterator[None]:
    """The transport's exceptions as RequestErrors with a reason that a person understands."""
    from urllib3 import exceptions

    try:
        yield
    except RequestError:
        raise
    except exceptions.ProxyError as error:
        raise RequestError(Why.UNREACHABLE, f"the proxy does not answer: {_root(error)}") from None
    except exceptions.NameResolutionError:
        raise RequestError(Why.UNREACHABLE, "its name cannot be resolved") from None
    except exceptions.NewConnectionError as error:
        raise RequestError(Why.UNREACHABLE, _root(error)) from None
    except exceptions.TimeoutError:
        raise RequestError(Why.TIMEOUT, too_late) from None
    except (exceptions.SSLError, ssl.SSLError) as error:
        raise _tls_error(error) from None
    except exceptions.DecodeError:
        raise RequestError(Why.BROKEN, "the answer is not valid gzip") from None
    except (exceptions.HTTPError, OSError) as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ssl.SSLError):
            raise _tls_error(cause) from None
        raise RequestError(Why.BROKEN, f"connection broken: {_root(error)}") from None


def _tls_error(error: Exception) -> RequestError:
    text = str(error)
    reason = re.search(r"certificate verify failed: (.*?)(?: \(_ssl\.c:\d+\))?[)'\"]*$", text)
    if reason:
        return RequestError(Why.CERTIFICATE, f"its certificate is not trusted: {reason[1]}")
    if "alert" in text.lower() and "certificate" in text.lower().replace("_", " "):
        return RequestError(Why.UNAUTHORIZED, "the client certificate is not accepted")
    if "WRONG_VERSION_NUMBER" in text:
        return RequestError(Why.CERTIFICATE, "it does not speak TLS")
    return RequestError(Why.BROKEN, f"TLS failed: {_root(error)}")


def _root(error: BaseException) -> str:
    """The innermost cause's own words."""
    seen: set[int] = set()
    while True:
        seen.add(id(error))
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = error.__cause__ or error.__context__
        if inner is None or id(inner) in seen:
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if type(error).__name__ in ("IncompleteRead", "RemoteDisconnected"):
        return "the answer ends too early"
    return _one_line(str(error)) or type(error).__name__


def _headers(endpoint: Endpoint) -> Any:
    import urllib3

    headers = urllib3.HTTPHeaderDict({"User-Agent": f"kubectl-llmdoctor/{__version__}", "Accept-Encoding": "gzip"})
    if endpoint.credentials.authorization:
        headers["Authorization"] = endpoint.credentials.authorization
    for name, value in endpoint.impersonation:
        headers.add(name, value)
    return headers


def _pool(endpoint: Endpoint) -> urllib3.PoolManager:
    """One pool for all requests. Raises AccessError for certificates, keys and proxies that cannot be used."""
    import urllib3

    options: dict[str, Any] = {"maxsize": PARALLEL, "num_pools": 2}
    if endpoint.server.startswith("https:"):
        options["ssl_context"] = _tls(endpoint)
        if endpoint.tls_server_name:
            options["server_hostname"] = endpoint.tls_server_name
        if endpoint.insecure:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    proxy = endpoint.proxy or _environment_proxy(endpoint.server)
    if not proxy:
        return urllib3.PoolManager(**options)
    if proxy.startswith("socks"):
        from importlib.util import find_spec

        if find_spec("socks") is None:
            raise AccessError(f"the proxy {_without_password(proxy)} needs the Python package PySocks")
        from urllib3.contrib.socks import SOCKSProxyManager

        return SOCKSProxyManager(proxy.replace("socks5://", "socks5h://"), **options)
    parts = urlsplit(proxy)
    headers = None
    if parts.username:
        headers = urllib3.make_headers(proxy_basic_auth=f"{parts.username}:{parts.password or ''}")
    try:
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    except urllib3.exceptions.HTTPError:
        raise AccessError(f"the proxy {_without_password(proxy)} is not an address of a proxy") from None


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)


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
    import tempfile

    # OpenSSL's binding reads certificates from files only; only this user can read this one, and it is gone at once.
    handle, name = tempfile.mkstemp(prefix="llmdoctor-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate.rstrip() + b"\n" + key)
        # An empty password, lest OpenSSL asks for one on the terminal.
        context.load_cert_chain(name, password="")
    except (ssl.SSLError, OSError, ValueError):
        raise AccessError(f"the client certificate and key of user {user or 'of the kubeconfig'} do not fit") from None
    finally:
        Path(name).unlink()


def _environment_proxy(server: str) -> str:
    """The proxy that HTTPS_PROXY or HTTP_PROXY asks for, unless NO_PROXY or the address itself excludes it."""
    parts = urlsplit(server)
    variable = f"{parts.scheme}_proxy"
    proxy = os.environ.get(variable.upper()) or os.environ.get(variable) or ""
    host = parts.hostname or ""
    if not proxy or host == "localhost" or host.startswith("127.") or host == "::1":
        return ""
    excluded = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    if any(_excludes(rule.strip().lower(), host, parts.port or 443) for rule in excluded.split(",")):
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


def unreachable(endpoint: Endpoint, error: RequestError, what: str) -> AccessError:
    """Why the very first thing could not be read, and what to do about it, in one line."""
    of_context = f" (context {endpoint.context})" if endpoint.context else ""
    server = f"{endpoint.server}{of_context}"
    match error.why:
        case Why.UNREACHABLE | Why.BROKEN:
            return AccessError(f"cannot reach {server}: {error.reason}; check the context, the network and the VPN")
        case Why.CERTIFICATE:
            return AccessError(
                f"cannot talk to {server}: {error.reason}; check certificate-authority and server in the kubeconfig"
            )
        case Why.TIMEOUT:
            return AccessError(
                f"{server} does not answer: {error.reason}; check network and VPN, or raise --request-timeout"
            )
        case Why.UNAUTHORIZED:
            user = f" of user {endpoint.user}" if endpoint.user else ""
            return AccessError(f"{server} does not accept the credentials{user} ({error.reason}); sign in again")
        case Why.FORBIDDEN:
            return AccessError(f"cannot read {what}: {error.reason}; see `kubectl llmdoctor access`")
        case _:
            return AccessError(f"cannot read {what} from {server}: {error.reason}")


def query(**values: str | int) -> Query:
    """Query parameters without those that are empty."""
    return {key: value for key, value in values.items() if value not in ("", 0)}

"""Why a request failed, in words that a person understands."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from enum import StrEnum

import msgspec

from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.gather.connection import Endpoint


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
        #: seconds that the server asks to wait for
        self.retry_after = retry_after
        #: the status of an answer that is not the API server's own: of what stands behind its proxy
        self.status: int | None = None


#: What is asked, unless something else is.
API_SERVER = "an API server"


def one_line(text: str) -> str:
    """Text of any length without line ends, shortened."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:299] + "…"


def of_status(
    status: int, body: bytes, retry_after: str | None, location: str | None, *, expected: str = API_SERVER
) -> RequestError:
    """An answer whose status is no success, with the server's own words; `expected` is what should have answered."""
    message, is_status, names_object = _message(body, expected)
    to = (location or "").partition("?")[0]  # what follows may be somebody's sign-in
    error = _of_status(status, message, names_object and is_status, retry_after, to, expected)
    error.status = None if is_status else status
    return error


def _of_status(
    status: int, message: str, names_object: bool, retry_after: str | None, location: str, expected: str
) -> RequestError:
    said = f": {message}" if message else ""
    match status:
        case 401:
            return RequestError(Why.UNAUTHORIZED, f"unauthorized: {message or 'the credentials are not accepted'}")
        case 403:
            return RequestError(Why.FORBIDDEN, f"forbidden: {message or 'the server says no more'}")
        case 404 if names_object:
            return RequestError(Why.NOT_FOUND, f"not found: {message}")
        case 404 if expected != API_SERVER:
            return RequestError(Why.NOT_FOUND, f"not found (404){said}")
        case 404:  # the server would name the object if it knew the kind
            return RequestError(Why.NO_SUCH_KIND, "not found: the server does not know this kind of object")
        case 429:
            return RequestError(Why.THROTTLED, f"too many requests (429){said}", retry_after=_seconds(retry_after))
        case _ if status >= 500 and status != 501:
            return RequestError(Why.SERVER, f"server error {status}{said}", retry_after=_seconds(retry_after))
        case _ if status < 400:
            return RequestError(Why.OTHER, f"the server sends elsewhere ({status}, {location}): is it {expected}?")
    return RequestError(Why.OTHER, f"refused ({status}){said}")


def _message(body: bytes, expected: str) -> tuple[str, bool, bool]:
    """The message of a metav1.Status, whether it is one, and whether it names an object; other text is shortened."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        tree = None
    if isinstance(tree, dict) and tree.get("kind") == "Status":
        details, message = tree.get("details"), tree.get("message")
        names_object = isinstance(details, dict) and bool(details.get("name"))
        return one_line(message if isinstance(message, str) else ""), True, names_object
    if isinstance(tree, dict) and tree.get("status") == "error":  # Prometheus
        return one_line(f"{tree.get('errorType', 'error')}: {tree.get('error', '')}"), False, False
    text = body.decode(errors="replace")
    if "<html" in text.lower():
        return web_page(expected), False, False
    return one_line(text), False, False


def web_page(expected: str) -> str:
    """What stands in the place of an answer that is HTML: mostly somebody asks to sign in."""
    return f"a web page instead of an answer; is it {expected}?"


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


def of_connecting(error: OSError, too_late: str, who: str = "") -> RequestError:
    """The server, or `who` in its place, cannot be connected to."""
    if isinstance(error, TimeoutError):
        return RequestError(Why.TIMEOUT, too_late)
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    import socket

    if isinstance(error, socket.gaierror):
        return RequestError(Why.UNREACHABLE, f"the name of {who or 'the server'} cannot be resolved")
    return RequestError(Why.UNREACHABLE, f"{who}: {_words(error)}" if who else _words(error))


def of_talking(error: Exception, too_late: str) -> RequestError:
    """The connection fails while it is used."""
    if isinstance(error, TimeoutError):
        return RequestError(Why.TIMEOUT, too_late)
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    return RequestError(Why.BROKEN, f"connection broken: {_words(error)}")


def _of_tls(error: ssl.SSLError) -> RequestError:
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return RequestError(Why.CERTIFICATE, f"its certificate is not trusted: {one_line(error.verify_message)}")
    if ("alert" in text and "certificate" in text) or "UNKNOWN_CA" in text:  # what the server says to the client
        return RequestError(Why.UNAUTHORIZED, "the client certificate is not accepted")
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
        return RequestError(Why.CERTIFICATE, "it does not speak TLS")
    reason = re.sub(r"^\[[^]]*] ?| ?\(_ssl\.c:\d+\)$", "", text)
    return RequestError(Why.BROKEN, f"TLS failed: {one_line(reason)}")


def _words(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected | EOFError):
        return "the answer ends too early"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return one_line(str(error)) or type(error).__name__


#: What may be over when the server is asked again.
_PASSING = (Why.UNREACHABLE, Why.BROKEN, Why.TIMEOUT, Why.THROTTLED, Why.SERVER)


def unreachable(
    endpoint: Endpoint, error: RequestError, what: str, hint: str = "; see `kubectl llmdoctor access`"
) -> AccessError:
    """Why the very first thing could not be read, and what to do about it, in one line.

    `hint` tells who is refused what to look at.
    """
    found = _unreachable(endpoint, error, what, hint)
    found.passing = error.why in _PASSING
    return found


def _unreachable(endpoint: Endpoint, error: RequestError, what: str, hint: str) -> AccessError:
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
            return AccessError(f"cannot read {what}: {error.reason}{hint}")
        case _:
            return AccessError(f"cannot read {what} from {server}: {error.reason}")

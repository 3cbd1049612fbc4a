"""Requests to one API server: bounded in time and size, tried again where that may help."""

from __future__ import annotations

import contextlib
import http.client
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from kubectl_llmdoctor import __version__
from kubectl_llmdoctor.gather.connection import Endpoint
from kubectl_llmdoctor.gather.failure import API_SERVER, RequestError, Why, of_status, one_line, web_page
from kubectl_llmdoctor.gather.wire import Route, Wire, Wires, talking

#: Requests that run at the same time; a human's requests share a small part of the API server's capacity.
PARALLEL = 6

JSON = "application/json"

#: The largest answer that is read into memory.
_MAX_BODY_BYTES = 512 * 2**20

_CHUNK_BYTES = 2**16

#: Seconds before the first retry; each further one waits twice as long.
_BACKOFF = 0.2

#: How often a request is sent again, by kind of failure. What timed out once is not tried again.
_RETRIES = {Why.THROTTLED: 6, Why.SERVER: 3, Why.BROKEN: 2}

#: The same for what may be asked once only, or is not worth the wait: a connection that was closed meanwhile.
ONCE: Mapping[Why, int] = {}
STALE = {Why.BROKEN: 1}

_OVER = "not read: the time of --timeout was over"

Query = Mapping[str, str | int]
Decode = Callable[[bytes], Any]
T = TypeVar("T")


class _Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: Query | None = None
    accept: str = JSON
    body: bytes | None = None
    content_type: str = JSON


class Client:
    """Sends requests; safe to be used by several threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: float,
        pace: Pace | None = None,
        *,
        expected: str = API_SERVER,
        most_bytes: int = _MAX_BODY_BYTES,
        retries: Mapping[Why, int] = _RETRIES,
        deadline: float = math.inf,
    ) -> None:
        self.endpoint = endpoint
        self._pace = pace
        #: seconds after which one request is cut
        self.timeout = timeout
        #: the monotonic time after which none is sent or read on
        self.deadline = deadline
        #: what should answer there, for the words about an answer that is none of its
        self.expected = expected
        self._most_bytes = most_bytes
        self._retries = retries
        #: requests sent so far, retries included
        self.requests = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._route = Route(endpoint)
        self._wires = Wires(self._route)
        self._headers = _headers(endpoint, self._route)

    def close(self) -> None:
        """Closes the connections that are idle; requests that wait for another try give up."""
        self._closed.set()
        self._wires.close()

    def get(self, path: str, query: Query | None = None, *, accept: str = JSON, decode: Decode) -> Any:
        """The body of an answer, decoded. Raises RequestError."""
        request = _Request("GET", path, query, accept)
        return self._retried(lambda until: self._whole(request, until, decode))

    def get_once(self, path: str, *, seconds: float, most_bytes: int) -> tuple[bytes, str]:
        """The body of an answer and its `Date`, of something that must not keep anybody waiting. Raises RequestError."""
        until = time.monotonic() + seconds
        answer = self._open(_Request("GET", path), until)
        pieces = self._pieces(answer, until, f"timed out after {seconds:g} s")
        return _joined(pieces, answer, most_bytes), answer.header("Date") or ""

    def post(self, path: str, body: Any, *, decode: Decode) -> Any:
        """The answer to a question that needs a body, such as an access review. Raises RequestError."""
        request = _Request("POST", path, body=msgspec.json.encode(body))
        return self._retried(lambda until: self._whole(request, until, decode))

    def patch(self, path: str, query: Query, body: bytes, content_type: str, *, decode: Decode) -> Any:
        """The answer to a patch; sent once, for the server may have done what it was asked. Raises RequestError."""
        request = _Request("PATCH", path, query, body=body, content_type=content_type)
        return self._whole(request, self._until(self.timeout), decode)

    def stream(self, path: str, query: Query | None, *, seconds: float) -> Iterator[bytes]:
        """The body in pieces as they come, each within `timeout`, all within `seconds`. Raises RequestError.

        Retries only before the first piece.
        """
        request = _Request("GET", path, query, f"{JSON}, */*")
        answer = self._retried(lambda until: self._open(request, until))
        yield from self._pieces(answer, self._until(seconds), f"not read to its end in {seconds:g} s")

    def _whole(self, request: _Request, until: float, decode: Decode) -> Any:
        answer = self._open(request, until)
        body = _joined(self._pieces(answer, until, self._too_late), answer, self._most_bytes)
        try:
            return decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            if body.lstrip()[:1] == b"<":
                raise RequestError(Why.OTHER, web_page(self.expected)) from None
            # A proxy that dies in the middle can leave an answer that ends cleanly and is not whole.
            raise RequestError(Why.BROKEN, f"the answer is not whole: {one_line(str(error))}") from None

    def _until(self, seconds: float) -> float:
        return min(time.monotonic() + seconds, self.deadline)

    @property
    def _too_late(self) -> str:
        return f"timed out after {self.timeout:g} s"

    def _in_time(self, error: RequestError) -> RequestError:
        """The same failure, or that the time for everything is over."""
        over = error.why == Why.TIMEOUT and time.monotonic() >= self.deadline
        return RequestError(Why.TIMEOUT, _OVER) if over else error

    def _retried(self, attempt: Callable[[float], T]) -> T:
        """Calls `attempt(deadline)` until it answers; gives up after about twice the timeout."""
        give_up = self._until(2 * self.timeout)
        tried = 0
        while True:
            try:
                return attempt(min(time.monotonic() + self.timeout, give_up))
            except RequestError as raised:
                error = self._in_time(raised)
                pause = _BACKOFF * 2**tried if error.retry_after is None else error.retry_after
                if tried >= self._retries.get(error.why, 0) or time.monotonic() + pause >= give_up:
                    raise error from None
                tried += 1
                if self._closed.wait(pause):
                    raise error from None

    def _open(self, request: _Request, until: float) -> _Answer:
        """An answer with a good status, its body still to be read."""
        if time.monotonic() >= self.deadline:
            raise RequestError(Why.TIMEOUT, _OVER)
        with self._lock:
            self.requests += 1
        if self._pace is not None:
            until += self._pace.wait()
        wire = self._wires.get(max(until - time.monotonic(), 0.001))
        try:
            with talking(self._too_late):
                _limit(wire, until)
                root = self.endpoint.server if self._route.asks_proxy else self._route.server.path
                target = root + quote(request.path, safe="/:")
                target += f"?{urlencode(request.query)}" if request.query else ""
                wire.putrequest(request.method, target, skip_accept_encoding=True)
                for name, value in self._headers:
                    wire.putheader(name, value)
                wire.putheader("Accept", request.accept)
                if request.body is not None:
                    wire.putheader("Content-Type", request.content_type)
                    wire.putheader("Content-Length", str(len(request.body)))
                wire.endheaders(request.body)
                answer = _Answer(wire, wire.getresponse())
        except BaseException:
            wire.close()
            raise
        if answer.status >= 300:
            raise self._refusal(answer, until)
        return answer

    def _refusal(self, answer: _Answer, until: float) -> RequestError:
        text = b""
        with contextlib.suppress(RequestError):
            for piece in self._pieces(answer, until, ""):
                text += piece
                if len(text) > _CHUNK_BYTES:
                    answer.drop()
                    break
        return of_status(
            answer.status, text, answer.header("Retry-After"), answer.header("Location"), expected=self.expected
        )

    def _pieces(self, answer: _Answer, until: float, too_late: str) -> Iterator[bytes]:
        try:
            while True:
                # Also a server that sends a byte now and then must not be waited for beyond the deadline.
                left = until - time.monotonic()
                if left <= 0:
                    raise RequestError(Why.TIMEOUT, too_late)
                _limit(answer.wire, until, self.timeout)
                with talking(too_late if left < self.timeout else self._too_late):
                    piece = answer.read()
                if piece is None:
                    break
                if piece:
                    yield piece
        except BaseException as error:
            # What is left of this answer must not be taken for the next one's.
            answer.drop()
            if isinstance(error, RequestError):
                raise self._in_time(error) from None
            raise
        if answer.reusable:
            self._wires.put(answer.wire)
        else:
            answer.drop()


class Pace:
    """At most so many requests within any second, by all threads together."""

    def __init__(self, per_second: int) -> None:
        self._last: deque[float] = deque(maxlen=per_second)
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Waits until one more may be sent; returns how many seconds that took."""
        with self._lock:
            now = time.monotonic()
            full = len(self._last) == self._last.maxlen
            due = max(now, self._last[0] + 1) if full else now
            self._last.append(due)
        time.sleep(due - now)
        return due - now


class _Answer:
    """An answer whose body is read piece by piece."""

    def __init__(self, wire: Wire, response: http.client.HTTPResponse) -> None:
        self.wire = wire
        self.status = response.status
        self._response = response
        self._left = response.length
        self._unzip: Any = None
        if response.getheader("Content-Encoding", "").lower() == "gzip":
            import zlib

            self._unzip = zlib.decompressobj(wbits=31)

    def header(self, name: str) -> str | None:
        """The value of a header."""
        return self._response.getheader(name)

    def read(self) -> bytes | None:
        """The next piece, maybe empty; None at the end. Raises the errors of the connection."""
        piece = b"" if self._left == 0 else self._response.read1(_CHUNK_BYTES)
        if self._left is not None:
            self._left -= len(piece)
        if not piece:
            if self._left or (self._unzip and not self._unzip.eof):
                raise http.client.IncompleteRead(b"")
            self._response.close()
            return None
        if self._unzip is None:
            return piece
        import zlib

        try:
            plain: bytes = self._unzip.decompress(piece)
        except zlib.error:
            raise http.client.HTTPException("the answer is not valid gzip") from None
        return plain

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request, once the body has been read to its end."""
        return not self._response.will_close

    def drop(self) -> None:
        """Closes the connection."""
        self._response.close()
        self.wire.close()


def _joined(pieces: Iterator[bytes], answer: _Answer, most_bytes: int) -> bytes:
    """A whole body. Raises RequestError for one that is too large."""
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > most_bytes:
            answer.drop()
            raise RequestError(Why.OTHER, f"the answer is larger than {most_bytes // 2**20} MiB")
    return b"".join(found)


def _limit(wire: Wire, until: float, at_most: float = float("inf")) -> None:
    """The next step on the connection takes no longer than until the deadline."""
    if wire.sock is not None:
        wire.sock.settimeout(min(max(until - time.monotonic(), 0.001), at_most))


def _headers(endpoint: Endpoint, route: Route) -> list[tuple[str, bytes]]:
    headers = [("User-Agent", f"kubectl-llmdoctor/{__version__}"), ("Accept-Encoding", "gzip")]
    if endpoint.credentials.authorization:
        headers.append(("Authorization", endpoint.credentials.authorization))
    if route.asks_proxy and route.proxy_authorization:
        headers.append(("Proxy-Authorization", route.proxy_authorization))
    return [(name, value.encode()) for name, value in (*headers, *endpoint.impersonation, *endpoint.headers)]


def query(**values: str | int) -> Query:
    """Query parameters without those that are empty."""
    return {key: value for key, value in values.items() if value not in ("", 0)}

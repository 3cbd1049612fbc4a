"""Serves the last report over HTTP: `/v1/report`, `/metrics`, `/healthz`, `/readyz`.

Who may ask is decided before a request comes here: by the API server (`pods/proxy`) and a NetworkPolicy. What comes
nevertheless must cost little: so many connections at a time, so many bytes and seconds each, GET and nothing else.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import socket
import threading
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from llmdoctor_agent import __version__
from llmdoctor_agent.loop import Loop
from llmdoctor_agent.metrics import exposition
from llmdoctor_agent.report import to_json

#: Connections that are answered at the same time, each on a thread; of more the oldest has to go.
CONNECTIONS = 8

#: Seconds that one connection may take, request and answer together.
SECONDS = 20.0

#: Seconds in which a connection that was hung up has ended; it has nothing left to wait for.
_ENDING = 2.0

#: Bytes that a request may have; no answer depends on more than the path and two headers.
REQUEST_BYTES = 16 * 1024

#: Seconds that `?fresh=1` waits for a reading.
FRESH_SECONDS = 10.0

#: Readings that may fail or hang in a row before `/healthz` says so.
_LATE_READINGS = 5

#: What an interval is at least taken for by `/healthz`: a driver that reloads makes readings late, and a restart no better.
_SHORTEST = 30.0


class Server(http.server.HTTPServer):
    """Answers from a loop's last report; `serve_forever` and `shutdown` as any other server of the standard library."""

    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], loop: Loop, interval: float) -> None:
        self.loop = loop
        self._interval = interval
        self._changed = threading.Condition()
        #: those that may wait for a fresh reading; the others get the last one, so that probes always find a thread
        self.waiting = threading.Semaphore(CONNECTIONS // 2)
        #: by their sockets: when each connection was opened
        self._open: dict[socket.socket, float] = {}
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)

    @property
    def healthy(self) -> bool:
        """Whether readings still come."""
        return self.loop.idle_seconds < _LATE_READINGS * max(self._interval, _SHORTEST)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers on a thread of its own. Where all are taken, the connection that is open for the longest ends."""
        with self._changed:
            if len(self._open) >= CONNECTIONS:
                _hang_up(min(self._open, key=self._open.__getitem__))
                if not self._changed.wait_for(lambda: len(self._open) < CONNECTIONS, _ENDING):
                    self.shutdown_request(request)
                    return
            self._open[request] = time.monotonic()
        try:
            threading.Thread(target=self._answer, args=(request, client_address), daemon=True).start()
        except RuntimeError:  # the node has no thread left; the next one may find one
            with self._changed:
                del self._open[request]
            raise  # which closes the connection

    def service_actions(self) -> None:
        """Ends what takes too long: a client that sends or reads a byte now and then never times out by itself."""
        late = time.monotonic() - SECONDS
        with self._changed:
            for connection in [one for one, since in self._open.items() if since < late]:
                _hang_up(connection)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        try:
            request.settimeout(SECONDS)
            with contextlib.suppress(OSError, ValueError):  # the client is gone
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            with self._changed:
                del self._open[request]
                self._changed.notify_all()

    def server_bind(self) -> None:
        """Binds without asking the name service for the name of this host, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def _hang_up(connection: socket.socket) -> None:
    """Wakes the thread that reads from or writes to a connection; it closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Bounded(io.RawIOBase):
    """At most so many bytes of a stream; who sends more is hung up on."""

    def __init__(self, stream: Any, left: int) -> None:
        self._stream = stream
        self._left = left

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes. Raises ConnectionError behind the last one that is allowed."""
        if not self._left:
            raise ConnectionError("the request is too large")
        piece: bytes = self._stream.read1(min(len(buffer), self._left))
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request; the connection ends with its answer."""

    server: Server
    server_version = f"llmdoctor-agent/{__version__}"
    sys_version = ""

    def setup(self) -> None:
        """Bounds what is read."""
        super().setup()
        self.rfile = io.BufferedReader(_Bounded(self.rfile, REQUEST_BYTES))

    def do_GET(self) -> None:
        """Answers."""
        parts = urlsplit(self.path)
        match parts.path:
            case "/v1/report":
                self._report(fresh=parse_qs(parts.query).get("fresh") == ["1"])
            case "/metrics":
                text = exposition(self.server.loop.last)
                self._send(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", text.encode())
            case "/healthz":
                fine = self.server.healthy
                self._say(
                    HTTPStatus.OK if fine else HTTPStatus.INTERNAL_SERVER_ERROR, "ok" if fine else "no reading ends"
                )
            case "/readyz":
                ready = self.server.loop.last is not None
                self._say(
                    HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, "ok" if ready else "no reading yet"
                )
            case _:
                self._say(HTTPStatus.NOT_FOUND, "there are /v1/report, /metrics, /healthz and /readyz")

    def _report(self, *, fresh: bool) -> None:
        loop, report = self.server.loop, self.server.loop.last
        if fresh and self.server.waiting.acquire(blocking=False):
            try:
                report = loop.fresh(FRESH_SECONDS)
            finally:
                self.server.waiting.release()
        if report is None:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "no reading yet")
        else:
            self._send(HTTPStatus.OK, "application/json", to_json(report))

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        zipped = "gzip" in self.headers.get("Accept-Encoding", "") and len(body) > 1024
        if zipped:
            body = gzip.compress(body, compresslevel=5, mtime=0)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the kubelet asks every few seconds."""

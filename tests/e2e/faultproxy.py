"""A proxy between the program and the API server that breaks what it is told to break.

It ends the program's TLS with a certificate of the cluster's authority and asks the API server as the administrator, so
every fault is the proxy's. HTTP/1.1 only, which both sides accept.
"""

import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from . import network
from .controlplane import SERVER
from .pki import Pair
from .tlsserver import QuietHandler, TlsServer

PORT = 7443
URL = f"https://{network.ADDRESS}:{PORT}"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Answer:
    """What the API server said, or what is said in its place."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange(QuietHandler):
    """One connection of the program."""

    proxy: "FaultProxy"

    def answer(self, answer: Answer, body: bytes | None = None) -> None:
        """Sends an answer; ``body`` replaces what is sent of it, not what its headers announce."""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if body is None else body)
        self.wfile.flush()

    def forward(self) -> Answer:
        """Asks the API server."""
        return self.proxy.ask(self.command, self.path, dict(self.headers.items()), self._body)

    def reset(self) -> None:
        """Breaks the connection the hard way, so that the other side sees a reset and no orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        raise ConnectionResetError

    def do_GET(self) -> None:  # noqa: N802 (http.server looks for this name)
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.proxy.match(f"{self.command} {self.path}")
        if rule is None:
            self.answer(self.forward())
        else:
            rule.fault(self)

    do_POST = do_GET  # noqa: N815 (the same)


Fault = Callable[[Exchange], None]


def refuse(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Fault:
    """The API server's own kind of error."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    body = json.dumps(status | {"message": message, "reason": reason, "code": code}).encode()
    answer = Answer(code, {"Content-Type": "application/json"} | (headers or {}), body)
    return lambda exchange: exchange.answer(answer)


def reset_midway(exchange: Exchange) -> None:
    """Sends half of the body, then resets the connection."""
    answer = exchange.forward()
    exchange.answer(answer, answer.body[: len(answer.body) // 2])
    exchange.reset()


def cut_json(exchange: Exchange) -> None:
    """Sends half of the body as if it were the whole (uncompressed, as the proxy gets it)."""
    answer = exchange.forward()
    exchange.answer(Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2]))


def silence(seconds: float) -> Fault:
    """Says nothing for so long, then answers."""

    def fault(exchange: Exchange) -> None:
        exchange.proxy.stopped.wait(seconds)
        exchange.answer(exchange.forward())

    return fault


@dataclass
class Rule:
    """Which requests get the fault: all whose "METHOD path?query" the pattern is found in, or the first ``times``."""

    pattern: str
    fault: Fault
    times: int | None = None
    hits: list[float] = field(default_factory=list)


class FaultProxy:
    """Serves at ``URL`` from ``start`` to ``stop``; ``rules`` may change in between."""

    def __init__(self, certificate: Pair, ca: Path, admin: Pair) -> None:
        self.rules: list[Rule] = []
        self.requests: list[str] = []
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._pool = urllib3.PoolManager(
            ca_certs=str(ca), cert_file=str(admin.certificate), key_file=str(admin.key), retries=False, maxsize=32
        )
        self._server = TlsServer(PORT, certificate, type("Connection", (Exchange,), {"proxy": self}))

    def start(self) -> None:
        """Begins to serve."""
        self._server.start()

    def stop(self) -> None:
        """Frees the port; what is silent wakes up."""
        self.stopped.set()
        self._server.stop()
        self._pool.clear()

    def match(self, request: str) -> Rule | None:
        """The first rule that has something to say about the request; it counts the hit."""
        with self._lock:
            self.requests.append(request)
            for rule in self.rules:
                if re.search(rule.pattern, request) and (rule.times is None or len(rule.hits) < rule.times):
                    rule.hits.append(time.monotonic())
                    return rule
        return None

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Forwards one request as the administrator."""
        kept = {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP | {"accept-encoding"}}
        response = self._pool.request(method, SERVER + path, headers=kept, body=body or None, timeout=30)
        passed = {name: value for name, value in response.headers.items() if name.lower() not in HOP_BY_HOP}
        return Answer(response.status, passed, response.data)

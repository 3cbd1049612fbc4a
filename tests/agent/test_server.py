"""The agent's HTTP server: what it answers, and what hostile clients cost it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from llmdoctor_agent import server as module
from llmdoctor_agent.loop import Loop
from llmdoctor_agent.report import Gpu, Report
from llmdoctor_agent.server import CONNECTIONS, Server


class Node:
    """What is read: a report with the number of the reading in it."""

    def __init__(self) -> None:
        self.count = 0
        self.go = threading.Event()
        self.go.set()
        self.fails = False

    def read(self) -> Report:
        self.go.wait(10)
        self.count += 1
        if self.fails:
            raise RuntimeError("nobody foresaw this")
        return Report(node="gpu-1", agent_version=str(self.count), gpus=tuple(Gpu(index=n) for n in range(200)))


Start = Callable[..., Server]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def start(node: Node) -> Iterator[Start]:
    running: list[Server] = []

    def run(interval: float = 60.0) -> Server:
        loop = Loop(node.read, interval)
        server = Server(("127.0.0.1", 0), loop, interval)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        loop.start()
        running.append(server)
        return server

    yield run
    node.go.set()
    for server in running:
        server.shutdown()
        server.server_close()
        server.loop.stop(5)


def get(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_last_report(start: Start, node: Node) -> None:
    server = start()
    until(lambda: server.loop.last is not None)

    status, headers, body = get(server, "/v1/report")
    _, zipped, small = get(server, "/v1/report", **{"Accept-Encoding": "gzip"})

    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["schema"] == "llmdoctor.agent/v1"
    assert json.loads(body)["node"] == "gpu-1"
    assert zipped["Content-Encoding"] == "gzip"
    assert gzip.decompress(small) == body
    assert len(small) < len(body) / 5
    assert node.count == 1


def test_a_fresh_one_on_demand_and_not_too_often(start: Start, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmdoctor_agent.loop.APART", 0.3)
    server = start()
    until(lambda: server.loop.last is not None)
    began = time.monotonic()

    numbers = [json.loads(get(server, "/v1/report?fresh=1")[2])["agentVersion"] for _ in range(3)]

    assert numbers == ["2", "3", "4"]
    assert time.monotonic() - began > 0.6


def test_a_fresh_one_that_does_not_come_is_the_last_one(
    start: Start, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmdoctor_agent.loop.APART", 0.0)
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.1)
    server = start()
    until(lambda: server.loop.last is not None)
    node.go.clear()

    status, _, body = get(server, "/v1/report?fresh=1")

    assert (status, json.loads(body)["agentVersion"]) == (200, "1")


def test_who_waits_for_a_fresh_one_keeps_nobody_else_waiting(start: Start, node: Node) -> None:
    server = start()
    until(lambda: server.loop.last is not None)
    node.go.clear()
    line = b"GET /v1/report?fresh=1 HTTP/1.1\r\n\r\n"
    many = [socket.create_connection(("127.0.0.1", server.server_port), timeout=5) for _ in range(CONNECTIONS)]
    try:
        for connection in many:
            connection.sendall(line)
        # those for whom there is no place to wait have the last one
        until(lambda: len(server._open) == CONNECTIONS // 2)
        began = time.monotonic()
        assert get(server, "/healthz")[0] == 200
        assert time.monotonic() - began < 5
    finally:
        for connection in many:
            connection.close()


def test_before_the_first_reading(start: Start, node: Node) -> None:
    node.go.clear()
    server = start()

    assert get(server, "/v1/report")[0] == 503
    assert get(server, "/readyz")[0] == 503
    assert get(server, "/healthz")[0] == 200
    assert get(server, "/metrics")[::2] == (200, b"")
    node.go.set()
    until(lambda: get(server, "/readyz")[0] == 200)
    assert b"llmdoctor_agent_info" in get(server, "/metrics")[2]


def test_readings_that_never_end_are_told_by_healthz(start: Start, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHORTEST", 0.05)
    monkeypatch.setattr("llmdoctor_agent.loop.APART", 0.0)
    node.fails = True
    server = start(0.05)

    until(lambda: get(server, "/healthz")[0] == 500)
    node.fails = False
    until(lambda: get(server, "/healthz")[0] == 200)


def test_a_node_without_threads_costs_the_connections_of_that_time_only(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start()
    until(lambda: server.loop.last is not None)

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread", NoThread)
        for _ in range(CONNECTIONS + 1):
            with contextlib.suppress(http.client.HTTPException, OSError):
                get(server, "/healthz")
    began = time.monotonic()

    assert get(server, "/healthz")[0] == 200
    assert time.monotonic() - began < 5
    assert "can't start new thread" in capsys.readouterr().err


def test_nothing_else_is_served(start: Start) -> None:
    server = start()

    assert get(server, "/")[0] == 404
    assert get(server, "/v1/report/../../etc/passwd")[0] == 404
    for method in ("POST", "PUT", "DELETE", "HEAD", "CONNECT", "OPTIONS"):
        assert get(server, "/v1/report", method)[0] == 501


def raw(server: Server, data: bytes) -> bytes:
    with closing(socket.create_connection(("127.0.0.1", server.server_port), timeout=5)) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
        return answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: " + b"b" * 10**6 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: c\r\n" % n for n in range(10**5)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 4 + b"\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"\r\n",
    ],
    ids=["long path", "long header", "many headers", "TLS", "bad target", "bad version", "nothing"],
)
def test_requests_of_any_size_and_shape_cost_their_connection_only(start: Start, request_: bytes) -> None:
    server = start()

    answer = raw(server, request_)

    assert b" 200 " not in answer
    assert get(server, "/healthz")[0] == 200


def test_slow_clients_do_not_keep_others_waiting(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 1.0)
    server = start()
    slow = [socket.create_connection(("127.0.0.1", server.server_port), timeout=5) for _ in range(3 * CONNECTIONS)]
    try:
        for connection in slow:
            connection.send(b"GET /heal")
        assert get(server, "/healthz")[0] == 200
        assert len(server._open) <= CONNECTIONS
        # one that sends a byte now and then is ended as well
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 5:
                slow[-1].send(b"a")
                time.sleep(0.05)
        assert time.monotonic() - began < 4
    finally:
        for connection in slow:
            connection.close()
    until(lambda: not server._open)

"""One gRPC call over a unix socket: a message there, a message back (gRPC over HTTP/2, grpc/grpc `PROTOCOL-HTTP2.md`).

HTTP/2 is the library h2's. grpcio would do the same with 22 MB of memory, of 64 that the agent may use; this takes 3.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

#: a status code of gRPC: the service, or this method of it, is not there
UNIMPLEMENTED = 12
_STREAM = 1
_CLOSED = "the connection was closed before the answer"
#: before each message: whether it is compressed, and its length
_PREFIX = struct.Struct(">?I")


class CallError(Exception):
    """A call without an answer, and why; `status` is the code that the server gave, where it gave one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _Answer:
    """What has come of an answer."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False

    def take(self, event: Event) -> int:
        """Adds an event; how many bytes of the flow control's window are free again."""
        match event:
            case ResponseReceived() | TrailersReceived():
                self.headers |= {_text(name): _text(value) for name, value in event.headers}
            case DataReceived():
                self.body += event.data
                if len(self.body) > self.max_bytes:
                    raise CallError(f"an answer of more than {self.max_bytes} bytes")
                return event.flow_controlled_length
            case StreamEnded():
                self.ended = True
            case StreamReset() | ConnectionTerminated():
                raise CallError(f"the call was broken off (HTTP/2 error {int(event.error_code or 0)})")
        return 0

    def message(self) -> bytes:
        """The message, once it is complete."""
        status = self.headers.get("grpc-status", "")
        if status != "0":
            code = int(status) if status.isdecimal() else None
            said = f"gRPC status {status}" if status else f"HTTP status {self.headers.get(':status', 'unknown')}"
            details = unquote(self.headers.get("grpc-message", ""))[:300]
            raise CallError(f"{said}: {details}" if details else said, code)
        if len(self.body) < _PREFIX.size:
            raise CallError("an answer without a message")
        compressed, size = _PREFIX.unpack_from(self.body)
        if compressed or size != len(self.body) - _PREFIX.size:
            raise CallError("an answer that is not one plain message")
        return bytes(self.body[_PREFIX.size :])


def call(path: Path, method: str, *, deadline_s: float, max_bytes: int) -> bytes:
    """Calls a method (`/v1.PodResourcesLister/List`) with an empty message.

    Raises CallError where an answer does not come, is not one message or is larger than `max_bytes`, TimeoutError after
    the deadline and OSError where nobody listens at the socket.
    """
    end = time.monotonic() + deadline_s
    connection, answer = H2Connection(H2Configuration(client_side=True)), _Answer(max_bytes)
    connection.initiate_connection()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    connection.send_headers(_STREAM, [*headers.items()])
    connection.send_data(_STREAM, _PREFIX.pack(False, 0), end_stream=True)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(deadline_s)
        stream.connect(str(path))
        try:
            while not answer.ended:
                stream.settimeout(_left(end))
                stream.sendall(connection.data_to_send())
                stream.settimeout(_left(end))
                if not (received := stream.recv(65536)):
                    raise CallError(_CLOSED)
                for event in connection.receive_data(received):
                    if freed := answer.take(event):
                        connection.acknowledge_received_data(freed, _STREAM)
        except H2Error as e:
            raise CallError(f"not HTTP/2: {e}") from None
        except (BrokenPipeError, ConnectionResetError):
            raise CallError(_CLOSED) from None
    return answer.message()


def _left(end: float) -> float:
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")

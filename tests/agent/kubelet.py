"""A kubelet's pod-resources socket, speaking the real protobuf by the real runtime: nothing of it is the agent's."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

SERVICE = "v1.PodResourcesLister"


@cache
def _message(name: str) -> type[Any]:
    """A message class of podresources.proto, as protoc understands the file."""
    here = Path(__file__).parent
    with tempfile.NamedTemporaryFile() as out:
        assert protoc.main(["protoc", f"-I{here}", f"--descriptor_set_out={out.name}", "podresources.proto"]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    found: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}"))
    return found


def encode(pods: list[dict[str, Any]]) -> bytes:
    """An answer of `List` on the wire, from its JSON form."""
    message = json_format.ParseDict({"podResources": pods}, _message("ListPodResourcesResponse")())
    wire: bytes = message.SerializeToString()
    return wire


class Kubelet:
    """What the server answers; tests change it while it runs."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        #: the answer itself, where it is to be something else than `pods`
        self.raw: bytes | None = None
        #: a status code instead of an answer
        self.refuses: tuple[grpc.StatusCode, str] | None = None
        #: cleared: calls hang until it is set
        self.may_answer = threading.Event()
        self.may_answer.set()

    def answer(self, request: bytes, context: Any) -> bytes:
        """One call of `List`."""
        _message("ListPodResourcesRequest").FromString(request)
        self.may_answer.wait()
        if self.refuses:
            context.abort(*self.refuses)
        return encode(self.pods) if self.raw is None else self.raw


@contextmanager
def kubelet(socket: Path, service: str = SERVICE) -> Iterator[Kubelet]:
    """A server on a unix socket, which is gone afterwards."""
    state = Kubelet()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)])
    method = grpc.unary_unary_rpc_method_handler(state.answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"List": method}),))
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield state
    finally:
        state.may_answer.set()
        server.stop(None).wait()
        socket.unlink(missing_ok=True)

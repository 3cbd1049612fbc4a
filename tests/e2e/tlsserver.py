"""An HTTPS server in a thread, which the stand-in kubelet and the faulty proxy share."""

import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from . import network
from .pki import Pair


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that keeps connections open and prints nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Drops the line."""


class TlsServer(ThreadingMixIn, TCPServer):
    """Serves from ``start`` to ``stop``, one thread for each connection.

    Not an ``HTTPServer``: that one asks DNS for its own name, and there is no DNS in the network namespace.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, certificate: Pair, handler: type[QuietHandler]) -> None:
        super().__init__((network.ADDRESS, port), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        # The handshake belongs to the connection's own thread, or one slow client would stop the others.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Frees the port."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lets a client go that went first; anything else is a bug of the tests and is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

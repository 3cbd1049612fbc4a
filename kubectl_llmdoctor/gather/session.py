"""A cluster that can be asked."""

from __future__ import annotations

import math
import time

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.connection import Connection, Endpoint, resolve
from kubectl_llmdoctor.gather.transport import Client, Pace


class Cluster:
    """A cluster that can be asked, and by whom."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def endpoint(self) -> Endpoint:
        """The API server and the user."""
        return self.client.endpoint

    @property
    def namespace(self) -> str:
        """The namespace that is meant when none is named."""
        return self.client.endpoint.namespace

    @property
    def requests(self) -> int:
        """Requests sent so far, retries included."""
        return self.client.requests

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()


def connect(connection: Connection, *, per_second: int = 0) -> Cluster:
    """Everything that a first request needs; sends none. Raises UsageError and AccessError with one line.

    `per_second` bounds the requests within any second; 0 does not.
    """
    if connection.request_timeout <= 0:
        raise UsageError("--request-timeout must be more than 0 seconds")
    pace = Pace(per_second) if per_second else None
    deadline = time.monotonic() + connection.timeout if connection.timeout else math.inf
    return Cluster(Client(resolve(connection), connection.request_timeout, pace, deadline=deadline))

"""The Prometheus library over our own connections. Whoever imports this loads the library and the HTTP client below it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from prometheus_api_client import PrometheusConnect
from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter

from kubectl_llmdoctor.gather.transport import Client
from kubectl_llmdoctor.snapshot import Json

#: The library wants an address; where its requests go is the connection's matter.
_BASE = "http://prometheus"


class _Carried(Response):
    """An answer that is decoded already; one without success never gets here."""

    def __init__(self, tree: Json) -> None:
        super().__init__()
        self.status_code = 200
        self._tree = tree

    def json(self, **_: Any) -> Any:
        return self._tree


class _Carrier(BaseAdapter):
    """Sends the library's requests through a client."""

    def __init__(self, client: Client, decode: Callable[[bytes], Json], said: Json) -> None:
        super().__init__()
        self._client, self._decode, self._said = client, decode, said

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        parts = urlsplit(request.url or "")
        tree = self._client.get(parts.path, dict(parse_qsl(parts.query)), decode=self._decode)
        self._said.update({key: value for key, value in tree.items() if key != "data"})
        return _Carried(tree)

    def close(self) -> None:
        pass


def connect(client: Client, decode: Callable[[bytes], Json], said: Json) -> PrometheusConnect:
    """The library over `client`; `said` gets what its answers leave out, such as warnings."""
    session = Session()
    # Proxies and .netrc are the client's matter.
    session.trust_env = False
    found = PrometheusConnect(url=_BASE, session=session)
    session.mount(_BASE, _Carrier(client, decode, said))
    return found

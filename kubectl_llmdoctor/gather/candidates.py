"""Names that a shell offers for completion: of objects in the cluster, and of what the kubeconfig holds."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_llmdoctor.errors import LlmdoctorError
from kubectl_llmdoctor.gather import kinds, kubeconfig
from kubectl_llmdoctor.gather.connection import Connection
from kubectl_llmdoctor.gather.failure import RequestError
from kubectl_llmdoctor.gather.related import name_of
from kubectl_llmdoctor.snapshot import Json

#: Names that are offered at most; a shell shows no more anyway.
MOST = 500


def types() -> list[str]:
    """The types that lead to pods, as a person writes them: `deployment`, `leaderworkerset`."""
    leading = (kind for kind in kinds.KINDS if kind.kind not in ("Revision", "Configuration") and kinds.leads(kind))
    return ["pod", *dict.fromkeys(kind.kind.lower() for kind in leading)]


def names(connection: Connection, type_name: str) -> list[str]:
    """The names of all objects of a type; none where the type is not known or the cluster does not say."""
    kind = kinds.by_name(type_name)
    if kind is None:
        return []
    from kubectl_llmdoctor.gather.cluster import connect
    from kubectl_llmdoctor.gather.collector import METADATA_LIST
    from kubectl_llmdoctor.gather.slim import decode_page
    from kubectl_llmdoctor.gather.transport import query

    try:
        cluster = connect(connection)
    except LlmdoctorError:
        return []
    found: list[Json] = []
    try:
        for path in kind.paths(cluster.namespace):
            page = cluster.client.get(path, query(limit=MOST), accept=METADATA_LIST, decode=decode_page)
            found = page.items or []
            break
    except RequestError:
        return []
    finally:
        cluster.close()
    return sorted({name_of(obj) for obj in found} - {""})


def of_kubeconfig(path: str | None, part: str) -> Iterable[str]:
    """The names of its `contexts`, `clusters` or `users`; none where it cannot be read."""
    try:
        return sorted(getattr(kubeconfig.load(path), part))
    except LlmdoctorError:
        return []

"""Kinds that the table does not have, asked of the server: custom resources that the user or an owner names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.kinds import Kind
from kubectl_llmdoctor.gather.transport import Client
from kubectl_llmdoctor.snapshot import Json

#: Since Kubernetes 1.26 one answer lists every kind; older servers answer with the names of the groups.
_ALL = ",".join(
    [
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        "application/json",
    ]
)


_mapping = msgspec.json.Decoder(Json).decode


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (AttributeError, TypeError, KeyError):
        raise RequestError(Why.BROKEN, "the list of kinds is not understood") from None


def served(client: Client) -> dict[str, list[str]]:
    """The versions of each group that the server has, in its order of preference. Raises RequestError.

    The list of groups alone: a few kilobytes, where that of all kinds is a hundred times as large.
    """
    tree = client.get("/apis", decode=_mapping)
    found: dict[str, list[str]] = {}
    with _understood():
        for item in tree.get("groups") or ():
            found[str(item["name"])] = [str(row["version"]) for row in item.get("versions") or ()]
    return found


def find_type(client: Client, api_version: str, kind: str) -> Kind | None:
    """The kind that an ownerReference names. Raises RequestError."""
    group, _, version = api_version.rpartition("/")
    try:
        tree = client.get(f"/apis/{api_version}" if group else f"/api/{api_version}", decode=_mapping)
    except RequestError as error:
        if error.why in (Why.NOT_FOUND, Why.NO_SUCH_KIND):
            return None
        raise
    with _understood():
        return next((k for k in _resources(tree, group, version) if k.kind == kind), None)


def find_name(client: Client, text: str) -> Kind | None:
    """The kind that is called `text`: kind, plural, singular or short name, maybe `.group`. Raises RequestError."""
    name, _, rest = text.lower().partition(".")
    with _understood():
        for kind in _every(client, rest):
            if name in (kind.kind.lower(), kind.plural, *kind.short) and rest in ("", kind.group):
                return kind
    return None


def _every(client: Client, group: str) -> Iterator[Kind]:
    """Every kind of a group, or of all groups, each in its preferred version."""
    tree = client.get("/apis", accept=_ALL, decode=_mapping)
    if tree.get("kind") == "APIGroupDiscoveryList":
        for item in tree.get("items") or ():
            name = item.get("metadata", {}).get("name", "")
            for version in (item.get("versions") or ())[:1]:
                for row in version.get("resources") or ():
                    known_as = (row.get("singularResource"), *(row.get("shortNames") or ()))
                    yield Kind(
                        kind=row.get("responseKind", {}).get("kind", ""),
                        plural=row.get("resource", ""),
                        group=name,
                        versions=(version.get("version", ""),),
                        namespaced=row.get("scope") == "Namespaced",
                        short=tuple(filter(None, known_as)),
                    )
        return
    for item in tree.get("groups") or ():
        if group not in ("", item.get("name")):
            continue
        preferred = item.get("preferredVersion", {})
        try:
            inner = client.get(f"/apis/{preferred.get('groupVersion')}", decode=_mapping)
        except RequestError:  # an aggregated API that is down hides its own kinds only
            continue
        yield from _resources(inner, str(item.get("name") or ""), str(preferred.get("version") or ""))


def _resources(tree: Json, group: str, version: str) -> Iterator[Kind]:
    """The kinds of an APIResourceList without subresources."""
    for row in tree.get("resources") or ():
        if "/" not in row.get("name", "/"):
            yield Kind(
                kind=row.get("kind", ""),
                plural=row["name"],
                group=group,
                versions=(version,),
                namespaced=bool(row.get("namespaced")),
                short=tuple(filter(None, (row.get("singularName"), *(row.get("shortNames") or ())))),
            )

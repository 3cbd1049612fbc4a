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


class Served:
    """What the server says that it has: the versions of each custom kind, or of each group alone."""

    def __init__(self, tree: Json) -> None:
        self._kinds: dict[tuple[str, str], list[str]] = {}
        self._groups: dict[str, list[str]] = {}
        self._exact = tree.get("kind") == "APIGroupDiscoveryList"
        for item in tree.get("items" if self._exact else "groups") or ():
            group = str((item.get("metadata") or {}).get("name") if self._exact else item.get("name"))
            for version in item.get("versions") or ():
                self._groups.setdefault(group, []).append(str(version.get("version") or ""))
                for row in version.get("resources") or ():
                    key = group, str(row.get("resource") or "")
                    self._kinds.setdefault(key, []).append(str(version.get("version") or ""))
                if version.get("freshness") == "Stale":  # an aggregated API that is down: its kinds are not known
                    self._groups.setdefault(f"stale {group}", []).append("")

    def narrowed(self, kind: Kind) -> Kind | None:
        """The kind in a version that the server has; None when it has none."""
        if not kind.group or f"stale {kind.group}" in self._groups:
            return kind
        known = self._kinds.get((kind.group, kind.plural)) if self._exact else self._groups.get(kind.group)
        have = [version for version in kind.versions if version in (known or ())]
        return kind.at(have[0]) if have else None


def served(client: Client) -> Served:
    """Asks once for everything that the server has. Raises RequestError."""
    tree = client.get("/apis", accept=_ALL, decode=_mapping)
    with _understood():
        return Served(tree)


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

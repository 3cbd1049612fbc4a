"""Routes of the Gateway API: the backends that their rules name, and the gateways on which they hang; who picks for a pool of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.facts.cluster import Item
from kubectl_llmdoctor.tree import dig, numbered, rows


class Backend(msgspec.Struct, frozen=True):
    """What a rule names to get requests, by the defaults of the API: a Service of the route's namespace."""

    kind: str
    namespace: str
    name: str
    raw: dict[str, Any]
    #: its place in the route: `spec.rules[0].backendRefs[1]`
    path: str

    @property
    def place(self) -> tuple[str, str]:
        """Its namespace and name."""
        return self.namespace, self.name

    @property
    def meant(self) -> tuple[str, str, str]:
        """The object that it means: kind, namespace and name."""
        return self.kind, self.namespace, self.name


class Rule(msgspec.Struct, frozen=True):
    """A rule of a route."""

    raw: dict[str, Any]
    #: its place in the route: `spec.rules[0]`
    path: str
    backends: tuple[Backend, ...]


def rules_of(route: Item) -> Iterator[Rule]:
    """The rules of an HTTPRoute, or of what is written like one."""
    for at, rule in numbered(route.raw, "spec.rules"):
        path = f"spec.rules[{at}]"
        backends = tuple(
            Backend(
                str(ref.get("kind") or "Service"),
                str(ref.get("namespace") or route.namespace),
                str(ref.get("name")),
                ref,
                f"{path}.backendRefs[{number}]",
            )
            for number, ref in numbered(rule, "backendRefs")
        )
        yield Rule(rule, path, backends)


def backends_of(route: Item) -> Iterator[Backend]:
    """All that a route sends requests to."""
    return (backend for rule in rules_of(route) for backend in rule.backends)


def parents_of(route: Item) -> list[tuple[str, str]]:
    """The gateways on which a route hangs: namespace and name. A Service of a mesh is none."""
    return [
        (str(ref.get("namespace") or route.namespace), str(ref.get("name")))
        for ref in rows(route.raw, "spec.parentRefs")
        if str(ref.get("kind") or "Gateway") == "Gateway"
    ]


def pickers_of(pool: Item) -> dict[str, str]:
    """The Services that an InferencePool names as its endpoint picker, by the field that does: that of its v1, then that before it."""
    named = ((field, dig(pool.raw, f"spec.{field}.name")) for field in ("endpointPickerRef", "extensionRef"))
    return {field: name for field, name in named if isinstance(name, str) and name}

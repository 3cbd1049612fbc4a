"""What the user named: its kind, its object, and a helpful line when there is no such thing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from kubectl_llmdoctor.errors import AccessError, UsageError
from kubectl_llmdoctor.gather import discovery, kinds
from kubectl_llmdoctor.gather.collector import METADATA, Collector
from kubectl_llmdoctor.gather.failure import RequestError, Why, unreachable
from kubectl_llmdoctor.gather.kinds import Kind
from kubectl_llmdoctor.gather.related import name_of, namespace_of
from kubectl_llmdoctor.gather.transport import Client
from kubectl_llmdoctor.snapshot import Json

#: What a name without a type may have meant instead of a pod.
_WORKLOADS = tuple(
    kinds.core(kind, group)
    for group, kind in (
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("batch", "Job"),
        ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"),
        ("serving.kserve.io", "InferenceService"),
        ("serving.kserve.io", "LLMInferenceService"),
        ("ray.io", "RayService"),
        ("ray.io", "RayCluster"),
        ("apps.nvidia.com", "NIMService"),
        ("nvidia.com", "DynamoGraphDeployment"),
    )
)


class UnavailableError(AccessError):
    """This one object cannot be had; another may."""


def parse(client: Client, text: str) -> tuple[Kind, str]:
    """`llama-0`, `pod/llama-0`, `deploy/llama`, `isvc/llama` as kind and name. Raises UsageError and AccessError."""
    type_name, slash, name = text.partition("/")
    if not slash:
        return kinds.POD, _checked(text, text)
    _checked(name, text)
    kind = kinds.by_name(type_name) if type_name else None
    if kind is None and type_name:
        try:
            kind = discovery.find_name(client, type_name)
        except RequestError as error:
            raise unreachable(client.endpoint, error, f"what {type_name!r} is") from None
    if kind is None:
        raise UsageError(f"{text!r}: the cluster has no kind of object that is called {type_name!r}")
    return kind, name


def _checked(name: str, text: str) -> str:
    # Dots at the ends or a slash would make another path of it.
    if not name or not all(c.isalnum() or c in "-._:" for c in name) or not name[0].isalnum():
        raise UsageError(f"{text!r} is not a name; expected NAME or TYPE/NAME")
    return name


def read(pot: Collector, kind: Kind, namespace: str, name: str) -> Json:
    """The object that was asked for. Raises AccessError with one line that helps."""
    try:
        return pot.fetch(kind, namespace, name)
    except RequestError as error:
        what = f"{kind.kind} {name} in namespace {namespace}" if kind.namespaced else f"{kind.kind} {name}"
        if error.why == Why.NOT_FOUND:
            raise UnavailableError(_absent(pot, kind, namespace, name)) from None
        if error.why == Why.NO_SUCH_KIND:
            raise UnavailableError(
                f"this cluster has no {kind.kind} objects ({kind.resource} is not installed)"
            ) from None
        ended = unreachable(pot.client.endpoint, error, what)
        raise (UnavailableError(str(ended)) if error.why == Why.FORBIDDEN else ended) from None


def _absent(pot: Collector, kind: Kind, namespace: str, name: str) -> str:
    """There is no such object; but maybe one of another kind, of a similar name, or in another namespace."""
    line = f"there is no {kind.kind} {name!r} in namespace {namespace!r}"
    if kind is kinds.POD:
        workloads = list(_workloads(pot, namespace, name))
        if workloads:
            tries = " or ".join(f"{found.kind.lower()}/{name}" for found in workloads)
            return f"{line}, but a {workloads[0].kind} of that name: try `kubectl llmdoctor diagnose {tries}`"
    near = _near(pot, kind, namespace, name)
    if near:
        return f"{line}; did you mean {' or '.join(near)}?"
    with contextlib.suppress(RequestError):
        elsewhere, _ = pot.page(kind, "", fields=f"metadata.name={name}", limit=3, names_only=True)
        if elsewhere:
            return f"{line}; there is one in {', '.join(sorted(map(namespace_of, elsewhere)))} (-n)"
    try:
        pot.fetch(kinds.core("Namespace"), "", namespace, accept=METADATA)
    except RequestError as error:
        if error.why == Why.NOT_FOUND:
            return f"the namespace {namespace!r} does not exist"
    return line


def _workloads(pot: Collector, namespace: str, name: str) -> Iterator[Kind]:
    for kind in _WORKLOADS:
        with contextlib.suppress(RequestError):
            pot.fetch(kind, namespace, name, accept=METADATA)
            yield kind


def _near(pot: Collector, kind: Kind, namespace: str, name: str) -> list[str]:
    with contextlib.suppress(RequestError):
        items, _ = pot.page(kind, namespace, names_only=True)
        return near_names(name, sorted(map(name_of, items)))
    return []


def near_names(name: str, names: Sequence[str]) -> list[str]:
    """Names that are close to one that does not exist, three at most.

    A pod's name ends in what its last start made up, so what comes before that counts first.
    """
    import difflib

    for stem in (name, name.rpartition("-")[0]):
        if same := [other for other in names if stem and f"{other}-".startswith(f"{stem}-")]:
            return same[:3]
    begun = [other for other in names if name and other.startswith(name)]
    return begun[:3] or sorted(difflib.get_close_matches(name, names, n=3, cutoff=0.7))

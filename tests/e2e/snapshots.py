"""The recorded situations that can be played: the project's own cases, and the shared ones where they lie beside it."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from .play import BUILT_IN, KINDS, Object, read_snapshot

TOP = Path(__file__).parents[2]
CASES = TOP / "checks" / "cases"
SHARED = TOP.parent / "shared"
#: Whether everything is played, and not a sample of it.
EVERYTHING = os.environ.get("LLMDOCTOR_E2E_ALL") == "1"
#: How many of each shared collection are played, evenly spread over it.
SAMPLES = {"incidents": 20, "scheduling": 6, "real-engines": 6}


def own() -> Iterator[Path]:
    """Of every second check the first case that can be played, or every one."""
    for folder in sorted(CASES.glob("*/"))[:: None if EVERYTHING else 2]:
        found = (path for path in sorted(folder.glob("*.yaml")) if playable(read_snapshot(path)))
        yield from found if EVERYTHING else itertools.islice(found, 1)


def shared(collection: str) -> list[Path]:
    """The recorded situations of a collection; none where it does not lie beside the repository."""
    paths = sorted((SHARED / collection / "snapshots").glob("*.yaml*"))
    return [path for path in paths if playable(read_snapshot(path))]


def playable(snapshot: Object) -> bool:
    """Whether a control plane can say all of it, and no more than that.

    The log of an operator's controller counts where it was recorded, and so does what was read of another namespace as a
    whole; a live diagnosis does not ask for it. Nodes and
    metrics ports say the rest. A ResourceClaim that a pod names but that was not recorded may be unknown or the
    very thing that is missing: no stand-in is right for both. Of Secrets a live diagnosis asks for no data, and for the
    configurations of webhooks not at all. A list of custom resources that was read and empty needs a
    definition, which the stand-in has only for objects. Services get addresses of the API server's choice, so no log and no
    other object may name the recorded ones. Alpha versions of the server's own groups are gone.
    """
    said_by_others = any(snapshot.get(part) for part in ("nodes", "metrics", "prometheus", "answers", "missing"))
    objects = snapshot.get("objects", [])
    claims = {item["metadata"]["name"] for item in objects if item["kind"] == "ResourceClaim"}
    named = {
        claim["resourceClaimName"]
        for item in objects
        if item["kind"] == "Pod"
        for claim in item["spec"].get("resourceClaims", [])
        if "resourceClaimName" in claim
    }
    said_by_others |= any(
        item["kind"].endswith("WebhookConfiguration") or (item["kind"] == "Secret" and item.get("data"))
        for item in objects
    )
    groups = (item["apiVersion"].rpartition("/") for item in objects)
    said_by_others |= any(group in BUILT_IN and "alpha" in version for group, _, version in groups)
    target = snapshot.get("target") or {}
    own = {kind for _, kind in KINDS} | {item["kind"] for item in objects}
    said_by_others |= any(listed["kind"] not in own for listed in snapshot.get("read", []))
    said_by_others |= any(
        listed.get("namespace") not in (None, target.get("namespace")) for listed in snapshot.get("read", [])
    )
    foreign = any(log.get("namespace") != target.get("namespace") for log in snapshot.get("logs", []))
    addresses = {item["spec"].get("clusterIP") for item in objects if item["kind"] == "Service"} - {None, "", "None"}
    texts = [log["text"] for log in snapshot.get("logs", [])] + [str(x) for x in objects if x["kind"] != "Service"]
    named_addresses = any(address in text for address in addresses for text in texts)
    unplayable = said_by_others or foreign or named_addresses
    return bool(snapshot.get("takenAt") and target) and not unplayable and named <= claims


def chosen() -> dict[str, Path]:
    """What is played, by a name for the test."""
    paths = list(own())
    for collection, size in SAMPLES.items():
        paths += _spread(shared(collection), size)
    return {f"{path.parent.name.replace('snapshots', 'shared')}/{path.name.split('.')[0]}": path for path in paths}


def half(paths: list[Path], first: int) -> list[Path]:
    """Every second one from the first or the second on, or all: two tests of the same may share them."""
    return paths if EVERYTHING else paths[first::2]


def _spread(paths: list[Path], size: int) -> list[Path]:
    if EVERYTHING or len(paths) <= size:
        return paths
    return [paths[index * len(paths) // size] for index in range(size)]

"""Patches of custom resources, sent as dry runs to a real API server that knows the fields of their kinds."""

import copy
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_llmdoctor.testing import diagnose_case, find_cases, load_case
from tests.schemas import BUILT_IN, Found, Kind, kind_of, kinds, patches
from tests.test_platforms import CASES as PLATFORMS
from tests.test_schemas import of_platform

from .controlplane import ApiError, ControlPlane
from .snapshots import CASES, EVERYTHING, half

#: The kinds stand under groups of their own: other tests serve the real ones without a schema.
GROUP = "schemas.test"
JSON_PATCH = "application/json-patch+json"
_API_VERSION = re.compile(r"apiVersion: ([^\s,}]+)")
STRICT = "?dryRun=All&fieldValidation=Strict"
#: Cases of an API that are looked at for patches; each takes a diagnosis.
_OF_EACH = sys.maxsize if EVERYTHING else 6


@pytest.fixture(scope="module")
def served(cluster: ControlPlane) -> Iterator[ControlPlane]:
    """The API server with a definition for each kind of schemas.yaml."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made = [_definition(kind) for kind in kinds().values()]
    for definition in made:
        cluster.api.create(definitions, definition)
    for kind in kinds().values():
        cluster.wait_until_served(f"/apis/{_group(kind)}/{kind.version}/{kind.plural}")
    yield cluster
    for definition in made:
        cluster.api.delete(f"{definitions}/{definition['metadata']['name']}")


def _group(kind: Kind) -> str:
    # two versions of a kind need a webhook to stand in one definition; here each has its own
    return f"{kind.version}.{kind.group}.{GROUP}"


def _definition(kind: Kind) -> dict[str, Any]:
    names = {"plural": kind.plural, "singular": kind.kind.lower(), "kind": kind.kind, "listKind": f"{kind.kind}List"}
    version = {"name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": kind.schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{_group(kind)}"},
        "spec": {"group": _group(kind), "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _create(cluster: ControlPlane, raw: dict[str, Any]) -> str:
    """Makes the object as the schema has it; returns its path."""
    kind = kind_of(raw)
    item = copy.deepcopy(raw) | {"apiVersion": f"{_group(kind)}/{kind.version}"}
    kept = ("name", "labels", "annotations")
    item["metadata"] = {key: value for key, value in raw["metadata"].items() if key in kept} | {"namespace": "default"}
    where = f"/apis/{_group(kind)}/{kind.version}/namespaces/default/{kind.plural}"
    cluster.api.create(where, item)
    return f"{where}/{item['metadata']['name']}"


def _dry_run(cluster: ControlPlane, found: list[Found]) -> None:
    objects = {id(raw): raw for raw, _ in found}
    for mine, raw in objects.items():
        path = _create(cluster, raw)
        try:
            for patch in (patch for other, patch in found if id(other) == mine):
                answer = cluster.api.call("PATCH", path + STRICT, patch.body, JSON_PATCH)
                assert answer["kind"] == raw["kind"]
            unknown = [
                {"op": "add", "path": f"/{next(key for key in raw if key in ('spec', 'inference'))}/zz", "value": 1}
            ]
            with pytest.raises(ApiError, match="unknown field"):
                cluster.api.call("PATCH", path + STRICT, unknown, JSON_PATCH)
        finally:
            cluster.api.delete(path)


@pytest.mark.parametrize("path", half(PLATFORMS, 0), ids=lambda p: p.stem)
def test_every_fix_of_a_platform_is_accepted(path: Path, served: ControlPlane) -> None:
    _dry_run(served, of_platform(path))


def _of_cases() -> Iterator[Any]:
    """The patches for custom resources of each case that has any, or of the first cases of each API."""
    looked_at = Counter[str]()
    for path in find_cases(CASES):
        custom = set(_API_VERSION.findall(path.read_text())).difference(BUILT_IN)
        if all(looked_at[version] >= _OF_EACH for version in custom):
            continue
        looked_at.update(custom)
        case = load_case(path)
        if found := patches(case.snapshot.objects, diagnose_case(case)):
            yield pytest.param(found, id=f"{path.parent.name}/{path.stem}")


@pytest.mark.parametrize("found", list(_of_cases()))
def test_every_patch_of_a_case_is_accepted(found: list[Found], served: ControlPlane) -> None:
    _dry_run(served, found)

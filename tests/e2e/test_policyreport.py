"""Policy reports against the definitions of OpenReports: as a schema, and in a real API server that checks strictly."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from kubectl_llmdoctor.report import policyreport
from tests.fleet import AUDIT, fleet
from tests.test_report_formats import MARKUP
from tests.test_report_text import HOSTILE, KV_CACHE, cause, pod, report, reports

from .conftest import Doctor, Kubectl
from .controlplane import ControlPlane
from .play import Object

pytestmark = pytest.mark.skipif(not os.environ.get("LLMDOCTOR_OPENREPORTS"), reason="no definitions of OpenReports")

BASE = "/apis/openreports.io/v1alpha1"


def definitions() -> dict[str, Any]:
    """The CustomResourceDefinitions by kind."""
    folder = Path(os.environ["LLMDOCTOR_OPENREPORTS"])
    read = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("openreports.io_*.yaml"))]
    return {crd["spec"]["names"]["kind"]: crd for crd in read}


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """The schema of each kind; fields that it does not name are refused, as strict field validation does."""

    def closed(node: Any) -> Any:
        if isinstance(node, list):
            return [closed(item) for item in node]
        if not isinstance(node, dict):
            return node
        made = {key: closed(value) for key, value in node.items()}
        named = isinstance(made.get("properties"), dict) and made.get("type") == "object"
        return made | ({"additionalProperties": False} if named else {})

    return {
        kind: closed(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) for kind, crd in definitions().items()
    }


@settings(max_examples=30)
@given(document=reports(HOSTILE | MARKUP, HOSTILE | MARKUP))
def test_any_report_fits_the_schema(schemas: dict[str, Any], document: Any) -> None:
    for item in json.loads(policyreport.render(document))["items"]:
        jsonschema.validate(item, schemas[item["kind"]])


@pytest.fixture(scope="module")
def openreports(cluster: ControlPlane) -> Iterator[None]:
    """The definitions in the API server."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crds = definitions()
    for crd in crds.values():
        cluster.api.create(path, crd)
    for plural in ("reports", "clusterreports"):
        cluster.wait_until_served(f"{BASE}/{plural}")
    for space in ("serving", "chat"):
        cluster.api.call(
            "PATCH",
            f"/api/v1/namespaces/{space}?fieldManager=e2e&force=true",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}},
            "application/apply-patch+yaml",
        )
    yield
    for crd in crds.values():
        cluster.api.delete(f"{path}/{crd['metadata']['name']}")


def applied(kubectl: Kubectl, path: Path, data: bytes) -> str:
    path.write_bytes(data)
    done = kubectl("apply", "--server-side", "--validate=strict", "-f", str(path))
    assert done.code == 0, done.err
    return done.out


@pytest.mark.usefixtures("openreports")
def test_the_api_server_takes_them(cluster: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    applied(kubectl, tmp_path / "reports.json", policyreport.render(AUDIT))
    serving = cluster.api.get(f"{BASE}/namespaces/serving/reports/llmdoctor")
    wanted = next(
        item
        for item in json.loads(policyreport.render(AUDIT))["items"]
        if item["metadata"].get("namespace") == "serving"
    )
    assert (serving["results"], serving["summary"]) == (wanted["results"], wanted["summary"]), "nothing was pruned"
    assert kubectl("get", "reports", "-A", "--no-headers").out.count("llmdoctor") == 2
    assert cluster.api.get(f"{BASE}/clusterreports/llmdoctor")["summary"]["error"] == 3


@pytest.mark.usefixtures("openreports")
def test_what_is_fixed_is_replaced(cluster: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    applied(kubectl, tmp_path / "old.json", policyreport.render(report(KV_CACHE)))
    applied(kubectl, tmp_path / "new.json", policyreport.render(report(pod("llama-70b-0", "healthy"))))
    results = cluster.api.get(f"{BASE}/namespaces/serving/reports/llmdoctor")["results"]
    assert [result["result"] for result in results] == ["pass"]


@pytest.mark.usefixtures("openreports")
def test_the_largest_object_is_taken(cluster: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    many = tuple(pod(f"p-{n}", "cause-found", findings=(cause("x", "X", "模型" * 1000),)) for n in range(1500))
    applied(kubectl, tmp_path / "large.json", policyreport.render(report(*many)))
    stored = cluster.api.get(f"{BASE}/namespaces/serving/reports/llmdoctor")
    assert stored["summary"]["fail"] == 1500
    assert stored["results"][-1]["policy"] == "not-listed"
    assert len(policyreport.render(fleet(1000))) < 4_000_000


@pytest.mark.usefixtures("openreports", "crashed")
def test_the_program_writes_what_kubectl_applies(
    cluster: ControlPlane, doctor: Doctor, kubectl: Kubectl, tmp_path: Path
) -> None:
    done = doctor("diagnose", "llama-0", "-n", "serving", "-o", "policyreport")
    assert done.code == 1, done.err
    applied(kubectl, tmp_path / "live.json", done.out.encode())
    stored: Object = cluster.api.get(f"{BASE}/namespaces/serving/reports/llmdoctor")
    assert stored["results"][0]["result"] == "fail"
    assert stored["results"][0]["resources"][0]["name"] == "llama-0"

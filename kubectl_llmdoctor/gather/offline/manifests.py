"""Manifests, and the many files beside them that look alike: each is kept, or left out with a plain reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import join, normpath
from typing import Any

from kubectl_llmdoctor.gather.offline.documents import Document
from kubectl_llmdoctor.gather.offline.found import Found
from kubectl_llmdoctor.gather.offline.objects import NO_OBJECT, is_object, items, list_key
from kubectl_llmdoctor.gather.offline.reading import SUFFIXES
from kubectl_llmdoctor.snapshot import SCHEMA, Json
from kubectl_llmdoctor.tree import dig, table

_HELM = (
    r"(?m)^(?![ \t]*#)[^\n]*\{\{[^{}\n]*"
    r"(?:\.Values\b|\.Release\.|\.Chart\.|\btoYaml\b|\bnindent\b|\binclude \")"
)
_LOG_LINE = r"(?m)^.{0,80}\b(?:INFO|WARN|WARNING|ERROR|DEBUG)\b|^Traceback \(most recent"
#: More documents than this without one object among them are lines of a log.
_MANY = 20
_VALUES = r"(?:^|[-_.])values(?:[-_.]|$)"
_PATCH = r"(?m)^[ \t]*(?:- )?[\"']?\$patch[\"']?:"
_CRD = "CustomResourceDefinition"


def take(found: Found, name: str, read: list[Document]) -> None:
    """Keeps the objects of a file's documents."""
    if len(read) > _MANY and not any(isinstance(d.value, list) or is_object(d.value) for d in read):
        found.miss(name, "not a manifest; a log is read with --logs")
        return
    helm = _helm_reason(name) if any(_is_helm(d) for d in read) else ""
    for document in read:
        ref = name if len(read) == 1 else f"{name}:{document.line}"
        if helm and (document.error or _is_helm(document)):
            found.miss(name, helm)
        elif document.error:
            found.miss(ref, _error_reason(name, document))
        else:
            _take_document(found, name, ref, document)


def _take_document(found: Found, name: str, ref: str, document: Document) -> None:
    listed = isinstance(document.value, list) or list_key(document.value) is not None
    if reason := _foreign_list(document.value) if listed else _foreign(found, name, document):
        found.miss(ref, reason)
        return
    found.understood |= listed
    for key, line in document.repeated:
        found.miss(f"{name}:{line}", f"a second `{key}` overrules the one before it: kustomize refuses the file")
    for item in items(document):
        where = f"{name}:{item.line}" if listed else ref
        if not is_object(item.value):
            found.miss(where, NO_OBJECT)
        elif reason := _nothing_to_judge(item.value):
            found.understood |= item.value["kind"] == _CRD
            found.miss(where, reason)
        else:
            found.keep(item, name)


#: Kinds whose own fields are templates that something else fills in: a ConfigMap's data, the values of a release.
_HOLD_TEMPLATES = frozenset(
    ["ConfigMap", "HelmRelease", "HelmChart", "HelmChartConfig", "Application", "ApplicationSet"]
)


def _is_helm(document: Document) -> bool:
    """Whether it is a template of a chart; values, or a list from a cluster, may well hold the text of one."""
    value = document.value
    if is_object(value) and (value["kind"] in _HOLD_TEMPLATES or list_key(value)):
        return False
    return "{{" in document.text and re.search(_HELM, document.text) is not None


def _helm_reason(name: str) -> str:
    chart = name.rpartition("/templates/")[0] or "CHART"
    return f"Helm template, render it first: helm template {chart} | kubectl llmdoctor lint -"


def _error_reason(name: str, document: Document) -> str:
    manifest_name = name == "stdin" or name.lower().endswith(SUFFIXES)
    if "kind:" not in document.text and re.search(_LOG_LINE, document.text):
        return "not a manifest; a log is read with --logs"
    if not manifest_name:
        return f"not a manifest ({document.error})"
    if "{{" in document.text or "{%" in document.text:
        return f"a template, render it first ({document.error})"
    return document.error


def _foreign_list(value: Any) -> str:
    if not isinstance(value, list) or any(map(is_object, value)):
        return ""
    patch = bool(value) and all(isinstance(step, dict) and "op" in step and "path" in step for step in value)
    return "a JSON patch, not a manifest" if patch else "not a manifest"


def _foreign(found: Found, name: str, document: Document) -> str:
    """Why a document is no manifest; empty for one that is."""
    value, folder, base = document.value, name.rpartition("/")[0], name.rpartition("/")[2].lower()
    if not isinstance(value, dict):
        return "not a manifest"
    if base.startswith("kustomization.") or _is_kustomization(value):
        found.patches.update(_patch_files(folder, value))
        return f"kustomization, build it first: kubectl kustomize {folder or '.'}"
    if not is_object(value) or not isinstance(value.get("apiVersion"), str):
        return _kindless(base, value)
    return "a patch, not a manifest" if value["kind"] != "ConfigMap" and re.search(_PATCH, document.text) else ""


def _is_kustomization(value: Json) -> bool:
    group = str(value.get("apiVersion")).partition("/")[0]
    return group == "kustomize.config.k8s.io" and value.get("kind") in ("Kustomization", "Component")


def _kindless(base: str, value: Json) -> str:
    if base == "chart.yaml":
        return "a chart's description, not a manifest: helm template CHART | kubectl llmdoctor lint -"
    if re.search(_VALUES, base):
        return "Helm values, not a manifest: helm template CHART -f VALUES | kubectl llmdoctor lint -"
    if isinstance(value.get("objects"), list):
        return f"no schema: a snapshot starts with 'schema: {SCHEMA}'"
    if isinstance(value.get("services"), dict):
        return "a compose file, not a manifest"
    if "jobs" in value and ("on" in value or "true" in value):
        return "a CI workflow, not a manifest"
    if is_object(value):
        return "not a manifest: no apiVersion"
    if isinstance(value.get("spec"), dict) or isinstance(value.get("metadata"), dict):
        return "a patch or fragment, not a manifest: no kind"
    return "not a manifest: no apiVersion and kind"


def _patch_files(folder: str, kustomization: Json) -> Iterator[str]:
    """The files that a kustomization applies as patches, as this input names them."""
    for key in ("patches", "patchesStrategicMerge", "patchesJson6902"):
        entries = kustomization.get(key)
        for entry in entries if isinstance(entries, list) else ():
            path = entry.get("path") if isinstance(entry, dict) else entry
            if isinstance(path, str) and "\n" not in path:
                yield normpath(join(folder, path))


def _nothing_to_judge(value: Json) -> str:
    """Why an object is left out: it is only part of one, or means something to another program."""
    kind, group = value["kind"], str(value.get("apiVersion")).rpartition("/")[0]
    metadata, spec = table(value.get("metadata")), value.get("spec")
    if kind == _CRD:
        return "a CustomResourceDefinition: it describes a kind, nothing in it runs"
    if kind == "Config" and isinstance(value.get("clusters"), list):
        return "a kubeconfig, not a manifest"
    if not metadata.get("name") and not metadata.get("generateName"):
        return f"not a manifest: {kind} without metadata.name"
    needed: tuple[str, ...] = ()
    if group == "apps" and kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"):
        needed = ("selector", "template")
    elif group == "batch" and kind == "Job":
        needed = ("template",)
    elif group == "" and kind == "Pod":
        needed = ("containers",)
    for field in needed:
        if not isinstance(spec, dict) or (spec.get(field) is None and not (field == "selector" and _whole(spec))):
            return f"a patch or fragment: {kind} without spec.{field}"
    return ""


def _started(container: Json) -> bool:
    """Whether a container says how it is started and with what."""
    return bool((container.get("args") or container.get("command")) and container.get("resources"))


def _whole(spec: Json) -> bool:
    """Whether a workload lacks nothing but its selector: it was forgotten, or kustomize adds it together with labels."""
    template, containers = table(spec.get("template")), dig(spec, "template.spec.containers")
    if not isinstance(containers, list):
        return False
    stated = all(isinstance(c, dict) and c.get("image") and (c.get("ports") or _started(c)) for c in containers)
    return bool(containers) and stated and ("replicas" in spec or "metadata" in template)

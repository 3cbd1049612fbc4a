"""The patches of a report as a kustomize component, which a repository of manifests can take in as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.report.document import Finding, Fix, Patch, Report, Target


def component(report: Report) -> bytes:
    """YAML: one patch for each cause and risk whose first fix is one; each says in a comment what it is for."""
    import yaml

    head = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    lines = [yaml.safe_dump(head, sort_keys=False).rstrip()]
    rows = list(_patches(report))
    lines.append("patches:" if rows else "# No first fix of a cause or risk is a patch.\npatches: []")
    for finding, fix, row in rows:
        note = f"{finding.id}: {fix.summary}"
        lines.append(f"# {' '.join(note.split())}")
        text = row.pop("patch")
        lines.append(yaml.safe_dump([row], sort_keys=False, allow_unicode=True, width=10_000).rstrip())
        lines.append("  patch: |-\n" + "\n".join(f"    {line}" for line in text.split("\n")))
    return ("\n".join(lines) + "\n").encode()


def has_patches(report: Report) -> bool:
    """Whether there is anything in its component."""
    return any(_patches(report))


def _patches(report: Report) -> Iterator[tuple[Finding, Fix, dict[str, Any]]]:
    for target in report.targets:
        for finding in target.findings:
            fix = next(iter(finding.fixes), None)
            if finding.role in ("cause", "risk") and fix and fix.patch:
                yield finding, fix, _row(target, fix.patch)


def _row(target: Target, patch: Patch) -> dict[str, Any]:
    api_version, _, ref = patch.target.partition(" ")
    group, _, version = api_version.rpartition("/")
    kind, _, name = ref.partition("/")
    namespace = patch.namespace or target.namespace
    chosen = {"group": group, "version": version, "kind": kind, "name": name, "namespace": namespace}
    body = patch.body
    if patch.type != "json":  # kustomize tells the two by their form, and wants a whole object here
        meta = {"name": name} | ({"namespace": namespace} if namespace else {})
        body = {"apiVersion": api_version, "kind": kind, "metadata": meta, **body}
    text = msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
    return {"target": {key: value for key, value in chosen.items() if value}, "patch": text}

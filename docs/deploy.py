"""`agent/deploy/`: the node agent's objects for kustomize and Helm, from what `agent manifests` prints.

Kustomize has a base per profile, and an overlay per further part that is a JSON patch of the base. A Helm template is the
DaemonSet with every part in it; what is not there without a part stands between `if` and `end`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from kubectl_llmdoctor import __version__
from kubectl_llmdoctor.agent_manifests import (
    IMAGE,
    OPTIONAL,
    PARTS,
    READER,
    Choice,
    Part,
    daemon_set,
    manifests,
    network_policy,
    role,
    to_yaml,
)

MARK = "# Written by docs/generate.py from kubectl_llmdoctor/agent_manifests.py.\n"

#: Stands in a Helm template for what a value says.
_IMAGE, _CLASS, _NAMESPACE = "IMAGE-VALUE", "CLASS-VALUE", "namespace-value"


def files(folder: Path) -> dict[Path, str]:
    """Every generated file and what it must contain."""
    found = {folder / path: MARK + text for path, text in (*_kustomize(), *_chart())}
    return dict(sorted(found.items()))


# -- kustomize --------------------------------------------------------------------------------------------------------


def _kustomize() -> Iterator[tuple[str, str]]:
    for name, choice in (("base", Choice()), ("minimal", Choice(profile="minimal"))):
        yield f"kustomize/{name}/agent.yaml", to_yaml(manifests(choice))
        yield f"kustomize/{name}/kustomization.yaml", to_yaml([_kustomization(resources=["agent.yaml"])])
    for part in OPTIONAL:
        patch = {
            "target": {"kind": "DaemonSet", "name": "llmdoctor-agent"},
            "patch": to_yaml([list(_operations(part))]),
        }
        component = _kustomization(patches=[patch])
        component |= {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
        yield f"kustomize/components/{part}/kustomization.yaml", to_yaml([component])
        parts = [name for name in Choice(extra=(part,)).parts if name in OPTIONAL]
        overlay = _kustomization(resources=["../../base"], components=[f"../../components/{name}" for name in parts])
        yield f"kustomize/overlays/{part}/kustomization.yaml", to_yaml([overlay])


def _kustomization(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields}


def _operations(part: Part) -> Iterator[dict[str, Any]]:
    """What a part adds to the DaemonSet of the base, as a JSON patch."""
    pod, container, needs = "/spec/template/spec", "/spec/template/spec/containers/0", PARTS[part]
    yield {"op": "add", "path": f"{container}/args/-", "value": f"--with={part}"}
    if needs.mount:
        yield {"op": "add", "path": f"{container}/volumeMounts/-", "value": needs.mount.in_container}
        yield {"op": "add", "path": f"{pod}/volumes/-", "value": needs.mount.volume}
    if needs.capability:
        path = f"{container}/securityContext/capabilities/add"
        yield {"op": "add", "path": path, "value": [needs.capability]}


# -- Helm -------------------------------------------------------------------------------------------------------------

_VALUES = f"""\
# The profile: minimal reads the driver only, default adds which container has which GPU.
profile: default
# What is read as well: processes, cgroup, kernel-log. docs/agent.md says what each needs.
with: []
# Best with its digest.
image: {IMAGE}
# Networks from which the API server reaches pods; konnectivity's agents need none.
allowFrom: []
# Namespaces whose pods may ask as well, such as Prometheus'.
allowNamespaces: []
# Shows the driver to the agent; empty where the default runtime does.
runtimeClassName: nvidia
# Every Linux node, not only those whose labels tell of GPUs.
allNodes: false
"""

_OWN_NAMESPACE = (
    '{{- if or (eq .Release.Namespace "default") (hasPrefix "kube-" .Release.Namespace) }}\n'
    f'{{{{- fail "the agent needs a namespace of its own: {READER} may reach every pod of it" }}}}\n'
    "{{- end }}\n"
)


def _chart() -> Iterator[tuple[str, str]]:
    chart = {"apiVersion": "v2", "name": "llmdoctor-agent", "description": "Node agent of kubectl-llmdoctor"}
    yield (
        "helm/Chart.yaml",
        to_yaml([{**chart, "type": "application", "version": __version__, "appVersion": __version__}]),
    )
    yield "helm/values.yaml", _VALUES
    full = Choice(extra=OPTIONAL, namespace=_NAMESPACE, image=_IMAGE, runtime_class=_CLASS)
    yield "helm/templates/role.yaml", _OWN_NAMESPACE + _filled(to_yaml([role(full)]))
    yield "helm/templates/networkpolicy.yaml", _policy(full)
    yield "helm/templates/daemonset.yaml", _daemon_set(full)


def _filled(text: str) -> str:
    """A template with the values in their places."""
    text = text.replace(_NAMESPACE, "{{ .Release.Namespace }}").replace(_IMAGE, "{{ .Values.image | quote }}")
    return text.replace(_CLASS, "{{ .Values.runtimeClassName | quote }}")


def _policy(full: Choice) -> str:
    network, other = "192.0.2.0/24", "namespace-of-list"
    template = _Template(to_yaml([network_policy(replace(full, allow_from=(network,), allow_namespaces=(other,)))]))
    template.wrap("range .Values.allowFrom", to_yaml([network_policy(replace(full, allow_namespaces=(other,)))]))
    template.wrap("range .Values.allowNamespaces", to_yaml([network_policy(replace(full, allow_from=(network,)))]))
    return _filled(template.text().replace(network, "{{ . | quote }}").replace(other, "{{ . | quote }}"))


def _daemon_set(full: Choice) -> str:
    def without(**changes: Any) -> str:
        return to_yaml([daemon_set(replace(full, **changes))])

    template = _Template(without())
    template.wrap("if .Values.runtimeClassName", without(runtime_class=""))
    template.wrap("if not .Values.allNodes", without(all_nodes=True))
    template.wrap('if has "kernel-log" .Values.with', without(extra=("processes", "cgroup")))
    template.wrap('if has "cgroup" .Values.with', without(extra=("processes", "kernel-log")))
    wanted = 'or (has "processes" .Values.with) (has "cgroup" .Values.with)'
    template.wrap(f"if {wanted}", without(extra=("kernel-log",)))
    template.wrap('if eq .Values.profile "default"', without(profile="minimal"))
    root = 'or (eq .Values.profile "default") (has "kernel-log" .Values.with)'
    template.wrap(f"if {root}", without(profile="minimal", extra=("processes", "cgroup")))
    return _filled(template.text())


class _Template:
    """A text whose lines get conditions."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._conditions = [""] * len(self._lines)
        #: by the number of the line that they stand before: lines of the other case
        self._else: dict[int, list[str]] = {}

    def wrap(self, condition: str, less: str) -> None:
        """Puts a condition on the lines that `less`, the text where it does not hold, has not or has differently."""
        other = less.splitlines()
        for tag, start, end, start2, end2 in SequenceMatcher(None, self._lines, other, autojunk=False).get_opcodes():
            if tag == "equal":
                continue
            for number in range(start, end):
                self._conditions[number] = self._conditions[number] or condition
            if tag != "delete":
                self._else[end] = other[start2:end2]

    def text(self) -> str:
        """The template."""
        found, current = list[str](), ""
        for number, line in enumerate([*self._lines, ""]):
            condition = self._conditions[number] if number < len(self._lines) else ""
            if number in self._else:
                found += ["{{- else }}", *self._else[number]]
            if condition != current:
                found += ["{{- end }}"] if current else []
                found += [f"{{{{- {condition} }}}}"] if condition else []
                current = condition
            found.append(line)
        return "\n".join(found)

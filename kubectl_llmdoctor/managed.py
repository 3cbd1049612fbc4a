"""Who made an object and will write it again: Helm, Argo CD or Flux; and where its chart has the value of a field.

Sources: Helm pkg/action/validate.go (labels and annotations of a release); Argo CD docs/user-guide/resource_tracking.md;
Flux kustomize-controller and helm-controller (the labels `<group>/name` and `<group>/namespace`).
"""

from __future__ import annotations

import shlex
from typing import Any

import msgspec

from kubectl_llmdoctor.catalog.charts import CHARTS, Chart
from kubectl_llmdoctor.platforms import pointer

_FLUX_HELM, _FLUX = "helm.toolkit.fluxcd.io", "kustomize.toolkit.fluxcd.io"


class Value(msgspec.Struct, frozen=True):
    """A value of a chart: its path for people, the same for `--set-json` (empty where it runs through a list)."""

    path: str
    key: str
    value: Any


class Keeper(msgspec.Struct, frozen=True):
    """What writes an object again. `release` is Helm's, and empty where only the chart is known."""

    by: str
    name: str = ""
    release: str = ""
    chart: str = ""
    version: str = ""
    object: dict[str, Any] = {}

    def sentence(self, values: list[Value] | None) -> str:
        """Why a patch does not last, and what to change instead."""
        paths = " and ".join(dict.fromkeys(value.path for value in values or ()))
        if self.by == "Helm":
            whose = f"of release {self.release}" if self.release else f"of chart {self.chart}" if self.chart else ""
            what = f"set {paths} in the values {whose}".rstrip() if paths else "change the release's values"
            return f"Helm manages it: {what} too, or the next upgrade may undo this"
        what = f"set {paths} in the values of chart {self.chart} there" if paths else "change it there"
        return f"{self.by} {self.name} manages it: {what} too, or its next run undoes this"

    def command(self, values: list[Value] | None) -> str | None:
        """The upgrade of the release that sets these values; None where there is none that can be pasted."""
        repo = CHARTS[self.chart].repo if self.chart in CHARTS else ""
        if not (values and self.by == "Helm" and self.release and repo and self.version) or any(
            not value.key for value in values
        ):
            return None
        namespace = _meta(self.object, "annotations").get("meta.helm.sh/release-namespace")
        namespace = namespace or pointer.step(self.object, "metadata").get("namespace")
        words = ["helm", "upgrade", self.release, self.chart, "--repo", repo, "--version", self.version]
        words += ["-n", str(namespace)] if namespace else []
        words.append("--reuse-values")
        for value in values:
            words += ["--set-json", f"{value.key}={msgspec.json.encode(value.value).decode()}"]
        return shlex.join(words)

    def values(self, operations: list[dict[str, Any]]) -> list[Value] | None:
        """The values that set what JSON patch operations on the object set; None where the chart has none for one."""
        chart = CHARTS.get(self.chart)
        if chart is None:
            return None
        found: list[Value] = []
        for operation in operations:
            made = self._of(chart, pointer.split(operation["path"]), operation)
            if made is None:
                return None
            found += made
        return found or None

    def flag(self, flag: str, value: str) -> Value | None:
        """The value that sets an argument of the engine; None where the chart has none for it alone."""
        chart = CHARTS.get(self.chart)
        path = chart.flags.get(flag, chart.flags.get("")) if chart else None
        return Value(path=self._named(path, []), key="", value=value) if path else None

    def _of(self, chart: Chart, path: list[str], operation: dict[str, Any]) -> list[Value] | None:
        best: tuple[str, list[str]] | None = None
        for place, wanted in chart.places.items():
            tokens = pointer.split(place.replace("T/", f"{self._spec}/", 1) if place.startswith("T/") else place)
            if self._matches(tokens, path) and (best is None or len(tokens) > len(best[1])):
                best = wanted, tokens
        value = operation.get("value")
        whole = operation["op"] == "remove" or not isinstance(value, dict)
        if best and (whole or len(best[1]) == len(path)):
            return [self._value(best[0], path[: len(best[1])], path[len(best[1]) :], operation)]
        if whole:
            return None
        found: list[Value] = []
        for key, member in operation["value"].items():  # what is set as a whole may have values for its parts
            if self._now([*path, key]) == member:
                continue
            made = self._of(chart, [*path, key], {**operation, "op": "add", "value": member})
            if made is None:
                return None
            found += made
        return found

    def _matches(self, tokens: list[str], path: list[str]) -> bool:
        if len(tokens) > len(path):
            return False
        for depth, (wanted, key) in enumerate(zip(tokens, path, strict=False)):
            if wanted.startswith("["):
                element = self._now(path[: depth + 1])
                names = (element.get("name"), element.get("groupName")) if isinstance(element, dict) else ()
                if wanted[1:-1] not in names:
                    return False
            elif wanted != key and not (wanted == "*" and key.isdecimal()):
                return False
        return True

    def _value(self, wanted: str, place: list[str], rest: list[str], operation: dict[str, Any]) -> Value:
        whole = self._now(place)
        listed = "[" in wanted or isinstance(whole, list) or isinstance(operation.get("value"), list) or "-" in rest
        path = self._named(wanted, place)
        if isinstance(whole, list) or "-" in rest or any(key.isdecimal() for key in rest):
            return Value(path=path, key="", value=None)
        shown = path + "".join(f"[{key}]" if "." in key or "/" in key else f".{key}" for key in rest)
        key = ".".join([path, *(key.replace(".", "\\.") for key in rest)])
        return Value(path=shown, key="" if listed else key, value=operation.get("value"))

    def _named(self, wanted: str, place: list[str]) -> str:
        indices = [key for key in place if key.isdecimal()]
        path = wanted.replace("[*]", f"[{indices[-1]}]") if indices else wanted
        return path.replace("{}", self._part(place))

    def _part(self, place: list[str]) -> str:
        """The name that a values path has for this part of the object."""
        if self.chart == "ray-cluster" and len(place) > 2:
            group = self._now(place[:3])
            return str(group.get("groupName")) if isinstance(group, dict) else ""
        labels = self._now([*pointer.split(self._spec)[:-1], "metadata", "labels"])
        named = labels if isinstance(labels, dict) else {}
        return str(named.get("model" if self.chart == "vllm-stack" else "llm-d.ai/role") or "*")

    @property
    def _spec(self) -> str:
        if self.object.get("kind") == "LeaderWorkerSet":
            return "/spec/leaderWorkerTemplate/workerTemplate/spec"
        return "/spec/template/spec"

    def _now(self, path: list[str]) -> Any:
        tree: Any = self.object
        try:
            for key in path:
                tree = pointer.step(tree, key)
        except LookupError:
            return None
        return tree


def keeper(raw: dict[str, Any]) -> Keeper | None:
    """Who writes this object again; None where nothing says that somebody does."""
    labels, annotations = _meta(raw, "labels"), _meta(raw, "annotations")
    chart, version = _chart(labels)
    by = name = ""
    for group, what in ((_FLUX, "Kustomization"), (_FLUX_HELM, "HelmRelease")):
        if named := labels.get(f"{group}/name"):
            by, name = f"Flux {what}", f"{labels.get(f'{group}/namespace', '')}/{named}".lstrip("/")
    tracked = annotations.get("argocd.argoproj.io/tracking-id", "").partition(":")[0]
    if not by and (tracked or labels.get("argocd.argoproj.io/instance")):
        by, name = "Argo CD application", tracked or labels["argocd.argoproj.io/instance"]
    release = annotations.get("meta.helm.sh/release-name", "")
    if not by and (release or labels.get("app.kubernetes.io/managed-by", "").casefold() == "helm"):
        by = "Helm"
    return Keeper(by=by, name=name, release=release, chart=chart, version=version, object=raw) if by else None


def _meta(raw: dict[str, Any], key: str) -> dict[str, str]:
    metadata = raw.get("metadata")
    found = metadata.get(key) if isinstance(metadata, dict) else None
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _chart(labels: dict[str, str]) -> tuple[str, str]:
    """Name and version of the chart. The stack's chart has its name in another label and no version."""
    told = labels.get("helm.sh/chart", "")
    for name in CHARTS:
        if told.startswith(f"{name}-") and told[len(name) + 1 :].lstrip("v")[:1].isdigit():
            return name, told[len(name) + 1 :]
    stack = labels.get("app.kubernetes.io/part-of") == "vllm-stack" or labels.get("helm-release-name")
    return ("vllm-stack", "") if stack and labels.get("model") else ("", "")

"""Who made an object and will write it again: Helm, Argo CD or Flux; and where its chart has the value of a field.

Sources: Helm pkg/action/validate.go (labels and annotations of a release), cmd/helm/list.go (what `-o json` prints);
Argo CD docs/user-guide/resource_tracking.md; Flux kustomize-controller and helm-controller (the labels `<group>/name`
and `<group>/namespace`).
"""

from __future__ import annotations

import shlex
from typing import Any

import msgspec

from kubectl_llmdoctor.catalog.charts import CHARTS, Chart
from kubectl_llmdoctor.engines.version import at_least
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.platforms.labels import MANAGED_BY, PART_OF
from kubectl_llmdoctor.platforms.template import name_of
from kubectl_llmdoctor.tree import dig, table

_RUNTIMES = "kserve-runtime-configs"
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
            whose = [
                f"of chart {self.chart}" if self.chart else "",
                f"in release {self.release}" if self.release else "",
            ]
            what = (
                " ".join(["set", paths, "in the values", *filter(None, whose)])
                if paths
                else f"change the values of release {self.release}"
                if self.release
                else "change the release's values"
            )
            return f"Helm manages it: {what} too, or the next upgrade may undo this"
        what = f"set {paths} in the values of chart {self.chart} there" if paths else "change it there"
        return f"{self.by} {self.name} manages it: {what} too, or its next run undoes this"

    def command(self, values: list[Value] | None) -> str | None:
        """The upgrade of the release that sets these values; None where there is none that can be pasted.

        It does nothing where the release is of another chart, of which this one is a part: it would put this one in its place.
        """
        repo = CHARTS[self.chart].repo if self.chart in CHARTS else ""
        if not (values and self.by == "Helm" and self.release and repo and self.version) or any(
            not value.key for value in values
        ):
            return None
        namespace = _meta(self.object, "annotations").get("meta.helm.sh/release-namespace")
        namespace = namespace or pointer.step(self.object, "metadata").get("namespace")
        where = ["-n", str(namespace)] if namespace else []
        words = ["helm", "upgrade", self.release, self.chart, "--repo", repo, "--version", self.version, *where]
        words.append("--reuse-values")
        for value in values:
            words += ["--set-json", f"{value.key}={msgspec.json.encode(value.value).decode()}"]
        listed = ["helm", "list", *where, "-f", f"^{self.release.replace('.', '[.]')}$", "-o", "json"]
        found = ["grep", "-qF", f'"chart":"{self.chart}-{self.version}"']
        return f"{shlex.join(listed)} | {shlex.join(found)} && {shlex.join(words)}"

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
        places = chart.places if chart.nodes is None or self.object.get("kind") != "LeaderWorkerSet" else chart.nodes
        for place, wanted in places.items():
            if (born := chart.born(place)) and at_least(self.version, born) is False:
                continue
            tokens = pointer.split(place.replace("T/", f"{self._spec}/", 1) if place.startswith("T/") else place)
            if self._matches(tokens, path) and (best is None or len(tokens) > len(best[1])):
                best = wanted, tokens
        if best and not best[0]:
            return None
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
        if self.chart == _RUNTIMES:
            return _runtime(self.object)
        if self.chart == "ray-cluster" and len(place) > 2:
            group = self._now(place[:3])
            return str(group.get("groupName")) if isinstance(group, dict) else ""
        labels = table(self._now([*pointer.split(self._spec)[:-1], "metadata", "labels"]))
        return str(labels.get("model" if self.chart == "vllm-stack" else "llm-d.ai/role") or "*")

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
    release = annotations.get("meta.helm.sh/release-name", "")
    chart, version = _chart(raw, labels, release)
    by = name = ""
    for group, what in ((_FLUX, "Kustomization"), (_FLUX_HELM, "HelmRelease")):
        if named := labels.get(f"{group}/name"):
            by, name = f"Flux {what}", f"{labels.get(f'{group}/namespace', '')}/{named}".lstrip("/")
    tracked = annotations.get("argocd.argoproj.io/tracking-id", "").partition(":")[0]
    if not by and (tracked or labels.get("argocd.argoproj.io/instance")):
        by, name = "Argo CD application", tracked or labels["argocd.argoproj.io/instance"]
    told = labels.get(MANAGED_BY) or labels.get("heritage") or ""
    if not by and (release or told.casefold() == "helm"):
        by = "Helm"
    return Keeper(by=by, name=name, release=release, chart=chart, version=version, object=raw) if by else None


def _meta(raw: dict[str, Any], key: str) -> dict[str, str]:
    return {str(k): str(v) for k, v in table(dig(raw, f"metadata.{key}")).items()}


def _chart(raw: dict[str, Any], labels: dict[str, str], release: str) -> tuple[str, str]:
    """Name and version of the chart, by its label; some have none, and are known by another label or by what they call it."""
    told = labels.get("helm.sh/chart") or labels.get("chart") or ""
    for name in CHARTS:
        if told.startswith(f"{name}-") and told[len(name) + 1 :].lstrip("v")[:1].isdigit():
            return name, told[len(name) + 1 :]
    stack = labels.get(PART_OF) == "vllm-stack" or labels.get("helm-release-name")
    if stack and labels.get("model"):
        return "vllm-stack", ""
    if release and name_of(raw) == f"{release}-deployment-vllm":
        return "chart-vllm", ""
    return (_RUNTIMES, "") if _runtime(raw) else ("", "")


def _runtime(raw: dict[str, Any]) -> str:
    """What the values of KServe's chart call a runtime; empty for others."""
    name = name_of(raw) if raw.get("kind") == "ClusterServingRuntime" else ""
    known = name in ("kserve-huggingfaceserver", "kserve-vllmserver")
    return name.removeprefix("kserve-") if known else ""

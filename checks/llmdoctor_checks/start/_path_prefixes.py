"""Ingresses and routes that lead to a server below a path that it does not have, and pass that path on as it is.

Sources: URLRewrite of the Gateway API (`ReplacePrefixMatch`); `rewrite-target` of ingress-nginx, whose path is a regular expression then;
`rewrite` of Istio's VirtualService.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kubectl_llmdoctor.api import Cluster, Evidence, Fix, Item, Pod, backends_of, dig, fixes, object_evidence, rows
from llmdoctor_checks._ingress import class_of

_REWRITE, _REGEX = "nginx.ingress.kubernetes.io/rewrite-target", "nginx.ingress.kubernetes.io/use-regex"


def passed_on(pod: Pod, path: str, right: Callable[[str], bool], cluster: Cluster) -> tuple[str, Evidence, Fix] | None:
    """The object that leads to the pod below the beginning of a path, behind which the server has the rest; and its rewriting."""
    names = {item.name for item in (*pod.services, *pod.pools)}
    for item, at, prefix, fix in (
        *_ingresses(pod, names),
        *_routes(pod, names, cluster),
        *_virtual(pod, names, cluster),
    ):
        if len(prefix) > 1 and path.startswith(f"{prefix}/") and right(path.removeprefix(prefix)):
            return f"{item.plain_kind} {item.name} passes {prefix} on", object_evidence(item, at, prefix), fix
    return None


_Way = tuple[Item, str, str, Fix]


def _ingresses(pod: Pod, names: set[str]) -> Iterator[_Way]:
    for item in pod.cluster.items("Ingress", pod.namespace):
        every = [
            (f"/spec/rules/{n}/http/paths/{m}", path)
            for n, rule in enumerate(rows(item.raw, "spec.rules"))
            for m, path in enumerate(rows(rule, "http.paths"))
        ]
        for at, path in every:
            prefix = str(path.get("path") or "").rstrip("/")
            if dig(path, "backend.service.name") not in names or _REWRITE in item.annotations:
                continue
            text = f"Have Ingress/{item.name} take {prefix} off: {_REWRITE}: /$2 with the path {prefix}(/|$)(.*)"
            nginx = "nginx" in class_of(item)
            if nginx and len(every) == 1:
                fix = fixes.patch_object(
                    item,
                    text,
                    [
                        {
                            "op": "add",
                            "path": "/metadata/annotations",
                            "value": {**item.annotations, _REGEX: "true", _REWRITE: "/$2"},
                        },
                        {"op": "replace", "path": f"{at}/path", "value": f"{prefix}(/|$)(.*)"},
                        {"op": "replace", "path": f"{at}/pathType", "value": "ImplementationSpecific"},
                    ],
                )
            elif nginx:
                fix = fixes.advice(f"{text}, in an Ingress of its own, as that holds for all its paths")
            else:
                fix = fixes.advice(
                    f"Have what serves Ingress/{item.name} take {prefix} off the path before it passes requests on (a Middleware with "
                    'stripPrefix for Traefik, konghq.com/strip-path: "true" for Kong), or clients ask below another host without it'
                )
            yield item, f"spec.rules[{at.split('/')[3]}].http.paths[{at.split('/')[6]}].path", prefix, fix


def _routes(pod: Pod, names: set[str], cluster: Cluster) -> Iterator[_Way]:
    for item in cluster.items("HTTPRoute"):
        for n, rule in enumerate(rows(item.raw, "spec.rules")):
            mine = any(
                b.namespace == pod.namespace and b.name in names and b.path.startswith(f"spec.rules[{n}].")
                for b in backends_of(item)
            )
            filters = rows(rule, "filters")
            if not mine or any(one.get("type") == "URLRewrite" for one in filters):
                continue
            added = {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
            }
            for m, match in enumerate(rows(rule, "matches")):
                prefix = str(dig(match, "path.value") or "").rstrip("/")
                fix = fixes.set_field(
                    item,
                    f"/spec/rules/{n}/filters",
                    [*filters, added],
                    f"Have HTTPRoute/{item.name} replace the prefix {prefix} with / (URLRewrite, ReplacePrefixMatch)",
                    op="add",
                )
                if len(rows(rule, "matches")) > 1:
                    fix = _apart(item, prefix)
                yield item, f"spec.rules[{n}].matches[{m}].path.value", prefix, fix


def _virtual(pod: Pod, names: set[str], cluster: Cluster) -> Iterator[_Way]:
    for item in cluster.items("VirtualService"):
        for n, rule in enumerate(rows(item.raw, "spec.http")):
            hosts = [str(dig(to, "destination.host")).split(".") for to in rows(rule, "route")]
            mine = any(host[0] in names and [*host[1:2], item.namespace][0] == pod.namespace for host in hosts)
            for m, match in enumerate(rows(rule, "match")) if mine and not rule.get("rewrite") else ():
                prefix = str(dig(match, "uri.prefix") or "").rstrip("/")
                text = f"Have VirtualService/{item.name} replace the prefix {prefix}/ with / (match.uri.prefix: {prefix}/, rewrite.uri: /)"
                operations: list[dict[str, Any]] = [
                    {"op": "replace", "path": f"/spec/http/{n}/match/{m}/uri/prefix", "value": f"{prefix}/"},
                    {"op": "add", "path": f"/spec/http/{n}/rewrite", "value": {"uri": "/"}},
                ]
                alone = len(rows(rule, "match")) == 1
                fix = fixes.patch_object(item, text, operations) if alone else _apart(item, prefix)
                yield item, f"spec.http[{n}].match[{m}].uri.prefix", prefix, fix


def _apart(item: Item, prefix: str) -> Fix:
    """A rule of its own: what one rewrites it rewrites of all that it matches."""
    return fixes.advice(
        f"Give {prefix} a rule of its own in {item.plain_kind}/{item.name} that replaces the prefix {prefix} with /",
        f"kubectl -n {item.namespace} edit {item.plain_kind.lower()} {item.name}",
    )

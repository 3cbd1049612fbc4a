"""Random affinity to other pods, and spreading over zones, hosts and racks."""

from __future__ import annotations

from .draw import Draw
from .model import Object

_KEYS = (
    "topology.kubernetes.io/zone",
    "kubernetes.io/hostname",
    "rack",
    "topology.kubernetes.io/region",
    "pool",
    "no-such-label",
)


def _selector(draw: Draw, own: dict[str, str]) -> Object | None:
    if draw.chance(0.05):
        return None
    if draw.chance(0.08):
        return {}
    found: Object = {}
    if draw.chance(0.8):
        found["matchLabels"] = {
            "app": own.get("app", "llama") if draw.chance(0.6) else draw.one(["llama", "mistral", "gateway"])
        }
    if draw.chance(0.3) or not found:
        operator = draw.one(["In", "NotIn", "Exists", "DoesNotExist"])
        row: Object = {"key": draw.one(["version", "tier", "app"]), "operator": operator}
        if operator in ("In", "NotIn"):
            row["values"] = draw.some(["v1", "v2", "front", "llama"], 1, 3)
        found["matchExpressions"] = [row]
    return found


def _keys(selector: Object) -> list[str]:
    """Labels that the selector does not speak of: the others may not be named beside it."""
    said = {row["key"] for row in selector.get("matchExpressions", ())} | set(selector.get("matchLabels", ()))
    return [key for key in ("version", "tier", "missing") if key not in said]


def _term(draw: Draw, own: dict[str, str]) -> Object:
    term: Object = {"topologyKey": draw.one(_KEYS[:3]) if draw.chance(0.85) else draw.one(_KEYS)}
    selector = _selector(draw, own)
    if selector is not None:
        term["labelSelector"] = selector
    if draw.chance(0.2):
        term["namespaces"] = draw.some(["serving", "research", "web", "gone"], 1, 2)
    if draw.chance(0.25):
        term["namespaceSelector"] = draw.one(
            [
                {},
                {"matchLabels": {"team": "ml"}},
                {"matchLabels": {"env": "prod"}},
                {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]},
            ]
        )
    if selector is not None and draw.chance(0.2) and (keys := _keys(selector)):
        term[draw.one(["matchLabelKeys", "mismatchLabelKeys"])] = [draw.one(keys)]
    return term


def affinity(draw: Draw, pod: Object, *, required: bool, anti_only: bool) -> None:
    """Gives the pod affinity to others, or against them."""
    own = pod["metadata"]["labels"]
    found = pod["spec"].setdefault("affinity", {})
    for kind in ("podAffinity", "podAntiAffinity"):
        if (anti_only and kind == "podAffinity") or not draw.chance(0.8 if anti_only else 0.6):
            continue
        terms = [_term(draw, own) for _ in range(draw.one([1, 1, 2]))]
        if required:
            found[kind] = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        else:
            rows = [{"weight": 10, "podAffinityTerm": term} for term in terms]
            found[kind] = {"preferredDuringSchedulingIgnoredDuringExecution": rows}


def spread(draw: Draw, pod: Object) -> None:
    """Gives the pod constraints on how it is spread."""
    own = pod["metadata"]["labels"]
    rows: list[Object] = []
    for key in draw.some(_KEYS, 1, 2) if draw.chance(0.3) else draw.some(_KEYS[:3], 1, 2):
        row: Object = {"maxSkew": draw.one([1, 1, 1, 2, 3]), "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule"}
        if draw.chance(0.1):
            row["whenUnsatisfiable"] = "ScheduleAnyway"
        elif draw.chance(0.25):
            row["minDomains"] = draw.between(1, 5)
        selector = _selector(draw, own)
        if selector is not None:
            row["labelSelector"] = selector
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if draw.chance(0.35):
                row[policy] = draw.one(["Honor", "Ignore"])
        if selector is not None and draw.chance(0.25) and (keys := _keys(selector)):
            row["matchLabelKeys"] = [draw.one(keys)]
        rows.append(row)
    pod["spec"]["topologySpreadConstraints"] = rows

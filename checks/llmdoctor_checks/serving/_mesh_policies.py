"""AuthorizationPolicies of Istio by which a server's own proxy refuses requests.

Source: Envoy's access log: status 403, and the detail `rbac_access_denied_matched_policy[none]` where no rule of those that allow was met,
or with the namespace and name of the policy that denies. The client's address is the second before the last two words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    count_of,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    rows,
)
from llmdoctor_checks.serving._exposure import matches

DENIED = "rbac_access_denied_matched_policy["
_PROXY = "istio-proxy"
_POLICY = r"matched_policy\[(?:none\]|ns\[(?P<space>[\w-]{1,63})\]-policy\[(?P<name>[\w.-]{1,253})\])"
_FROM = r" [\d.]{7,15}:\d{1,5} (?P<address>\d{1,3}(?:\.\d{1,3}){3}):\d{1,5} \S{1,300} \S{1,100}$"
#: Fewer are a moment's, or somebody's who tries.
_FEWEST = 3


def denied(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The last requests to a ready pod, each refused by its proxy, and the policies that do so."""
    proxy = pod.container(_PROXY)
    log = logs.current(_PROXY) if logs is not None and proxy is not None else None
    lines = [line for line in log.find(DENIED) if '"POST ' in line.text[:2000]] if log is not None else []
    if log is None or len(lines) < _FEWEST or any(x.number > lines[0].number for x in log.find(" via_upstream ")):
        return
    said = re.search(_POLICY, lines[-1].text[:4000])
    found = list(_policies(pod, cluster, said["space"], said["name"])) if said else []
    whose = " and ".join(item.name for item in found)
    yield Finding(
        severity="warning",
        summary=f"{_PROXY} of {pod.name} refused {count_of(len(lines), 'request')} one after another (403): "
        + (
            f"AuthorizationPolicy {said['name']} denies them."
            if said and said["name"]
            else f"no rule of AuthorizationPolicy {whose} allows them."
            if found
            else "no rule of an AuthorizationPolicy allows them."
        ),
        evidence=(log_evidence(lines[-1]), *(_quoted(item) for item in found)),
        explains=("http-5xx",),
        fix=_allowed(found, _client(lines, pod, cluster), denies=bool(said and said["name"])),
        order=lines[-1].order,
    )


def _policies(pod: Pod, cluster: Cluster, space: str | None, name: str | None) -> Iterator[Item]:
    """The policy that denies, or those that allow and are for the pod."""
    for item in cluster.items("AuthorizationPolicy"):
        denies = (item.namespace, item.name) == (space, name)
        mine = item.namespace == pod.namespace and dig(item.raw, "spec.action") in (None, "ALLOW")
        if denies if name else mine and matches(dig(item.raw, "spec.selector.matchLabels"), pod.labels):
            yield item


def _quoted(item: Item) -> Evidence:
    sources = [dig(one, "source") for rule in rows(item.raw, "spec.rules") for one in rows(rule, "from")]
    text = "; ".join(f"{k}: {', '.join(map(str, v))}" for s in sources if isinstance(s, dict) for k, v in s.items())
    return object_evidence(item, "spec.rules", text or f"{len(rows(item.raw, 'spec.rules'))} without from")


def _client(lines: list[Line], pod: Pod, cluster: Cluster) -> Pod | None:
    """The pod of the mesh that asked, where all came from one."""
    asked = {said["address"] for line in lines if (said := re.search(_FROM, line.text[:4000].rstrip()))}
    found = [Pod.of(item, cluster) for item in cluster.items("Pod") if str(dig(item.raw, "status.podIP")) in asked]
    return found[0] if len(asked) == 1 and len(found) == 1 and found[0].item is not pod.item else None


def _allowed(found: list[Item], client: Pod | None, *, denies: bool) -> Fix:
    if denies or len(found) != 1 or client is None or client.container(_PROXY) is None:
        names = " or ".join(f"AuthorizationPolicy/{item.name}" for item in found) or "an AuthorizationPolicy"
        who = f"{client.name} of {client.namespace}" if client is not None else "the clients"
        return fixes.platform(
            f"Have {names} {'no longer deny' if denies else 'allow'} what {who} asks (principals need mutual TLS, so a client in the mesh)"
        )
    account = (dig(client.item.raw, "spec.serviceAccountName") if client.item else None) or "default"
    principal = f"cluster.local/ns/{client.namespace}/sa/{account}"
    rule = {"from": [{"source": {"principals": [principal]}}]}
    rules = dig(found[0].raw, "spec.rules")
    return fixes.patch_object(
        found[0],
        f"Let {principal}, as which {client.name} asks, in with a rule of AuthorizationPolicy/{found[0].name}",
        [{"op": "add", "path": "/spec/rules/-", "value": rule}]
        if isinstance(rules, list)
        else [{"op": "add", "path": "/spec/rules", "value": [rule]}],
        owner="platform",
    )

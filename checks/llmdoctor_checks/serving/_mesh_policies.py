"""Policies of Istio by which a server's own proxy refuses requests: AuthorizationPolicies, and PeerAuthentications that demand mTLS.

Source: Envoy's access log: status 403, and the detail `rbac_access_denied_matched_policy[none]` where no rule of those that allow was met,
or with the namespace and name of the policy that denies. The client's address is the second before the last two words.
A connection without TLS to a proxy that demands mTLS is reset; the log has it as `0 NR filter_chain_not_found`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kubectl_llmdoctor.api import (
    KNATIVE_REVISION,
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    addresses,
    count_of,
    current_logs,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    rows,
    table,
)
from llmdoctor_checks._unreached import last_answered
from llmdoctor_checks.serving._exposure import lasting, matches
from llmdoctor_checks.serving._routes import answers
from llmdoctor_checks.start._mesh import of_mtls

DENIED = "rbac_access_denied_matched_policy["
_PROXY = "istio-proxy"
_POLICY = r"matched_policy\[(?:none\]|ns\[(?P<space>[\w-]{1,63})\]-policy\[(?P<name>[\w.-]{1,253})\])"
_FROM = r" [\d.]{7,15}:\d{1,5} (?P<address>\d{1,3}(?:\.\d{1,3}){3}):\d{1,5} \S{1,300} \S{1,100}$"
#: So many probes: it asks several times in a second, but logs what fails for a while.
_FEW_PROBES = 2
#: Fewer are a moment's, or somebody's who tries.
_FEWEST = 3
_TIME, _OVER_SECONDS = r"\[(\d[\dT:.-]{18,30}Z)\]", 86400

#: What Envoy says of a connection for which it has no rules, and what a client says that it cut off, with whom it asked: nginx, Go's net,
#: and whoever names a URL.
_NO_CHAIN = "NR filter_chain_not_found"
_RESET = ("reset by peer", "ECONNRESET")
_WAS_RESET = (
    r"reset by peer\).{0,2000}upstream: \"http://(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5})",
    r"->(?P<host>[\d.]{7,15}):(?P<port>\d{1,5}): read: connection reset by peer",
    r"http://(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5})\b.{0,300}(?:reset by peer|ECONNRESET)",
)
#: Who asks for metrics alone; those it may do without.
_SCRAPES = r"(?i)prometheus|vmagent|otel|opentelemetry|alloy|datadog"

#: Knative's activator, which asks the proxy of a revision (`queue`) before it sends requests on; Istio's answer instead.
_UNPROBED = r"unexpected body: want .{1,4}queue.{1,8}got .{1,4}RBAC: access denied"
_OF_REVISION = r'"knative\.dev/key":(?:\{"knative\.dev/key":)?"(?P<key>[\w./-]{3,300})"'
_ACCESS_DENIED = "RBAC: access denied"
#: What it says once a pod of a revision has answered it (pkg/activator/net/throttler.go).
_THROTTLED, _REACHED = "Updating Revision Throttler with: ", r"backends = [1-9]"

LITERALS = (DENIED, _NO_CHAIN, *_RESET, _ACCESS_DENIED, _THROTTLED)


def denied(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The last requests to a ready pod, each refused by its proxy, and the policies that do so."""
    proxy = pod.container(_PROXY)
    log = logs.current(_PROXY) if logs is not None and proxy is not None else None
    lines = [line for line in log.find(DENIED) if '"POST ' in line.text[:2000]] if log is not None else []
    if log is None or len(lines) < _FEWEST or any(x.number > lines[0].number for x in log.find(" via_upstream ")):
        return
    # a proxy may log errors alone, and what nobody has asked for a day is over
    if answers(pod, logs) and next(log.find(" via_upstream "), None) is None:
        return
    stamp = re.match(_TIME, lines[-1].text)
    if stamp and (cluster.seconds_since(stamp[1]) or 0) > _OVER_SECONDS:
        return
    said = re.search(_POLICY, lines[-1].text[:4000])
    found = list(_policies(pod, cluster, said["space"], said["name"])) if said else []
    client = _client(lines, pod, cluster)
    if client is not None and not (said and said["name"]) and any(_lets_in(one, client) for one in found):
        return  # since then
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
        fix=_allowed(found, client, denies=bool(said and said["name"])),
        order=lines[-1].order,
    )


def plain(pod: Pod, engines: Sequence[Engine], cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A client outside of the mesh that asks a ready server without TLS, and a PeerAuthentication by which its proxy cuts it off."""
    rule = of_mtls(pod) if pod.container(_PROXY) is not None else None
    if rule is None or dig(rule.raw, "spec.mtls.mode") != "STRICT":
        return
    apart = table(dig(rule.raw, "spec.portLevelMtls"))
    ports = [p for e in engines if isinstance(p := e.value("port"), int) and str(p) not in map(str, apart)]
    log = logs.current(_PROXY) if logs is not None else None
    for port in ports:
        said = list(log.find(_NO_CHAIN)) if log is not None else []
        client, line = _cut_off(pod, port, said, cluster) or (None, None)
        if client is None or line is None:
            continue
        who = client.name if client.namespace == pod.namespace else f"{client.namespace}/{client.name}"
        yield Finding(
            severity="warning",
            summary=f"PeerAuthentication {rule.name} of {rule.namespace} lets nobody ask {pod.name} without mTLS (STRICT), and {who} is no "
            f"part of the mesh: {_PROXY} cuts its connections to port {port} off.",
            evidence=(log_evidence(line), object_evidence(rule, "spec.mtls.mode", "STRICT")),
            explains=("http-5xx", "port-mismatch"),
            fixes=(
                _open_to(rule, pod, port),
                fixes.platform(f"Bring {who} into the mesh instead (sidecar.istio.io/inject: 'true' on its pods)"),
            ),
            order=line.order,
        )
        return


def unprobed(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """A revision of Knative's whose proxies Istio keeps from the activator: it holds the requests until they time out."""
    for log in current_logs(cluster):
        said = [
            (x, m)
            for x, m in log.matching(_OF_REVISION, _ACCESS_DENIED, most=2000)
            if re.search(_UNPROBED, x.text[:8000])
        ]
        mine = log.whose[:2] == (pod.namespace, pod.name)
        of_it = [(x, m) for x, m in said if mine or _is_of(pod, m["key"])]
        if len(of_it) < _FEW_PROBES:
            continue
        line, match = of_it[-1]
        if any(
            x.number > line.number and m["key"] == match["key"] and re.search(_REACHED, x.text[:8000])
            for x, m in log.matching(_OF_REVISION, _THROTTLED, most=2000)
        ):
            continue
        space, _, revision = match["key"].partition("/")
        its = next(
            (one.labels for one in cluster.items("Pod", space) if one.labels.get(KNATIVE_REVISION) == revision), {}
        )
        fitting = [
            one
            for one in cluster.items("AuthorizationPolicy", space)
            if matches(dig(one.raw, "spec.selector.matchLabels"), its)
        ]
        found = [one for one in fitting if dig(one.raw, "spec.action") in (None, "ALLOW")]
        first = " and ".join(one.name for one in fitting if dig(one.raw, "spec.action") == "DENY")
        names = " and ".join(one.name for one in found)
        yield Finding(
            severity="warning",
            summary=f"Istio keeps the activator from revision {revision} of {space}: it asks the pods whether they are up and is answered "
            f"{_ACCESS_DENIED}, so that requests wait for nothing."
            + (f" No rule of AuthorizationPolicy {names} allows it." if names and not first else ""),
            evidence=(log_evidence(line), *(_quoted(one) for one in found)),
            explains=("http-5xx", "gateway-timeout"),
            fix=fixes.platform(
                f"Let the activator in with an AuthorizationPolicy of {space} that allows paths /healthz, /metrics, /ready and "
                f"/wait-for-drain, and what comes from namespace {log.source.namespace}"
                + (
                    f"; leave these paths out of AuthorizationPolicy {first} (notPaths), which denies before any allows"
                    if first
                    else ""
                )
            ),
            order=line.order,
        )
        return


def _is_of(pod: Pod, key: str) -> bool:
    return key == f"{pod.namespace}/{pod.labels.get(KNATIVE_REVISION)}"


def _cut_off(pod: Pod, port: int, said: list[Line], cluster: Cluster) -> tuple[Pod, Line] | None:
    """A client without a proxy that was cut off at a port, and where the server's proxy or its own log says so, up to the last."""
    if len(said) >= _FEWEST:
        here = [x for x in said if f" {pod.status.pod_ip}:{port} " in x.text[:4000]]
        client = _client(here, pod, cluster) if len(here) >= _FEWEST else None
        if client is not None and _outside(client):
            return client, here[-1]
    mine = {pod.status.pod_ip, *(str(dig(item.raw, "spec.clusterIP")) for item in pod.services)}
    names = {item.name for item in pod.services}
    for log in current_logs(cluster):
        item = cluster.item("Pod", log.source.namespace, log.pod)
        client = Pod.of(item, cluster) if item is not None and item is not pod.item else None
        if client is None or not _outside(client):
            continue
        found = [(x, m) for pattern in _WAS_RESET for x, m in log.matching(pattern, *_RESET, most=1000)]
        lost = [
            x
            for x, m in found
            if x.number > last_answered(log)
            and (m["host"] in mine or addresses(m[0], names, pod.namespace, client.namespace))
        ]
        if len(lost) >= _FEWEST:
            return client, lost[-1]
    return None


def _outside(client: Pod) -> bool:
    called = f"{client.name} {' '.join(c.spec.image for c in client.containers)}"
    return client.container(_PROXY) is None and not re.search(_SCRAPES, called)


def _open_to(rule: Item, pod: Pod, port: int) -> Fix:
    """A port that takes connections without TLS as well, of these pods alone."""
    text = f"Let port {port} of {fixes.edited(pod)} take connections without TLS as well"
    if dig(rule.raw, "spec.selector.matchLabels"):
        level = {**table(dig(rule.raw, "spec.portLevelMtls")), str(port): {"mode": "PERMISSIVE"}}
        return fixes.set_field(
            rule, "/spec/portLevelMtls", level, f"{text} (PeerAuthentication/{rule.name})", owner="platform", op="add"
        )
    own = {key: value for key, value in lasting(pod.labels).items() if "istio.io/" not in key}
    spec = {
        "selector": {"matchLabels": own},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {str(port): {"mode": "PERMISSIVE"}},
    }
    name = f"{fixes.edited(pod).rpartition('/')[2]}-plain"
    made = fixes.create(rule.api_version, "PeerAuthentication", name, pod.namespace, spec=spec)
    return fixes.platform(f"{text}, with a PeerAuthentication of its own", made)


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


def _principal(client: Pod) -> str:
    account = (dig(client.item.raw, "spec.serviceAccountName") if client.item else None) or "default"
    return f"cluster.local/ns/{client.namespace}/sa/{account}"


def _lets_in(item: Item, client: Pod) -> bool:
    """Whether a rule of a policy that allows names who asked."""
    sources = [dig(one, "source") for rule in rows(item.raw, "spec.rules") for one in rows(rule, "from")]
    return any(_principal(client) in (dig(one, "principals") or ()) for one in sources)


def _allowed(found: list[Item], client: Pod | None, *, denies: bool) -> Fix:
    if denies or len(found) != 1 or client is None or client.container(_PROXY) is None:
        names = " or ".join(f"AuthorizationPolicy/{item.name}" for item in found) or "an AuthorizationPolicy"
        asks = f"{client.name} of {client.namespace} asks" if client is not None else "the clients ask"
        if client is None and not denies:
            return fixes.platform(
                f"Name who asks in a rule of {names}: principals cluster.local/ns/NAMESPACE/sa/SERVICEACCOUNT of the gateway or client, "
                "which must be in the mesh (mutual TLS)",
                "kubectl get authorizationpolicies -A -o yaml",
            )
        return fixes.platform(
            f"Have {names} {'no longer deny' if denies else 'allow'} what {asks} (principals need mutual TLS, so a client in the mesh)"
        )
    principal = _principal(client)
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

"""Timeouts of what stands before a pod, by the objects that say them.

Sources: Istio VirtualService (`timeout` of a route is the whole request, off by default), Gateway API
(`timeouts.request`, the same), Knative (`timeoutSeconds` of a revision, the whole request), ingress-nginx
(`proxy-read-timeout`, the pause between two reads, 60 s unless set), AWS' Application Load Balancer
(`idle_timeout.timeout_seconds`, the same, 60 s as well), Envoy Gateway (a BackendTrafficPolicy's `requestTimeout` and
`perRetry.timeout`; Envoy's own 15 s for a route that names none; 60 s for one of Envoy AI Gateway), OpenShift's router
(`haproxy.router.openshift.io/timeout` of a Route, the pause between two reads, 30 s unless set), the load
balancer of a GKE gateway (`timeoutSec` of a GCPBackendPolicy, the whole request), Azure's Application Gateway
(`appgw.ingress.kubernetes.io/request-timeout`, 30 s unless set), APISIX (`k8s.apisix.apache.org/upstream-read-timeout`, 60 s).
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    INFERENCE_SERVICE,
    Cluster,
    Engine,
    Evidence,
    Fix,
    Item,
    Pod,
    Subject,
    dig,
    duration,
    fixes,
    object_evidence,
    parents_of,
    pointer_to,
    rows,
    rules_of,
    say_seconds,
)
from llmdoctor_checks._ingress import class_of
from llmdoctor_checks._routes import controllers_of
from llmdoctor_checks.serving._exposure import backends, leads

_NGINX = "nginx.ingress.kubernetes.io/"
#: Faster than nearly every model generates for one request; what takes longer than the timeout at this pace is cut.
FASTEST_TOKENS_PER_SECOND = 200

#: ingress-nginx' own pause between two reads, which most clusters live with.
NGINX_SECONDS = 60

#: Controllers of gateways that leave Envoy's own timeout where a route names none (envoyproxy/ai-gateway, issue 361, and
#: kgateway-dev/kgateway, issue 12285). Istio's switches it off.
_LEAVES = ("gateway.envoyproxy.io/", "kgateway.dev/")

#: Where a BackendTrafficPolicy has the time of a whole request.
_WHOLE_BY_POLICY = "spec.timeout.http.requestTimeout"

#: Envoy AI Gateway's own: the HTTPRoute that it makes of a route which names none has `request: 60s`.
_AI_SECONDS = 60

#: What the AWS load balancer controller sets of an Application Load Balancer, as `key=value` with commas between.
_ALB = "alb.ingress.kubernetes.io/"
ALB_ATTRIBUTES = f"{_ALB}load-balancer-attributes"
_ALB_SECONDS = 60
_ALB_IDLE = r"(?:^|,)\s*idle_timeout\.timeout_seconds=(\d{1,6})\s*(?:,|$)"

#: Other controllers that take a pause from an annotation of an Ingress: how their classes are called, the annotation, which is theirs
#: alone, what they take where it is not there, and what follows the number.
_BY_ANNOTATION = (
    ("azure[/-]application-gateway", "appgw.ingress.kubernetes.io/", "request-timeout", 30, ""),
    ("apisix", "k8s.apisix.apache.org/", "upstream-read-timeout", 60, "s"),
)

#: Contour leaves it at what Envoy takes for a whole answer where its HTTPProxy says nothing.
_CONTOUR_SECONDS = 15

#: OpenShift's router (`timeout server` in its haproxy-config.template). Of a passthrough route it does not see the requests.
_OPENSHIFT, _OPENSHIFT_SECONDS = "haproxy.router.openshift.io/timeout", 30
_OPENSHIFT_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001, "us": 0.000001, "": 0.001}

#: Knative refuses more than `max-revision-timeout-seconds`, which is 600 unless an administrator changed it.
KNATIVE_MOST_SECONDS = 600

#: What Knative tells its proxy (`queue.go`), and whether it counts the whole request or the wait for its beginning.
_PROXY = {"REVISION_RESPONSE_START_TIMEOUT_SECONDS": False, "REVISION_TIMEOUT_SECONDS": True}


class Timeout(msgspec.Struct, frozen=True):
    """One timeout on the way to a pod."""

    item: Item
    path: str
    text: str
    seconds: float
    #: whether it counts the whole request, or only a pause in the answer
    whole: bool
    #: whether an object says it, or nothing does and its controller takes it
    told: bool = True

    @property
    def pointer(self) -> str:
        """Where it stands, for a patch."""
        return pointer_to(self.path)

    @property
    def where(self) -> str:
        """The object that says it: `HTTPRoute/llama`."""
        return f"{self.item.raw.get('kind')}/{self.item.name}"

    @property
    def evidence(self) -> Evidence:
        """What the object says of it."""
        return object_evidence(self.item, self.path, self.text)


def ports(engine: Engine) -> set[int]:
    """The port that it was told, or those of its container where its command is not known."""
    port = engine.value("port")
    return {port} if isinstance(port, int) else engine.container.declared_ports


def timeouts(pod: Pod, engine: Engine | None, subject: Subject, cluster: Cluster) -> Iterator[Timeout]:
    """Those that objects state, or leave at what their controller takes for it."""
    names = {item.name for item in pod.services if engine is None or leads(item, pod, ports(engine))}
    for item in cluster.items("VirtualService"):
        for index, route in enumerate(rows(item.raw, "spec.http")):
            hosts = [str(dig(to, "destination.host")) for to in rows(route.get("route"))]
            if any(_is_service(host, names, pod.namespace, item.namespace) for host in hosts):
                yield from _whole(item, f"spec.http[{index}].timeout", route.get("timeout"))
    behind = {*(("Service", name) for name in names), *(("InferencePool", pool.name) for pool in pod.pools)}
    yield from _of_routes(pod, behind)
    yield from _of_policies(names, pod.namespace, cluster)
    yield from _of_gke(pod, behind)
    yield from _of_ai_routes(names, pod.namespace, cluster)
    for item in cluster.items("Ingress", pod.namespace):
        if names & set(backends(item)):
            yield from _nginx(item)
            yield from _alb(item)
            yield from _annotated(item)
    for item in cluster.items("HTTPProxy", pod.namespace):
        yield from _contour(item, names)
    for item in cluster.items("Route", pod.namespace):
        if item.api_version.startswith("route.openshift.io/") and names & {
            str(to.get("name")) for to in _targets(item)
        }:
            yield from _openshift(item)
    if subject.workload and subject.workload.item.kind == "Service.serving.knative.dev":
        yield from _knative(subject.workload.item)
    elif pod.exists:
        yield from of_knative(pod, cluster)


def _of_gke(pod: Pod, behind: set[tuple[str, str]]) -> Iterator[Timeout]:
    """What GKE's gateways are told beside the routes, of a Service or a pool."""
    path = "spec.default.timeoutSec"
    for item in pod.cluster.items("GCPBackendPolicy", pod.namespace):
        kind, name = (str(dig(item.raw, f"spec.targetRef.{key}")) for key in ("kind", "name"))
        if (kind, name) in behind:
            yield from _whole(item, path, dig(item.raw, path))


def _of_routes(pod: Pod, behind: set[tuple[str, str]]) -> Iterator[Timeout]:
    """What HTTPRoutes say: for the whole request, or for each attempt."""
    for item in pod.cluster.items("HTTPRoute") if behind else ():
        if _made(item, pod.cluster):
            continue
        for rule in rules_of(item):
            led = {(one.kind, one.name) for one in rule.backends if one.namespace == pod.namespace}
            for key in ("request", "backendRequest") if led & behind else ():
                yield from _whole(item, f"{rule.path}.timeouts.{key}", dig(rule.raw, f"timeouts.{key}"))


def _knative(item: Item) -> Iterator[Timeout]:
    """What a Service of Knative's says: for the whole request, and for the wait for its beginning."""
    for name, whole in (("timeoutSeconds", True), ("responseStartTimeoutSeconds", False)):
        path = f"spec.template.spec.{name}"
        yield from (msgspec.structs.replace(one, whole=whole) for one in _whole(item, path, dig(item.raw, path)))


def _of_policies(names: set[str], namespace: str, cluster: Cluster) -> Iterator[Timeout]:
    """What Envoy Gateway is told beside the routes: the whole request, or each attempt."""
    for item in _policies(names, namespace, cluster):
        for path in (_WHOLE_BY_POLICY, "spec.retry.perRetry.timeout"):
            yield from _whole(item, path, dig(item.raw, path))


def _policies(names: set[str], namespace: str, cluster: Cluster) -> Iterator[Item]:
    """The policies of Envoy Gateway for a route, or for the gateway of one."""
    routes = [item for item in cluster.items("HTTPRoute", namespace) if names & set(backends(item))]
    meant = {("HTTPRoute", item.name) for item in routes}
    meant |= {("Gateway", name) for item in routes for _, name in parents_of(item)}
    for item in cluster.items("BackendTrafficPolicy") if meant else ():
        single = dig(item.raw, "spec.targetRef")
        refs = [*rows(item.raw, "spec.targetRefs"), *([single] if isinstance(single, dict) else [])]
        if item.namespace == namespace and meant & {(str(ref.get("kind")), str(ref.get("name"))) for ref in refs}:
            yield item


def of_envoy(names: set[str], namespace: str, cluster: Cluster) -> Iterator[Timeout]:
    """Envoy's own 15 s, which apply to a route that names no timeout, nor a policy for it, where its controller leaves them (`_LEAVES`)."""
    if any(dig(policy.raw, _WHOLE_BY_POLICY) for policy in _policies(names, namespace, cluster)):
        return
    for item in cluster.items("HTTPRoute", namespace):
        if not any(name.startswith(_LEAVES) for name in controllers_of(item, cluster)) or not names & set(
            backends(item)
        ):
            continue
        for index, rule in enumerate(rows(item.raw, "spec.rules")):
            if not dig(rule, "timeouts"):
                path = f"spec.rules[{index}].timeouts"
                yield Timeout(item, path, "not set, Envoy's own 15s", 15, whole=True, told=False)


def _of_ai_routes(names: set[str], namespace: str, cluster: Cluster) -> Iterator[Timeout]:
    """Those of Envoy AI Gateway: 60 s for the whole request where a rule names none."""
    for item in cluster.items("AIGatewayRoute", namespace):
        for rule in rules_of(item):
            if not any(names & _of_backend(one.name, namespace, cluster) for one in rule.backends):
                continue
            told = dig(rule.raw, "timeouts.request")
            path = f"{rule.path}.timeouts"
            if told is None:
                text = f"not set, which means {_AI_SECONDS}s"
                yield Timeout(item, path, text, _AI_SECONDS, whole=True, told=False)
            else:
                yield from _whole(item, f"{path}.request", told)


def _made(route: Item, cluster: Cluster) -> bool:
    """Whether Envoy AI Gateway makes an HTTPRoute of one of its own, and sets it back to what that says."""
    owners = rows(route.raw, "metadata.ownerReferences")
    kind = "AIGatewayRoute"
    return any(o.get("kind") == kind and cluster.item(kind, route.namespace, str(o.get("name"))) for o in owners)


def _of_backend(name: str, namespace: str, cluster: Cluster) -> set[str]:
    """The Services of a namespace to which an AIServiceBackend leads, by itself or through a Backend; of an unread one its name."""
    backend = cluster.item("AIServiceBackend", namespace, name)
    if backend is None:
        return {name}
    ref = dig(backend.raw, "spec.backendRef")
    if not isinstance(ref, dict):
        return set()
    if ref.get("kind", "Service") == "Service":
        return {str(ref.get("name"))}
    there = cluster.item("Backend", namespace, str(ref.get("name")))
    hosts = (str(dig(end, "fqdn.hostname")).split(".") for end in rows(there.raw, "spec.endpoints")) if there else ()
    return {host[0] for host in hosts if host[1:2] == [namespace]}


def of_knative(pod: Pod, cluster: Cluster) -> Iterator[Timeout]:
    """The limits that Knative gives its proxy in the pod, whatever object they come from; 0 switches one off."""
    item = cluster.item("Pod", pod.namespace, pod.name)
    proxy = next((c for c in pod.containers if c.name == "queue-proxy"), None)
    for name, whole in _PROXY.items():
        variable = proxy.env.get(name) if proxy else None
        if (
            item is not None
            and variable is not None
            and re.fullmatch(r"\d{1,9}", variable.value or "")
            and int(variable.value or 0)
        ):
            seconds = int(variable.value or 0)
            stated = _of_kserve(pod, seconds, cluster) if whole else None
            yield stated or Timeout(item, variable.path, f"{name}={variable.value}", seconds, whole=whole)


def _of_kserve(pod: Pod, seconds: int, cluster: Cluster) -> Timeout | None:
    """The same where an InferenceService says it, of the component that the pod is one of."""
    item = cluster.item("InferenceService", pod.namespace, pod.labels.get(INFERENCE_SERVICE, ""))
    part = pod.labels.get("component") or "predictor"
    if item is None or dig(item.raw, f"spec.{part}.timeout") != seconds:
        return None
    return Timeout(item, f"spec.{part}.timeout", f"timeout: {seconds}", seconds, whole=True)


def _is_service(host: str, names: set[str], namespace: str, own: str) -> bool:
    name, _, rest = host.partition(".")
    return name in names and (rest.partition(".")[0] or own) == namespace


def _whole(item: Item, path: str, value: Any) -> Iterator[Timeout]:
    seconds = value if isinstance(value, int) else duration(value)
    if seconds and seconds > 0:  # 0 switches it off
        yield Timeout(item, path, f"{path.rpartition('.')[2]}: {value}", seconds, whole=True)


def _contour(item: Item, names: set[str]) -> Iterator[Timeout]:
    for n, route in enumerate(rows(item.raw, "spec.routes")):
        if not any(service.get("name") in names for service in rows(route, "services")):
            continue
        path, value = f"spec.routes[{n}].timeoutPolicy.response", dig(route, "timeoutPolicy.response")
        if value is not None:
            yield from _whole(item, path, value)
        else:
            text = f"no timeoutPolicy.response, which means {_CONTOUR_SECONDS}"
            yield Timeout(item, path, text, _CONTOUR_SECONDS, whole=True, told=False)


def _nginx(item: Item) -> Iterator[Timeout]:
    annotations = item.annotations
    name = class_of(item)
    if "nginx" not in name and not any(key.startswith(_NGINX) for key in annotations):
        return
    key = f"{_NGINX}proxy-read-timeout"
    value = annotations.get(key, "")
    path = f"metadata.annotations[{key}]"
    if not value:
        text = f"no {key}, which means {NGINX_SECONDS}"
        yield Timeout(item, path, text, NGINX_SECONDS, whole=False, told=False)
    elif value.isdecimal() and len(value) < 8 and int(value):
        yield Timeout(item, path, value, int(value), whole=False)


def _alb(item: Item) -> Iterator[Timeout]:
    annotations = item.annotations
    name = class_of(item)
    if name != "alb" and not any(key.startswith(_ALB) for key in annotations):
        return
    value = annotations.get(ALB_ATTRIBUTES, "")
    said = re.search(_ALB_IDLE, value)
    path = f"metadata.annotations[{ALB_ATTRIBUTES}]"
    seconds = int(said[1]) if said else _ALB_SECONDS
    text = value if said else f"no idle_timeout.timeout_seconds, which means {_ALB_SECONDS}"
    yield Timeout(item, path, text, seconds, whole=False, told=said is not None)


def _annotated(item: Item) -> Iterator[Timeout]:
    annotations = item.annotations
    name = class_of(item)
    for called, prefix, key, usual, unit in _BY_ANNOTATION:
        if not re.search(called, name) and not any(one.startswith(prefix) for one in annotations):
            continue
        value = annotations.get(prefix + key, "")
        path = f"metadata.annotations[{prefix}{key}]"
        seconds = duration(value) if unit else int(value) if value.isdecimal() and len(value) < 8 else None
        if not value:
            text = f"no {prefix}{key}, which means {usual}{unit}"
            yield Timeout(item, path, text, usual, whole=False, told=False)
        elif seconds:
            yield Timeout(item, path, value, seconds, whole=False)


def _targets(item: Item) -> list[dict[str, Any]]:
    """The Services of an OpenShift Route."""
    first = dig(item.raw, "spec.to")
    return [*([first] if isinstance(first, dict) else []), *rows(item.raw, "spec.alternateBackends")]


def _openshift(item: Item) -> Iterator[Timeout]:
    if dig(item.raw, "spec.tls.termination") == "passthrough":
        return
    value = item.annotations.get(_OPENSHIFT, "")
    path = f"metadata.annotations[{_OPENSHIFT}]"
    said = re.fullmatch(r"([1-9]\d{0,9})(us|ms|[smhd])?", value)
    if said is None:  # the router takes no notice of what it cannot read
        text = f"no {_OPENSHIFT}, which means {_OPENSHIFT_SECONDS}s"
        yield Timeout(item, path, text, _OPENSHIFT_SECONDS, whole=False, told=False)
    else:
        yield Timeout(item, path, value, int(said[1]) * _OPENSHIFT_UNITS[said[2] or ""], whole=False)


def longer(timeout: Timeout, tokens: int, at_least: float = 0) -> Fix:
    """Twice the time at the fastest pace, in whole minutes, never less than it is, and more than what a request is known to take."""
    seconds = max(600, -(-2 * tokens // FASTEST_TOKENS_PER_SECOND // 60) * 60)
    if seconds < at_least:
        seconds = (int(1.2 * at_least) // 60 + 1) * 60
    if seconds <= timeout.seconds:
        seconds = 2 * int(timeout.seconds)
    kind = timeout.item.raw.get("kind")
    value: Any = seconds if kind in ("GCPBackendPolicy", "InferenceService") else f"{seconds}s"
    if kind == "Pod":
        setting = "timeoutSeconds (spec.predictor.timeout of an InferenceService)"
        above = "max-revision-timeout-seconds"
        if not timeout.whole:  # the beginning of an answer may not take longer than all of it
            setting = "responseStartTimeoutSeconds, or revision-response-start-timeout-seconds of knative-serving/config-defaults,"
            above = f"timeoutSeconds and {above}"
        return fixes.advice(f"Set {setting} of the revision to {seconds}, with {above} no less")
    if kind == "InferenceService" and seconds > max(KNATIVE_MOST_SECONDS, timeout.seconds):
        return fixes.platform(
            f"Set max-revision-timeout-seconds of config-defaults (namespace knative-serving) to {seconds}, then {timeout.path} of "
            f"{timeout.where} to {seconds}"
        )
    if kind == "Service":
        return _in_knative(timeout, seconds, tokens)
    if kind == "Ingress" and ALB_ATTRIBUTES in timeout.path:
        value = f"idle_timeout.timeout_seconds={seconds}"
        told = timeout.item.annotations.get(ALB_ATTRIBUTES, "")  # other attributes stand in the same value
        kept = [one.strip() for one in told.split(",") if one.strip() and not one.strip().startswith("idle_timeout.")]
        value = ",".join([*kept, value])
    elif kind == "Ingress":
        value = str(seconds) + next((unit for _, prefix, _, _, unit in _BY_ANNOTATION if prefix in timeout.path), "")
    elif timeout.path.endswith(".timeouts"):
        value = {"request": value}  # the route has none yet
    operations = [{"op": "add", "path": timeout.pointer, "value": value}]
    attempt = re.fullmatch(r"(/spec/rules/(\d+)/timeouts)/backendRequest", timeout.pointer)
    if attempt is not None:  # which may not exceed the whole request
        whole = duration(dig(rows(timeout.item.raw, "spec.rules")[int(attempt[2])], "timeouts.request"))
        if whole and whole < seconds:
            operations.insert(0, {"op": "add", "path": f"{attempt[1]}/request", "value": value})
    return fixes.patch_object(timeout.item, _allowing(timeout, seconds), operations)


def _allowing(timeout: Timeout, seconds: int) -> str:
    what = "for a request" if timeout.whole else "without a word of the answer"
    where = (
        f"{timeout.where} (idle_timeout.timeout_seconds={seconds})" if ALB_ATTRIBUTES in timeout.path else timeout.where
    )
    return f"Allow {say_seconds(seconds)} {what} in {where}"


def _in_knative(timeout: Timeout, seconds: int, tokens: int) -> Fix:
    """Of a Service of Knative's, which refuses more than an administrator allows, and a beginning that takes longer than all of it."""
    own, _, name = timeout.pointer.rpartition("/")
    told = dig(timeout.item.raw, "spec.template.spec.timeoutSeconds")
    whole = told if isinstance(told, int) else 0
    names = [name] if timeout.whole or whole >= seconds else ["timeoutSeconds", name]
    value = min(seconds, max(KNATIVE_MOST_SECONDS, whole))
    if value * FASTEST_TOKENS_PER_SECOND < tokens or value <= timeout.seconds:
        return fixes.platform(
            f"Set {' and '.join(names)} to {seconds} and max-revision-timeout-seconds of config-defaults (namespace "
            "knative-serving) to no less, or cap max_tokens"
        )
    operations = [{"op": "add", "path": f"{own}/{one}", "value": value} for one in names]
    return fixes.patch_object(timeout.item, _allowing(timeout, value), operations)

"""How a gateway or proxy lets an answer take longer, or a request be larger, than it gave up or refused: by its words for it.

Sources: the directives of nginx, HAProxy, Apache and lighttpd, Envoy's route and connection manager, the annotations of the ingress
controllers that are made of them, `interceptor/config/timeouts.go` of KEDA's HTTP add-on, `config.example.yaml` of llama-swap.
"""

import re
import shlex
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    Cluster,
    Container,
    Fix,
    Item,
    Line,
    Pod,
    dig,
    escaped,
    expression,
    fixes,
    rows,
    say_seconds,
)
from llmdoctor_checks._routes import routes_to
from llmdoctor_checks._told_where import prolonged, restart
from llmdoctor_checks.serving._gateways import client_told, gave_up

#: llama-swap's first release that can be told how long to wait for headers.
_SWAP = "v200"

#: Envoy lost the connection to the server.
_LOST = ("{connection_termination}", '"response_flags":"UC"', '"response_flags": "UC"', " 503 UC ")

#: A setting of a YAML file or one of properties, and how long a time it says.
_SETTING = expression(
    r"(?P<indent> {0,40})(?:- )?[\"']?(?P<key>[\w.-]{1,80})[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?P<value>[^\"'#\s]{0,20})"
)
_LENGTH = expression(r"(?P<number>\d{1,7})(?P<unit>ms|s|m|h)?")
#: Timeouts that end no connection over which a request runs.
_OF_ELSE = expression(
    r"(?i)connect(?!ion|or)|dial|handshake|tls|drain|shut|terminat|grace|sync|resol|dns|lock|lease|lead|elect|prob|health|liveness|readiness"
)
_UNITS = {"": 1, "s": 1, "ms": 0.001, "m": 60, "h": 3600}

#: Long answers take minutes; so many seconds at least, and twice what was met.
_LONG = 600

_HOSTS = (
    r', host: "([\w.-]{1,253})',
    r"\bserver: ([\w.-]{2,253})",
    r'"(?::authority|authority)": ?"([\w.-]{1,253})',
    r"\boutbound\|\d{1,5}\|[^|]{0,63}\|([\w.-]{1,253})",
)
#: Envoy's time for the whole answer, of a route or an attempt.
_OF_WHOLE = r"504 UT|response_timeout|per_try_timeout|stream_idle_timeout|\"UT\"|upstream request timeout"

#: How Envoy Gateway calls the pods of a gateway (`envoy-NAMESPACE-NAME-HASH`).
_OF_ENVOY_GATEWAY = r"envoy-eg|(?:^|[\s/])envoy-[\w.-]{1,120}-[0-9a-f]{8}(?:-[a-z0-9]{1,10}){1,2}(?:\s|$)"
_PATH = r'request: "POST (?P<path>/[^\s?"]{0,500})'
#: HAProxy's backend of OpenShift's router, of HAProxy Technologies' controller and of HAProxy Ingress.
_OF_ROUTER, _OF_SERVICE = r"\bbe_\w{1,20}:(?P<space>[\w.-]{1,63}):(?P<name>[\w.-]{1,253})", r"\b{space}_(svc_)?{name}_"
_BACKEND = r"\] \S+ (?P<backend>[\w.:-]{1,500})/\S+ [-+\d/]+ 50[34] "

#: Ingress controllers made of nginx, by their image, or image and pod: Kubernetes' own, that of nginx, and Kong.
_CONTROLLERS = (
    ("kubernetes", r"ingress-nginx|^\S{0,300}nginx-ingress-controller\S{0,100} "),
    ("nginx", r"^\S{0,300}nginx-(?:plus-)?ingress\S{0,100} "),
    ("kong", r"kong"),
)
#: Their annotations for the wait for an answer, and for a server that takes a request, and where they stand.
_ANNOTATIONS = {
    "kubernetes": (
        "nginx.ingress.kubernetes.io/proxy-read-timeout",
        "nginx.ingress.kubernetes.io/proxy-send-timeout",
        "{}",
        "Ingress",
    ),
    "nginx": ("nginx.org/proxy-read-timeout", "nginx.org/proxy-send-timeout", "{}s", "Ingress"),
    "kong": ("konghq.com/read-timeout", "konghq.com/write-timeout", "{}000", "Service"),
}
_SENDING = "while sending request to upstream"

#: The same for the size of a request's body.
_BODIES = {"kubernetes": "nginx.ingress.kubernetes.io/proxy-body-size", "nginx": "nginx.org/client-max-body-size"}
#: What programs in Node say of a request that they refused.
_OF_EXPRESS = r"\bPOST /\S{1,300} 413 [\d.]{1,12} ms\b|PayloadTooLargeError"

#: What is set in a configuration file, by words of the line.
_DIRECTIVES = (
    (_SENDING, "proxy_send_timeout {s}s;{at} of nginx's configuration"),
    ("upstream timed out (110:", "proxy_read_timeout {s}s;{at} of nginx's configuration"),
    ("AH01102:", "ProxyTimeout {s} (or timeout={s} at its ProxyPass) in Apache's configuration"),
    ("read timeout on socket: tcp:", '"read-timeout" => {s} at its host in proxy.server of lighttpd\'s configuration'),
)


#: What spares answers a time that counts the wait for the next piece.
STREAM = fixes.advice("Have clients stream (stream: true): then the wait is for the next piece of the answer alone")


def _shown_to_authorizer(text: str, most: int, size: int, cluster: Cluster) -> Fix | None:
    """Envoy Gateway buffers for an authorizer what a SecurityPolicy of the route says, and refuses a larger body."""
    route = re.search(r"httproute/([\w.-]{1,63})/([\w.-]{1,253})/rule/", text)
    for item in cluster.items("SecurityPolicy", route[1]) if route is not None else ():
        limit = dig(item.raw, "spec.extAuth.bodyToExtAuth.maxRequestBytes")
        targets = [*rows(item.raw, "spec.targetRefs"), dig(item.raw, "spec.targetRef") or {}]
        meant = any(row.get("kind") == "HTTPRoute" and row.get("name") == route[2] for row in targets if route)
        if meant and isinstance(limit, int) and limit <= most:
            text = f"Let the authorizer of SecurityPolicy/{item.name} be shown bodies of {size} MiB: a larger one is refused"
            return fixes.set_field(item, "/spec/extAuth/bodyToExtAuth/maxRequestBytes", size * 1024**2, text)
    return None


def takes_more(line: Line, most: int, cluster: Cluster) -> Fix:
    """What lets who wrote a line take requests of twice the bytes that were refused, 32 MiB where nobody says how many they were."""
    size = max(-(-2 * most // 1024**2), 32)
    text, writer = line.text[:8000], writer_of(line, cluster)
    called = _called(line, writer)
    if "too large body" in text:
        if (key := _BODIES.get(_controller(called))) is not None:
            return _annotation(text, key, f"{size}m", "Ingress", cluster)
        return _in_file(f"Set client_max_body_size {size}m; in nginx's configuration", writer, line)
    if re.search(r"re(?:quest|sponse)_payload_too_large|\"upstream_host\"", text):
        labels = writer.pod.labels if writer is not None else {}
        if (shown := _shown_to_authorizer(text, most, size, cluster)) is not None:
            return shown
        of_it = "envoy-eg" in called or '"httproute/' in text or "gateway.envoyproxy.io/owning-gateway-name" in labels
        if of_it or 0 < most < 1024**2:  # Envoy itself takes 1 MiB
            return fixes.advice(
                f"Set connection.bufferLimit: {size}Mi in a ClientTrafficPolicy of the Gateway (32 KiB where none is set)"
            )
        name = f"per_connection_buffer_limit_bytes: {size * 1024**2}"
        return _in_file(f"Set {name} in the listener of Envoy's configuration", writer, line)
    if re.search(_OF_EXPRESS, text):
        return _in_file(f"Set express.json({{limit: '{size}mb'}}) in the program", writer, line)
    return _in_file(f"Let {line.log.container} take requests of {size} MiB", writer, line)


def enough(seconds: float | None) -> int:
    """So many seconds to allow where an answer was given up after others."""
    return max(_LONG, -(-int(2 * (seconds or 0)) // 60) * 60)


def more_patient(line: Line, seconds: float | None, pod: Pod, cluster: Cluster) -> Fix | None:
    """What lets who wrote a line wait longer; None where nothing says what makes it."""
    writer = writer_of(line, cluster)
    allowed = enough(seconds)
    if client_told(line) and not gave_up(line):  # then its pod is not the one that gave up
        return _by_its_answer(line, allowed, pod)
    if any(words in line.text for words in _LOST):
        if seconds and (set_there := _configured(line, seconds, allowed, cluster)) is not None:
            return set_there
        met = f" after {say_seconds(round(seconds))}" if seconds else ""
        return fixes.advice(
            f"Have what closes the connection between {line.log.pod or 'the gateway'} and the server{met} (the idle timeout of a sidecar "
            f"or a load balancer between them) wait {say_seconds(allowed)}"
        )
    told = prolonged(writer, seconds, allowed)
    return told or _by_its_words(line, allowed, writer, pod, cluster)


def _configured(line: Line, seconds: float, allowed: int, cluster: Cluster) -> Fix | None:
    """The one setting in the ConfigMaps beside who wrote a line that is called a timeout and is as long as was met."""
    found = []
    for item in cluster.items("ConfigMap", line.log.source.namespace) if line.log.pod else ():
        texts = dig(item.raw, "data")
        for file, text in texts.items() if isinstance(texts, dict) else ():
            found += [(item, file, *said) for said in _timeouts_in(str(text)[:100_000], seconds)]
    if len(found) != 1:
        return None
    item, file, path, value, unit = found[0]
    now = f"{value}{unit}"
    wanted = f"{allowed * (1000 if unit == 'ms' else 1)}{unit if unit in ('s', 'ms') else 's' * bool(unit)}"
    space = shlex.quote(item.namespace)
    return fixes.advice(
        f"Raise {path} from {now} to {wanted} in {file} of ConfigMap {item.namespace}/{item.name}: as long as that {line.log.pod} had its "
        "connection to the server",
        f"kubectl -n {space} edit configmap {shlex.quote(item.name)}",
    )


def _timeouts_in(text: str, seconds: float) -> Iterator[tuple[str, str, str]]:
    """The timeouts of about that length that a file of settings has: their path, number and unit (empty is seconds)."""
    above: list[tuple[int, str]] = []
    for row in text.splitlines():
        said = _SETTING.match(row[:300])
        if said is None:
            continue
        depth = len(said["indent"])
        while above and above[-1][0] >= depth:
            above.pop()
        above.append((depth, said["key"]))
        length = _LENGTH.fullmatch(said["value"])
        if length and "timeout" in said["key"].lower() and not _OF_ELSE.search(said["key"]):
            unit = length["unit"] or ""
            if abs(float(length["number"]) * _UNITS[unit] - seconds) <= max(0.5, seconds / 50):
                yield ".".join(key for _, key in above), length["number"], unit


def _by_its_answer(line: Line, allowed: int, pod: Pod) -> Fix | None:
    """What a client was answered by who stood between: the words of Knative's proxy, Envoy and HAProxy are their own."""
    isvc, service = (pod.labels.get(key) for key in (INFERENCE_SERVICE, KNATIVE_SERVICE))
    if isvc and service:
        return fixes.advice(f"Set spec.predictor.timeout: {allowed} in InferenceService/{isvc}")
    if service:
        return fixes.advice(f"Set timeoutSeconds: {allowed} in spec.template.spec of Knative's Service/{service}")
    if "upstream request timeout" in line.text:
        return fixes.advice(
            f"Give the route of the Envoy before the server {say_seconds(allowed)}: timeouts.request: {allowed}s in the rule of its "
            f"HTTPRoute, or timeout: {allowed}s in that of its VirtualService",
            f"kubectl -n {pod.namespace} get httproutes,virtualservices -o yaml",
        )
    return None


def cut_whole(line: Line) -> bool:
    """Whether a stream is cut off as well: by Envoy's time of a route or an attempt, or before the answer begins."""
    text = line.text[:8000]
    if "context marked done while waiting for" in text or re.search(r" 503 \d+ \S+ \S+ sQ", text):
        return True  # it is the wait for a server
    return re.search(_OF_WHOLE, text) is not None and "stream_idle_timeout" not in text


def writer_of(line: Line, cluster: Cluster) -> Container | None:
    """The container whose log has a line."""
    item = cluster.item("Pod", line.log.source.namespace, line.log.pod) if line.log.pod else None
    found = Pod.of(item, cluster).containers if item is not None else ()
    return next((one for one in found if one.name == line.log.container), None)


def _by_its_words(line: Line, allowed: int, writer: Container | None, pod: Pod, cluster: Cluster) -> Fix | None:
    text = line.text[:8000]
    called = _called(line, writer)
    annotated = _ANNOTATIONS.get(_controller(called)) if "upstream timed out (110:" in text else None
    if annotated is not None:
        reading, sending, value, kind = annotated
        return _annotation(text, sending if _SENDING in text else reading, value.format(allowed), kind, cluster)
    said = re.search(_BACKEND, text)
    if said is not None:
        return _of_haproxy(line, said["backend"], allowed, writer, pod)
    if "nginx-gateway-fabric" in called and "upstream timed out (110:" in text:
        return _of_fabric("proxy_send_timeout" if _SENDING in text else "proxy_read_timeout", allowed, pod, cluster)
    if directive := next((form for words, form in _DIRECTIVES if words in text), ""):
        path = re.search(_PATH, text)
        at = f" in the location of {path['path']}" if path else ""
        return _in_file(f"Set {directive.format(s=allowed, at=at)}", writer, line)
    if "context marked done while waiting for" in text:
        return _of_keda("conditionWait", "KEDA_CONDITION_WAIT_TIMEOUT", allowed, writer, pod, cluster)
    if "error on backend (net/http: timeout" in text:
        return _of_keda("responseHeader", "KEDA_RESPONSE_HEADER_TIMEOUT", allowed, writer, pod, cluster)
    if "proxy error: net/http: timeout awaiting response headers" in text and "swap" in called:
        whose = "the peer" if re.search(r"\bpeer\b", text[:400]) else "the model"
        summary = (
            f"Set timeouts: {{responseHeader: {allowed}}} of {whose} in llama-swap's configuration (from {_SWAP} on)"
        )
        return _in_file(summary, writer, line)
    return _of_envoy(text, allowed, called, writer, line)


def _called(line: Line, writer: Container | None) -> str:
    """The image of who wrote a line, and what its pod and container are called."""
    return f"{writer.spec.image if writer else ''} {line.log.pod} {line.log.container}".lower()


def _controller(called: str) -> str:
    """Which ingress controller something is, by its image and what its pod is called."""
    return next((name for name, form in _CONTROLLERS if re.search(form, called)), "")


def _annotation(text: str, key: str, value: str, kind: str, cluster: Cluster) -> Fix:
    """An annotation of an ingress controller: of the Ingress that has the host of the request, where it was read."""
    host = _host(text)
    summary = f'Set {key}: "{value}"'
    said = re.search(_PATH, text)
    path = said["path"] if said else "/"
    mine = [item for item in cluster.items("Ingress") if _leads(item, host, path)] if host and kind == "Ingress" else []
    if len(mine) == 1:
        at, told = f"/metadata/annotations/{escaped(key)}", f"{summary} on Ingress/{mine[0].name}"
        return fixes.set_field(mine[0], at, value, told, op="add")
    which = f"the {kind} of {host}" if host and kind == "Ingress" else f"the {kind} that the request goes to"
    find = f"kubectl get {kind.lower()} -A" + (
        f" | grep -F -e {shlex.quote(host)}" if host and kind == "Ingress" else ""
    )
    return fixes.advice(f"{summary} in the annotations of {which}", find)


def _host(text: str) -> str:
    """The host that a request asked for, as a gateway's log has it."""
    return next((said[1] for one in _HOSTS if (said := re.search(one, text)) is not None), "")


def _leads(item: Item, host: str, path: str) -> bool:
    """Whether an Ingress takes requests of a host and a path: what begins like it, up to what an expression in it leaves open."""
    paths = (
        str(one.get("path") or "/")
        for rule in rows(item.raw, "spec.rules")
        for one in rows(rule, "http.paths")
        if rule.get("host") == host
    )
    return any(path.startswith(re.split(r"[(\[.*?$]", one, maxsplit=1)[0].rstrip("/")) for one in paths)


def _of_haproxy(line: Line, backend: str, allowed: int, writer: Container | None, pod: Pod) -> Fix:
    """A longer time for HAProxy's server, or its queue: by an annotation where a controller writes its configuration."""
    waited = re.search(r" 503 \d+ \S+ \S+ sQ", line.text[:8000]) is not None
    route = re.search(_OF_ROUTER, backend)
    if route is not None:
        return fixes.advice(
            f"Set haproxy.router.openshift.io/timeout: {allowed}s in the annotations of Route {route['name']}",
            f"kubectl -n {route['space']} annotate route {route['name']} haproxy.router.openshift.io/timeout={allowed}s --overwrite",
        )
    for service in pod.services:
        of_service = re.search(
            _OF_SERVICE.format(space=re.escape(service.namespace), name=re.escape(service.name)), backend
        )
        if of_service is not None and not waited:
            key = "haproxy.org/timeout-server" if of_service[1] else "haproxy-ingress.github.io/timeout-server"
            at, told = f"/metadata/annotations/{escaped(key)}", f"Set {key}: {allowed}s on Service/{service.name}"
            return fixes.set_field(service, at, f"{allowed}s", told, op="add")
    what = "timeout queue" if waited else "timeout server"
    return _in_file(f"Set {what} {allowed}s in backend {backend} of HAProxy's configuration", writer, line)


def _of_keda(field: str, name: str, allowed: int, writer: Container | None, pod: Pod, cluster: Cluster) -> Fix:
    """Of the object of KEDA's HTTP add-on for this server, else of its interceptor, for all of them."""
    names = {item.name for item in pod.services}
    mine = [
        item
        for item in cluster.items("HTTPScaledObject", pod.namespace)
        if str(dig(item.raw, "spec.scaleTargetRef.service")) in names
    ]
    if len(mine) == 1:
        operations = [{"op": "add", "path": f"/spec/timeouts/{field}", "value": f"{allowed}s"}]
        return fixes.patch_object(
            mine[0], f"Set timeouts.{field}: {allowed}s in HTTPScaledObject/{mine[0].name}", operations
        )
    summary = f"Have KEDA's interceptor wait {say_seconds(allowed)}: {name}={allowed}s"
    return fixes.set_env(writer, name, f"{allowed}s", summary) if writer is not None else fixes.advice(summary)


def _of_envoy(text: str, allowed: int, called: str, writer: Container | None, line: Line) -> Fix | None:
    """The time of a route, an attempt or a silent stream, in the object of the controller that Envoy gets its configuration from."""
    if not re.search(_OF_WHOLE, text):
        return None
    labels = writer.pod.labels if writer is not None else {}
    said = re.search(
        r'"route_name": ?"httproute/(?P<space>[\w.-]{1,63})/(?P<name>[\w.-]{1,253})/rule/(?P<rule>\d{1,3})', text
    )
    of = f" for {host}" if (host := _host(text)) else ""
    per_try, idle = "per_try_timeout" in text, "stream_idle_timeout" in text
    gateway = (
        labels.get("gateway.envoyproxy.io/owning-gateway-name") or re.search(_OF_ENVOY_GATEWAY, called) is not None
    )
    if gateway and idle:
        which = f"Gateway {gateway}" if isinstance(gateway, str) else "the gateway"
        return fixes.advice(f"Set timeout.http.streamIdleTimeout: {allowed}s in a ClientTrafficPolicy of {which}")
    if gateway and per_try:
        return fixes.advice(f"Set retry.perRetry.timeout: {allowed}s in the BackendTrafficPolicy of the route{of}")
    if said is not None and not per_try and not idle:
        return fixes.advice(
            f"Set timeouts.request: {allowed}s in rule {said['rule']} of HTTPRoute {said['space']}/{said['name']}",
            f"kubectl -n {said['space']} edit httproute {said['name']}",
        )
    if gateway or "gateway.networking.k8s.io/gateway-name" in labels:
        return fixes.advice(
            f"Set timeouts.request: {allowed}s in the rule of the HTTPRoute{of}", "kubectl get httproutes -A"
        )
    if "istio" in called:
        field = "retries.perTryTimeout" if per_try else "timeout"
        return fixes.advice(
            f"Set {field}: {allowed}s in the http route of the VirtualService{of}", "kubectl get virtualservices -A"
        )
    if "contour" in called:
        field = "idle" if idle else "response"
        return fixes.advice(
            f"Set timeoutPolicy.{field}: {allowed}s in the route of the HTTPProxy{of}", "kubectl get httpproxies -A"
        )
    name = "stream_idle_timeout" if idle else "retry_policy.per_try_timeout" if per_try else "timeout"
    where = "the HTTP connection manager" if idle else f"the route{of}"
    return _in_file(f"Set {name}: {allowed}s in {where} of Envoy's configuration", writer, line)


def _of_fabric(directive: str, allowed: int, pod: Pod, cluster: Cluster) -> Fix:
    """A setting of NGINX Gateway Fabric, which writes nginx's configuration itself: a snippet for the rules of the route."""
    routes = [route for one in (*pod.services, *pod.pools) for route in routes_to(one, cluster)]
    text = f"Set {directive} {allowed}s; with a SnippetsFilter that the rules of "
    if not routes:
        return fixes.advice(f"{text}the HTTPRoute name as a filter (ExtensionRef)")
    route = routes[0]
    name, group = f"{route.name}-timeouts", "gateway.nginx.org"
    spec = {"snippets": [{"context": "http.server.location", "value": f"{directive} {allowed}s;"}]}
    ref = {"type": "ExtensionRef", "extensionRef": {"group": group, "kind": "SnippetsFilter", "name": name}}
    named = [
        {"op": "add", "path": f"/spec/rules/{n}/filters{'/-' if rule.get('filters') else ''}", "value": value}
        for n, rule in enumerate(rows(route.raw, "spec.rules"))
        for value in ([ref] if not rule.get("filters") else ref,)
    ]
    import json  # 1 ms, and few gateways are of this kind

    return fixes.advice(
        f"{text}HTTPRoute/{route.name} name as a filter (with nginxGateway.snippetsFilters.enable=true in the values of its Helm chart)",
        fixes.create(f"{group}/v1alpha1", "SnippetsFilter", name, route.namespace, spec=spec),
        f"kubectl -n {route.namespace} patch httproute {route.name} --type=json -p {shlex.quote(json.dumps(named))}",
    )


def _in_file(summary: str, writer: Container | None, line: Line) -> Fix:
    """A setting in a file, with the ConfigMap that it is from, where one alone is mounted, and the restart that makes it read."""
    if writer is None:
        return fixes.advice(f"{summary} ({line.log.pod})" if line.log.pod else summary)
    maps = [name for name, _ in writer.config_maps]
    where = f"ConfigMap/{maps[0]} of {fixes.edited(writer.pod)}" if len(maps) == 1 else fixes.edited(writer.pod)
    edit = [f"kubectl -n {writer.pod.namespace} edit configmap {maps[0]}"] if len(maps) == 1 else []
    return fixes.advice(f"{summary} ({where}), and restart it", *edit, *restart(writer))

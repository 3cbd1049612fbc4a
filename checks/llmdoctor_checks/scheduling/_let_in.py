"""What lets a pod in that an admission plugin refuses: the field of its template, the policy's rule, the webhook's server.

Sources: OpenShift apiserver-library-go pkg/securitycontextconstraints (places and words); Kyverno pkg/webhooks/utils/block.go; Gatekeeper
pkg/webhook/policy.go and its library's container limits, requests and required labels; the API server's calls of webhooks
(k8s.io/apiserver/pkg/admission/plugin/webhook).
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    KUEUE_QUEUE,
    Cluster,
    Fix,
    Item,
    Pod,
    Subject,
    dig,
    events_of,
    expression,
    fixes,
    of_pod,
    rows,
)
from llmdoctor_checks.scheduling._limits import stated

#: A field that a security context constraint refuses, of the pod or of one container; before 4.11 only the first has its provider.
_FIELD = expression(
    r"(?:provider \"?[\w.-]{1,80}\"?: \.?(?:spec\.)?|[\[, ]\.?spec\.)(?:(?P<group>containers|initContainers)\[(?P<index>\d{1,3})\]\.)?"
    r"(?:securityContext\.){0,2}(?P<field>fsGroup|runAsUser|runAsGroup|seLinuxOptions\.\w{1,10}|privileged|allowPrivilegeEscalation|"
    r"capabilities\.add|host(?:Network|PID|IPC)|supplementalGroups|volumes)\b"
)
#: Its image keeps models in the home of root.
_OF_OLLAMA = r"(?:^|/)ollama(?:[:@]|$)"
_OF_POD = frozenset({"hostNetwork", "hostPID", "hostIPC"})
_USER = frozenset({"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"})
_NODE = frozenset({"hostNetwork", "hostPID", "hostIPC", "volumes"})
#: OpenShift's own constraints, the narrowest first, with what each allows beyond restricted-v2 (nonroot-v2: users but root).
_WIDER = (
    ("nonroot-v2", _USER),
    ("restricted", frozenset({"allowPrivilegeEscalation"})),
    ("anyuid", _USER | {"allowPrivilegeEscalation"}),
    ("hostmount-anyuid", _USER | {"allowPrivilegeEscalation", "volumes"}),
    ("hostnetwork-v2", frozenset({"hostNetwork"})),
    ("hostaccess", _NODE | {"allowPrivilegeEscalation"}),
)
#: Policies and rules as Kyverno names those that blocked a pod, each with what it says.
_BLOCKED = expression(r"\n(?P<policy>[\w.-]{1,253}):\n {2}(?P<rule>[\w.-]{1,253}): (?P<why>[^\n]{1,1000})")
_PATH = expression(r"failed at path (?P<path>/[\w./~-]{1,300})")
#: Constraints as Gatekeeper names them, and what its library says of containers and labels.
_CONSTRAINT = expression(r"\[(?P<name>[\w.-]{1,253})\] (?P<why>[^\n]{1,600})")
_WITHOUT = expression(r"container <(?P<container>[\w.-]{1,63})> has no (?P<what>cpu|memory) (?P<kind>limit|request)")
_LABELS = expression(r'you must provide labels: \{(?P<names>"[^}]{1,400})\}')
#: A label that is demanded, in the words that people write into policies, and a container.
_LABEL = expression(
    r"\b(?:[Ll]abels?:? ['\"`]?(?P<key>(?:[a-z0-9.-]{1,120}/)?[A-Za-z0-9][\w.-]{0,62})['\"`]?) (?:is|are|must be) "
    r"(?:required|mandatory|missing|not set|set|present|defined|either missing)"
)
_CONTAINER = expression(r"no container found with name (?P<name>[a-z0-9-]{1,63})")
_SERVICE = expression(r'Post "?https://(?P<name>[\w-]{1,63})\.(?P<namespace>[\w-]{1,63})\.svc')
_HOOKS = (
    "kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations "
    "-o custom-columns=KIND:.kind,NAME:.metadata.name,HOOKS:.webhooks[*].name"
)


def within_constraint(subject: Subject, why: str) -> Iterator[Fix]:
    """How a pod gets past OpenShift's constraints: without the fields, or by the narrowest constraint that allows them."""
    pod = next(iter(subject.pods), None)
    found = list(dict.fromkeys((m["group"] or "", m["index"] or "", m["field"]) for m in _FIELD.finditer(why)))
    refused = {field for _, _, field in found}
    home = _home_of_root(pod) if pod and refused & _USER else ""
    without = _without_fields(pod, found, home)
    able = (name for name, allowed in _WIDER if refused <= allowed and (name != "nonroot-v2" or _users_but_root(pod)))
    wider = next(able, "privileged") if refused else ""
    account = (pod.spec.service_account_name if pod else "") or "default"
    constraint = fixes.platform(
        f"Let service account {account} of {subject.namespace} use the constraint {wider or 'that allows it'}",
        f"oc -n {subject.namespace} adm policy add-scc-to-user {wider or 'SCC'} -z {shlex.quote(account)}",
    )
    # who needs more than a user of its own is given that last; what a DaemonSet does on each node it cannot do without its privileges
    of_the_node = wider == "privileged" and subject.workload is not None and subject.workload.kind == "DaemonSet"
    yield from (constraint, without) if (home and wider == "anyuid") or of_the_node else (without, constraint)


def _without_fields(pod: Pod | None, found: list[tuple[str, str, str]], home: str) -> Fix:
    """The refused fields taken out, which OpenShift then fills in; volumes by a person, who knows what they are for."""
    own = [one for one in found if pod and list(_removed(pod, [one]))]
    names = ", ".join(f"{group}[{index}].{field}" if group else field for group, index, field in own or found)
    where = fixes.edited(pod) if pod else "the pod"
    rest = "what is left unset OpenShift fills in"
    rest += f", with a user that is not root; then give {home}" if home else ""
    operations = list(_removed(pod, found)) if pod else []
    if pod and operations and all(field != "volumes" for _, _, field in found):
        return fixes.patch(pod, f"Take {names} out of {where}: {rest}", operations)
    return fixes.advice(f"Take {names or 'what no constraint allows'} out of {where}: {rest}")


def _home_of_root(pod: Pod) -> str:
    """What has to be given another place where root's home is used, which no other user may enter."""
    for container in pod.containers:
        for mount in container.spec.volume_mounts:
            if re.match(r"/root(?:/|$)", mount.mount_path):
                return (
                    f"what {container.name} has at {mount.mount_path} another place, as root's home is closed to others"
                )
        if re.search(_OF_OLLAMA, container.spec.image) and not {"HOME", "OLLAMA_MODELS"} & container.env.keys():
            return f"{container.name} a folder that any user may write, as HOME and OLLAMA_MODELS, in place of root's ~/.ollama"
    return ""


def _users_but_root(pod: Pod | None) -> bool:
    """Whether each container is told a user that is not root: an image's own may be root."""
    spec = (
        (dig(pod.template.pod, "spec") if pod.template else pod.item.raw.get("spec") if pod.item else None)
        if pod
        else None
    )
    of_all = dig(spec, "securityContext.runAsUser") if isinstance(spec, dict) else None
    users = [dig(c, "securityContext.runAsUser") for c in rows(spec, "containers")] if isinstance(spec, dict) else []
    return bool(users) and all(of_all if user is None else user for user in users)


def _removed(pod: Pod, found: list[tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
    """The fields that stand in the template, each taken away once."""
    spec = dig(pod.template.pod, "spec") if pod.template else None
    done = set()
    for group, index, field in found:
        leaf = "seLinuxOptions" if field.startswith("seLinuxOptions") else field
        own = [] if not group else [f"{group}/{index}"]
        places = [leaf] if leaf in _OF_POD else [f"{at}securityContext/{leaf}" for at in (*(f"{o}/" for o in own), "")]
        for place in places:
            path = "/" + place.replace(".", "/")
            if path not in done and _there(spec, path) is not None:
                done.add(path)
                yield {"op": "remove", "path": path}


def _there(tree: Any, path: str) -> Any:
    for key in path.strip("/").split("/"):
        if isinstance(tree, list):
            tree = tree[int(key)] if key.isdecimal() and int(key) < len(tree) else None
        else:
            tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def by_policy(subject: Subject, who: str, message: str) -> Iterator[Fix]:
    """What a policy asks: the rule by its name, what it allows, and the field of the template."""
    pod = next(iter(subject.pods), None)
    where = fixes.edited(pod) if pod else "the pod"
    if blocked := next(_BLOCKED.finditer(message), None):
        yield from _kyverno(subject, pod, where, blocked)
    elif "gatekeeper" in who and (asked := next(_CONSTRAINT.finditer(message), None)):
        yield from _gatekeeper(subject, pod, where, asked["name"], message)
    else:
        yield from _as_it_says(subject, pod, where, who, message)


def _as_it_says(subject: Subject, pod: Pod | None, where: str, who: str, message: str) -> Iterator[Fix]:
    """A label that a policy misses, or else its own words."""
    why = " ".join(message.split()).rstrip(".")
    label, container = _LABEL.search(why), _CONTAINER.search(why)
    if pod and label:
        key = label["key"]
        queues = [i.name for i in subject.cluster.items("LocalQueue", subject.namespace)] if key == KUEUE_QUEUE else []
        value = queues[0] if len(queues) == 1 else "VALUE"
        named = (
            ""
            if value != "VALUE"
            else " (VALUE is for you to name" + (": a LocalQueue of" if key == KUEUE_QUEUE else "")
        )
        named += f" {subject.namespace})" if key == KUEUE_QUEUE and named else ")" * bool(named)
        text = f"Put the label {key}={value} on {fixes.pods_of(pod)}{named}: {who} asks for it"
        yield fixes.annotate(pod, {key: value}, text, field="labels")
    elif pod and container and len(pod.containers) == 1 and pod.containers[0].name != container["name"]:
        text = f"Call container {pod.containers[0].name} of {where} {container['name']}, as {who} demands"
        yield fixes.patch(
            pod, text, [{"op": "replace", "path": f"{pod.containers[0].pointer}/name", "value": container["name"]}]
        )
    else:
        yield fixes.advice(f"Have in {where} what {who} asks for: {why[:200]}")
    yield fixes.platform(f"Except {where}, or namespace {subject.namespace}, from {who}", _HOOKS)


def _kyverno(subject: Subject, pod: Pod | None, where: str, blocked: re.Match[str]) -> Iterator[Fix]:
    name, rule = blocked["policy"], blocked["rule"].removeprefix("autogen-")
    known = (
        i
        for k in ("ClusterPolicy", "Policy")
        for i in subject.cluster.items(k)
        if i.api_version.startswith("kyverno.io/")
    )
    item = next((i for i in known if i.name == name), None)
    place = _PATH.search(blocked["why"])
    path = place["path"].rstrip("/") if place else ""
    stated = next((r for r in rows(item.raw, "spec.rules") if r.get("name") == rule), {}) if item else {}
    field = path.rpartition("/")[2]
    allowed = sorted(set(_values(dig(stated, "validate"), field))) if field else []
    kind = f"{'policies' if item and item.namespace else 'clusterpolicies'}.kyverno.io {name}"
    look = (
        f"kubectl get {kind} -o yaml"
        if not item or not item.namespace
        else f"kubectl -n {item.namespace} get {kind} -o yaml"
    )
    why = " ".join(blocked["why"].strip("'\" ").split())[:160]
    if field == "image" and pod and allowed:
        used = ", ".join(f"{c.name}: {c.spec.image}" for c in pod.containers)
        one = allowed[0].removesuffix("*") if len(allowed) == 1 and re.fullmatch(r"[\w.:/-]+/\*", allowed[0]) else ""
        copy = f" (copied there, {one}{_unhosted(pod.containers[0].spec.image)})" if one else ""
        yield fixes.advice(
            f"Take the images of {where} ({used}) from what rule {rule} of policy {name} allows: {', '.join(allowed)}{copy}",
            f"kubectl -n {subject.namespace} edit {where}",
        )
    else:
        what = f" ({path}: {', '.join(allowed)})" if allowed else f" ({path})" if path else ""
        yield fixes.advice(f"Give {where} what rule {rule} of policy {name} asks{what}: {why}", look)
    yield fixes.platform(
        f"Except {where} from it: a PolicyException for rule {rule} of {name}, or namespace {subject.namespace} in that rule's exclude",
        look,
    )


def _unhosted(image: str) -> str:
    """An image without its registry."""
    first, slash, rest = image.partition("/")
    return rest if slash and ("." in first or ":" in first or first == "localhost") else image


def _values(tree: Any, field: str) -> Iterator[str]:
    """What a policy's pattern has under a field, however deep; anchors around its name count as well."""
    if isinstance(tree, list):
        for one in tree:
            yield from _values(one, field)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if re.sub(r"^[^\w]*\(?|\)$", "", str(key)) == field and isinstance(value, str | int | bool):
                yield str(value)
            else:
                yield from _values(value, field)


def _gatekeeper(subject: Subject, pod: Pod | None, where: str, name: str, message: str) -> Iterator[Fix]:
    lacking = list(dict.fromkeys((m["container"], m["kind"], m["what"]) for m in _WITHOUT.finditer(message)))
    labels = _LABELS.search(message)
    by_name = {c.name: c for c in pod.containers} if pod else {}
    if pod and lacking and all(container in by_name for container, _, _ in lacking):
        operations = [stated(by_name[container], f"{kind}s", what) for container, kind, what in lacking]
        told = ", ".join(f"{kind} of {what} in {container}" for container, kind, what in lacking)
        yield fixes.patch(
            pod, f"State the {told} (more where the model needs it): constraint {name} asks for it", operations
        )
    elif pod and labels:
        keys = re.findall(r'"([^"]{1,253})"', labels["names"])
        text = f"Put the label{'s' * (len(keys) > 1)} {', '.join(keys)} on {fixes.pods_of(pod)} (VALUE is for you to name): "
        text += f"constraint {name} asks for {'it' if len(keys) == 1 else 'them'}"
        yield fixes.annotate(pod, dict.fromkeys(keys, "VALUE"), text, field="labels")
    else:
        why = next(_CONSTRAINT.finditer(message))["why"]
        yield fixes.advice(f"Change in {where} what constraint {name} of Gatekeeper refuses: {why[:160]}")
    yield fixes.platform(
        f"Except namespace {subject.namespace} from it: spec.match.excludedNamespaces of constraint {name}",
        f"kubectl get constraints | grep {shlex.quote(name)}",
    )


def past_webhook(subject: Subject, who: str, why: str) -> Iterator[Fix]:
    """What makes a webhook answer, by what the API server met; or how it is got past."""
    service = _SERVICE.search(why)
    name, namespace = (service["name"], service["namespace"]) if service else ("", "")
    config = next(_configured(subject, who), None)
    called = f"{config.kind} {config.name}" if config else "its webhook configuration"
    kind = config.kind.lower() if config else ""
    look = f"{_HOOKS} | grep {shlex.quote(who)}"
    server = f"Service {name} in {namespace}" if name else f"the server of webhook {who}"
    pods = f"kubectl -n {namespace} get service,endpointslices,pods" if namespace else look
    if 'service "' in why and "not found" in why:
        delete = f"kubectl delete {kind} {config.name}" if config else look
        yield fixes.platform(
            f"Delete {called}, if what it belonged to was removed for good: {server} does not exist; else install that again",
            *dict.fromkeys((pods, delete)),
        )
        return
    again = _again(config) if "x509" in why or "certificate" in why else ()
    mended = fixes.platform(f"{_mended(why, server, called)} (webhook {who})", pods, *again)
    hooks = rows(config.raw, "webhooks") if config else []
    index = next((n for n, hook in enumerate(hooks) if hook.get("name") == who), 0)
    ignore = f'[{{"op":"replace","path":"/webhooks/{index}/failurePolicy","value":"Ignore"}}]'
    command = f"kubectl patch {kind} {config.name} --type=json -p '{ignore}'" if config else look
    if _refuses_its_own(subject, who, name, namespace):
        yield fixes.platform(
            f"Let pods in without webhook {who} until the pods of {server} run (failurePolicy Ignore in {called}): it is asked for those, "
            "too, so that they are never made; then let it leave their namespace out (namespaceSelector), or take a release that does",
            *dict.fromkeys((command, pods)),
        )
        return
    yield _of_a_pod(subject, who, name, namespace) or mended
    let = f"Until then let pods in without it: failurePolicy Ignore of webhook {who} in {called}"
    yield fixes.platform(let, command)


def _refuses_its_own(subject: Subject, who: str, name: str, namespace: str) -> bool:
    """Whether the pods that should answer for a webhook cannot be made, because it is asked for them, too, and nobody answers."""
    if not namespace:
        return False
    cluster, calls = subject.cluster, f'failed calling webhook "{who}"'
    selector = _selector(cluster, name, namespace)
    if not selector or _behind(cluster, name, namespace):
        return False  # unknown, or they were made
    for kind in ("ReplicaSet", "Deployment"):
        events = [e for e in events_of(cluster).of_kind(kind) if e.namespace == namespace and calls in e.message]
        for item in cluster.items(kind, namespace):
            labels, made = (dig(item.raw, path) for path in ("spec.template.metadata.labels", "status.replicas"))
            behind = not made and isinstance(labels, dict) and selector.items() <= labels.items()
            said = any(calls in condition.message for condition in item.conditions)
            if behind and (said or any(e.name == item.name for e in events)):
                return True
    return False


def _selector(cluster: Cluster, name: str, namespace: str) -> dict[str, object]:
    selector = cluster.field("Service", namespace, name, "spec.selector")
    return selector if isinstance(selector, dict) else {}


def _behind(cluster: Cluster, name: str, namespace: str) -> list[Pod]:
    """The pods that answer for a webhook."""
    wanted = _selector(cluster, name, namespace).items()
    return [
        Pod.of(item, cluster) for item in cluster.items("Pod", namespace) if wanted and wanted <= item.labels.items()
    ]


def _of_a_pod(subject: Subject, who: str, name: str, namespace: str) -> Fix | None:
    """What mends the pods that should answer, where all of them are known to be ill; one that has ended for good answers no more."""
    behind = _behind(subject.cluster, name, namespace) if namespace else []
    pods = [pod for pod in behind if pod.status.phase not in ("Failed", "Succeeded")]
    if any(pod.ready or pod.being_made for pod in pods):
        return None
    return next(filter(None, (of_pod(pod, f"which answers for webhook {who}") for pod in pods)), None)


def _configured(subject: Subject, who: str) -> Iterator[Item]:
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for item in subject.cluster.items(kind):
            if any(hook.get("name") == who for hook in rows(item.raw, "webhooks")):
                yield item


#: How cert-manager is told whose authority a configuration is to have.
_INJECTED = "cert-manager.io/inject-ca-from"


def _mended(why: str, server: str, called: str) -> str:
    """What to do about the server, by the API server's words."""
    if "expired" in why:
        return f"Renew the certificate of {server} and caBundle of {called} with it, then restart its pods"
    if "x509" in why or "certificate" in why:
        return f"Give {called} the authority (caBundle) that signed the certificate of {server}, or let what makes both run again"
    if "no endpoints available" in why:
        return f"Make the pods behind {server} ready: it has none"
    if "Address is not allowed" in why:
        return f"Have the pods of {server} use the host's network (hostNetwork: true): the API server has no way to the pods' own"
    if re.search(r"deadline|timeout|timed out|no route", why):
        return (
            f"Open the way from the API server to the pods of {server}, if they are ready (firewall, NetworkPolicies)"
        )
    return f"See why the pods of {server} do not answer: not running, or another port"


def _again(config: Item | None) -> Iterator[str]:
    """How cert-manager is made to renew the certificate."""
    given = config.annotations.get(_INJECTED) if config else None
    namespace, _, name = (given or "").partition("/")
    if name:
        namespace, name = shlex.quote(namespace), shlex.quote(name)
        yield f"kubectl -n {namespace} get certificate {name}"
        yield f"cmctl renew -n {namespace} {name}"

"""Replaces the names in a snapshot, consistently, so that it can be shown to strangers and diagnosed all the same.

Replaced: names of namespaces, pods, nodes, workloads, services, claims, ConfigMaps, Secrets and accounts; values of labels;
hosts, addresses of mail, IP addresses; accounts of AWS, their roles and users; models and image registries that are not
public. The words that such names are made of are replaced wherever they stand: in paths, variables and logs.

Kept: public models (those of the catalogue, and others of their publishers), images of public registries, API groups and
label keys of public projects, the names of well-known namespaces and components, UIDs of objects and GPUs, container,
volume and port names made of the trade's own words, and such words in running text: a Deployment that is called `vllm` is
renamed, the traceback through `vllm/engine` is not.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from kubectl_llmdoctor.catalog import common
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.snapshot import Json, Snapshot

#: Under these the first label is the customer's.
_TENANT_HOSTS = ("amazonaws.com", "azurecr.io", "pkg.dev", "run.app", "internal", "local")

#: Registries in which nobody but their owners publishes.
_PUBLIC_REGISTRIES = ("registry.k8s.io/", "nvcr.io/nvidia/", "nvcr.io/nim/", "mcr.microsoft.com/", "docker.io/library/")

#: Engines, whose names say nothing of who runs them; a Service of such a name is a fault that must stay one.
_ENGINES = frozenset(
    ["vllm", "sglang", "ollama", "localai", "triton", "tgi", "lmdeploy", "ray", "nim", "tei", "dynamo", "trtllm"]
)

#: Programs and images that a Deployment may well be called after.
_PROGRAMS = (
    "llama-server", "llama-cpp", "vllm-openai", "vllm-serve", "text-generation-inference", "text-generation-launcher",
    "text-embeddings-inference", "text-embeddings-router", "trtllm-serve", "trtllm-build", "lmdeploy-server", "ray-head",
    "ray-worker", "wait-gcs-ready", "storage-initializer", "istio-proxy", "queue-proxy", "vault-agent", "model-loader",
)  # fmt: skip

#: Parts that an object plays, and that checks and readers tell by its name.
_ROLES = frozenset(
    [
        "router", "gateway", "proxy", "prefill", "decode", "leader", "worker", "head", "exporter", "dcgm", "operator",
        "webhook", "epp", "controller", "manager", "karpenter", "autoscaler", "predictor", "metrics", "token",
        "svc", "ext", "proc",
    ]
)  # fmt: skip

#: By such a word in the name of a Service checks tell that a server of models is asked.
_OF_MODELS = expression(r"llama|llm|openai|infer|completion|tgi|sglang|triton|model|embed|generat")

#: Components that every cluster of a kind has.
_COMPONENT = expression(
    r"(?:nvidia-|gpu-operator|gpu-feature-discovery|node-feature-discovery|nfd-|dcgm-exporter|kube-|coredns|amd-gpu|amdgpu|"
    r"intel-gpu|habana|aws-node|cilium|calico|csi-|ebs-csi|istio|knative|kserve-controller|kuberay-operator|kueue|"
    r"lws-controller|network-operator|ingress-nginx|traefik|system:)"
)

#: Keys whose value is a name of that category.
_NAME_KEYS = {
    "namespace": "ns", "nodeName": "node", "nominatedNodeName": "node", "serviceAccountName": "account",
    "serviceAccount": "account", "claimName": "claim", "secretName": "secret", "volumeName": "volume", "hostname": "host",
    "subdomain": "service", "serviceName": "service", "generateName": "pod", "pod": "pod", "node": "node",
    "host": "host", "hostnames": "host", "clusterName": "cluster", "schedulerName": "scheduler",
    "storageClassName": "class", "priorityClassName": "class",
}  # fmt: skip

#: Where a `name` is that of an object, with the category; None: the kind beside it says.
_REFERENCES: dict[str, str | None] = {
    "metadata": None, "involvedObject": None, "regarding": None, "related": None, "ownerReferences": None,
    "targetRef": None, "targetRefs": None, "scaleTargetRef": None, "target": None, "targets": None, "secretRef": "secret",
    "secretKeyRef": "secret", "secret": "secret", "configMapRef": "config", "configMapKeyRef": "config",
    "configMap": "config", "imagePullSecrets": "secret", "service": "service",
    "backendRefs": "service", "to": None, "alternateBackends": None, "parentRefs": None, "claimRef": "claim",
    "subjects": "account",
}  # fmt: skip
#: Where it is one if there is an object of that name; elsewhere a model's.
_MAYBE = ("model", "runtime")

_CATEGORIES = {
    "Namespace": "ns", "Node": "node", "Pod": "pod", "Service": "service", "PersistentVolumeClaim": "claim",
    "PersistentVolume": "volume", "ConfigMap": "config", "Secret": "secret", "ServiceAccount": "account", "Event": "event",
}  # fmt: skip

#: Whose values are somebody's names, whoever's key it is.
_OWN_LABEL = expression(
    r"[/_.-](?:instance|model|cluster|cluster-name|(?:node|agent)?pool|nodegroup|queue-name|part-of|release)\Z"
)
_LABELS = ("labels", "matchLabels", "nodeSelector", "selector", "podLabels")
#: Constants of the API, and what is measured rather than named.
_VERBATIM = frozenset(
    [
        "apiVersion", "kind", "reason", "phase", "type", "schema", "takenAt", "uid", "resourceVersion",
        "containerID", "imageID", "restartPolicy", "operator", "effect", "protocol", "status",
        "imagePullPolicy", "source", "terminationMessagePolicy", "dnsPolicy", "verb", "fieldPath",
    ]
)  # fmt: skip
#: What is text even where it is one word that is also a name.
_TEXTS = frozenset(["args", "command", "image", "value", "text", "message", "note", "container", "containerName"])
_MODEL_OPTIONS = expression(
    r"--?(?:model|model-path|model-id|model-name|served-model-name|tokenizer|tokenizer-path|lora-modules|hf-repo|alias)\Z"
)
_MODEL_VARIABLES = expression(r"(?:HF_)?MODEL(?:_ID|_NAME|_PATH)?\Z|SERVED_MODEL_NAME\Z|HF_MODEL_ID\Z")

#: What controllers put behind the name of an object for what they make of it.
_GENERATED = expression(r"[a-z]*+\d[a-z0-9]*|[bcdfghjklmnpqrstvwxz]{4,10}|[a-z0-9]{5}")
#: A pod that a text speaks of, also one that was never made: `pods "llama-0-leader-0" is forbidden`, in JSON.
_POD_IN_TEXT = expression(
    r"(?<![A-Za-z0-9])[Pp]ods?[ /](?:\\?\"|')?(?:[a-z0-9-]{1,63}/)?([a-z0-9]{1,63}(?:-[a-z0-9]{1,63}){1,9})"
)
#: Where a StatefulSet and a JobSet (in its volumeClaimPolicies) have the claims that they make.
_CLAIM_TEMPLATES = ("volumeClaimTemplates", "templates")
#: Nobody's name: `ACCOUNT_ID` of a host, `REPLACE_ME` of a claim.
_PLACEHOLDER = expression(r"(?:\A|[./-])[A-Z][A-Z0-9]*_[A-Z0-9_]+(?:[./-]|\Z)")
_HOST_IN_TEXT = expression(r"(?:://|@)(?:[^\s/@\"']*@)?([A-Za-z0-9](?:[A-Za-z0-9-]*\.)+[A-Za-z][A-Za-z0-9-]*)")
_MAIL = expression(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})(?![A-Za-z0-9:])")
#: A resource of AWS: whose account it is of, and for the roles and users that one may have there what they are called.
_ARN = expression(
    r"\barn:aws[a-z-]{0,10}:[a-z0-9-]{0,30}:[a-z0-9-]{0,30}:(?P<account>\d{12}):(?:(?:assumed-)?role/|user/)?(?P<name>[\w+=,.@-]{0,64})"
)
_IPV4 = expression(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
_IPV6 = expression(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:.])")
_WORD = expression(r"[A-Za-z0-9]+")
_KINDS = (
    r"namespaces?|pods?|nodes?|secrets?|configmaps?|persistentvolumeclaims?|pvcs?|services?|svc|deployments?|replicasets?|"
    r"statefulsets?|daemonsets?|jobs?|serviceaccounts?|leaderworkersets?|inferenceservices?|rayclusters?|rayservices?|"
    r"resourceclaims?|localqueues?|podgroups?|nodeclaims?|(?:http|grpc|tcp|tls)routes?|(?:inference)?pools?|metadata\.name|"
    r"spec\.nodeName"
)
#: What stands before a name that may be a word of a sentence as well: a kind, with what JSON puts between, and what Python,
#: Go, Node, curl and nc print before a host.
_LEAD = (
    rf"(?:(?i:(?<![A-Za-z0-9])(?:{_KINDS}))(?:[-_]name(?:space)?)?(?:\.[a-z0-9.]{{1,80}})?"
    r"(?:\\?\"?(?:[/=:] ?)(?:\{\\?\"name\\?\": ?)?\\?\"?| ?\\?\"| '| )|\bname\\?\": ?\\?\"(?=[a-z0-9-]{1,63}\\?\", ?\\?\"namespace)|"
    r"\b(?:host(?:=|: )\\?[\"']?|lookup |[Rr]esolve host:? |ENOTFOUND |EAI_AGAIN |onnection to |to host |server at \\?\"|"
    r"nc (?:-\w{1,9} ){0,4}|"
    r"outbound\|\d{1,5}\|[a-z0-9-]{0,63}\||app(?:\.kubernetes\.io/(?:name|instance))?=)|"
    r"\bisvc\.|\bhttps?://(?=[a-z0-9-]{1,63}(?![a-z0-9.-])))"
    r"(?:(?P<space>[a-z0-9-]{1,63})(?:/|\\?\",? \\?\"?name\\?\"?[:=] ?\\?\"))?"
)
#: What KServe and Istio put behind the name of an InferenceService and of an InferencePool.
_MADE = r"-(?:predictor|ip-[0-9a-f]{8})(?![A-Za-z0-9-])"
#: Networks that everybody can reach and that are nobody's own (IANA's special-purpose registry): relays and AS112.
_NOBODYS = ("192.88.99", "192.31.196", "192.52.193", "192.175.48")


def anonymized(snapshot: Snapshot, keep: Iterable[str]) -> Snapshot:
    """The snapshot with its names replaced; the same snapshot always gives the same one.

    `keep`: texts that checks look for; their words are not taken for anybody's, whatever a pod is called.
    """
    tree: Json = msgspec.to_builtins(snapshot)
    names = _Names(keep)
    names.collect(tree)
    return msgspec.convert(names.replaced(tree), Snapshot)


@cache
def _public_models() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The models of the catalogue, their publishers, and the words in both, in lower case."""
    from kubectl_llmdoctor.catalog import models

    ids = frozenset(name.lower() for row in models.table() for name in row.ids)
    words = frozenset(word for name in ids for word in _WORD.findall(name))
    return ids, frozenset(name.partition("/")[0] for name in ids if "/" in name), words


class _Names:
    """Two passes: what there is to be replaced, and its replacement."""

    def __init__(self, keep: Iterable[str]) -> None:
        self._ids, self._publishers, model_words = _public_models()
        self._said = (*keep, *_PROGRAMS)
        known = {word.lower() for text in self._said for word in _WORD.findall(text)}
        public = {word for host in common.table().hosts for word in _WORD.findall(host)}
        public |= {word for name in common.table().names for word in _WORD.findall(name)}
        self._common = common.table().words | known | model_words | public
        #: name to category, in the order in which they are met
        self._found: dict[str, str] = {}
        self._addresses: dict[str, None] = {}
        self._mails: dict[str, None] = {}
        self._accounts: dict[str, None] = {}
        #: Services by namespace and name, and how others write them: `serving-llama` an ingress controller, `llama.serving` DNS
        self._services: dict[tuple[str, str], None] = {}
        self._spaces: set[str] = set()
        self._namespace = ""
        self._joined: dict[str, str] = {}
        #: public models that occur
        self._ids_here: list[str] = []
        self._counts: Counter[str] = Counter()
        self._new: dict[str, str] = {}
        self._substitute: Callable[[str], str] = str

    # --- what there is ------------------------------------------------------------------------------------------------

    def collect(self, tree: Json) -> None:
        """Finds all names, and decides what each becomes."""
        for name in tree.get("nodes") or ():
            self._name(name, "node")
        self._walk(tree, "", "")
        text = msgspec.json.encode(tree).decode()
        for found in _POD_IN_TEXT.finditer(text):
            if self._base(found[1], _ROLES):
                self._name(found[1], "pod")
        said = text.lower()
        self._ids_here = [name for name in self._ids if "/" in name and name in said]
        self._decide()

    def _walk(self, value: Any, key: str, parent: str) -> None:
        if isinstance(value, dict):
            self._object(value, key, parent)
            for inner, item in value.items():
                if parent not in ("labels", "annotations") and isinstance(inner, str) and "/" in inner:
                    self._said_host(_of_label(inner)[1].partition("/")[0])
                self._walk(item, inner, key)
        elif isinstance(value, list | tuple):
            self._arguments(value)
            for item in value:
                self._walk(item, key, parent)
        elif isinstance(value, str):
            self._string(value, key)

    def _object(self, value: Json, key: str, parent: str) -> None:
        name = value.get("name")
        if isinstance(value.get("metadata"), dict) and isinstance(value["metadata"].get("name"), str):
            meta = value["metadata"]
            if key not in _CLAIM_TEMPLATES:
                self._name(meta["name"], _CATEGORIES.get(str(value.get("kind")), "workload"))
            self._namespace = str(meta.get("namespace") or "")
            if value.get("kind") == "Service":
                self._services[self._namespace, meta["name"]] = None
        elif isinstance(name, str) and parent in _CLAIM_TEMPLATES:
            if not self._plain(name):  # mounts name it, as they do volumes
                self._name(name, "volume")
        elif isinstance(name, str) and _refers(key) and (key in _REFERENCES or not self._plain(name)):
            self._name(name, _REFERENCES.get(key) or _CATEGORIES.get(str(value.get("kind")), "workload"))
            if key == "service":
                self._services[self._namespace, name] = None
        elif isinstance(name, str) and key in ("containers", "initContainers", "volumes") and not self._plain(name):
            self._name(name, key.removesuffix("s").removeprefix("init").lower())
        if isinstance(name, str) and isinstance(value.get("value"), str) and _MODEL_VARIABLES.match(name):
            self._model(value["value"])
        # Of a series of Prometheus only what names a pod, a node or a model is a name.
        for label, text in value.items() if key in _LABELS and parent != "series" else ():
            if isinstance(text, str) and self._is_own(label) and not self._plain(text):
                self._name(text, "label")

    def _arguments(self, values: Sequence[Any]) -> None:
        texts = [value for value in values if isinstance(value, str)]
        for option, value in zip(texts, [*texts[1:], ""], strict=False):
            name, equals, text = option.partition("=")
            if _MODEL_OPTIONS.match(name):
                self._model(text if equals else value)

    def _model(self, text: str) -> None:
        """A model that is not public: its publisher and name, or the folders of its path."""
        publisher = text.partition("/")[0].lower()
        if not text or text.startswith("-") or text.lower() in self._ids or publisher in self._publishers:
            return
        for part in text.split("/"):
            if part and not self._plain(part) and not part.startswith("$"):
                self._name(part, "model")

    def _string(self, value: str, key: str) -> None:
        if _is_constant(key, value):
            return
        if key in _NAME_KEYS:
            self._named(value.rstrip("-") if key == "generateName" else value, _NAME_KEYS[key])
        if key == "image":
            self._image(value)
        if key == "address" and not _ip(value):
            self._name(value, "node")
        for found in _HOST_IN_TEXT.finditer(value):
            self._said_host(found[1])
        for found in _ARN.finditer(value):
            self._accounts[found["account"]] = None
            self._name(found["name"], "role")
        for found in _MAIL.finditer(value):
            if not _is_public_host(found[1]):
                self._mails[found[0]] = None
                self._host(found[1])
        for found in _IPV4.finditer(value):
            if _is_address(value, found, certain=key.lower().endswith(("ip", "ips", "address", "addresses", "cidr"))):
                self._addresses[found[0]] = None
        for found in _IPV6.finditer(value) if ":" in value else ():
            if (address := _ip(found[0])) and not address.is_loopback and not address.is_unspecified:
                self._addresses[found[0]] = None

    def _named(self, value: str, category: str) -> None:
        if category == "host" and "." in value:
            self._host(value)
        elif category not in ("class", "scheduler") or not self._plain(value):
            self._name(value, category)

    def _image(self, image: str) -> None:
        if image.startswith(_PUBLIC_REGISTRIES):
            return
        path, (first, slash, rest) = image, image.partition("/")
        if slash and ("." in first or ":" in first):
            self._host(first.partition(":")[0])
            path = rest
        for part in path.partition("@")[0].rpartition(":")[0].split("/")[:-1] or ():
            if part.lower() not in self._publishers and not self._plain(part):
                self._name(part, "registry")

    def _said_host(self, host: str) -> None:
        """One that only a text or a key has, where one of common words is a project's."""
        if not self._plain(host) or ".svc" in host:
            self._host(host)

    def _host(self, host: str) -> None:
        inside = re.match(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.|\Z)", host)
        if inside:
            self._name(inside[1], "service")
            self._name(inside[2], "ns")
            self._services[inside[2], inside[1]] = None
        elif "." in host and not _ip(host) and not _is_public_host(host):
            while _PLACEHOLDER.match(host):  # what stands behind it is somebody's
                host = host.partition(".")[2]
            self._name(host, "host")

    def _name(self, name: str, category: str) -> None:
        if (
            len(name) > 1
            and name not in common.table().names
            and name not in _ENGINES
            and not _ip(name)
            and not (category != "label" and _PLACEHOLDER.search(name))
            and (category == "node" or not _COMPONENT.match(name))
            and not (category in ("workload", "class") and _is_public_host(name))
        ):
            if category == "ns":
                self._spaces.add(name)
            if self._found.get(name, "label") == "label":
                self._found[name] = category
            if category == "node" and "." in name:
                self._found.setdefault(name.partition(".")[0], category)

    def _plain(self, text: str) -> bool:
        """Whether a text is made of common words, numbers and generated parts alone."""
        return not any(self._words(text))

    def _words(self, text: str) -> Iterator[str]:
        """The words of a name that are nobody's but its owner's."""
        for word in _WORD.findall(text):
            stem = word.lower().rstrip("0123456789")
            if len(stem) >= 3 and stem.isalpha() and stem not in self._common and word.lower() not in self._common:
                yield word

    def _is_composed(self, name: str) -> bool:
        """Whether common words are joined to what no engine calls its own."""
        return "-" in name and not any(name in text for text in self._said)

    # --- what each becomes --------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        for namespace, service in self._services:
            self._found.pop(f"{service}.{namespace}", None)  # its address within the cluster is no other host
        for name in self._found:
            self._become(name)
        for namespace, service in self._services:
            new_namespace, new_service = self._new.get(namespace, namespace), self._new.get(service, service)
            self._joined[f"{namespace}-{service}"] = f"{new_namespace}-{new_service}"
            self._joined[f"{service}.{namespace}"] = f"{new_service}.{new_namespace}"
            for between in ("_", "_svc_"):  # HAProxy's two controllers
                self._joined[f"{namespace}{between}{service}"] = f"{new_namespace}{between}{new_service}"
        for name, new in self._new.items():
            # An object cannot be called `qwen2.5`, so it is called `qwen2-5`, and paths have the former.
            parts = re.split(r"(?<=\d)-(?=\d)", name, maxsplit=4)
            for dots in itertools.product("-.", repeat=len(parts) - 1):
                self._joined.setdefault("".join(itertools.chain(*zip(parts, (*dots, ""), strict=True))), new)
        words: dict[str, str] = {}
        for name, category in self._found.items():
            stem = name if category in ("label", "host") else [name, *_bases(name)][-1]
            for word in filter(_is_long, self._words(stem)):
                words.setdefault(word.lower(), "")
        for mail in self._mails:
            words.update((word.lower(), "") for word in filter(_is_long, self._words(mail.partition("@")[0])))
        for word in words:
            words[word] = self._fresh("word", "")
        for name, new in [(mail, self._fresh("user", "@example.com")) for mail in self._mails]:
            self._new[name] = new
        for number, account in enumerate(self._accounts, 1):
            self._new[account] = f"1111{number:08}"
        addresses = dict(self._renumbered())
        self._substitute = self._substitution(words, addresses)

    def _become(self, name: str) -> str:
        if name in self._new:
            return self._new[name]
        # What was generated from another name stays visibly so: a pod of its ReplicaSet, a member of its StatefulSet.
        category = self._found[name]
        base = self._base(name, _ROLES)
        if base:
            new = self._become(base) + name.removeprefix(base)
        else:
            ordinal = re.search(r"(?:-\d{1,3})?\Z", name) if category == "pod" else None
            told = _OF_MODELS.search(name) if category == "service" else None
            roles = "" if category == "host" else "".join(f"-{word}" for word in name.split("-") if word in _ROLES)
            roles = f"-{told[0]}{roles}" if told else roles
            new = self._fresh(category, ".example" if category == "host" else roles + (ordinal[0] if ordinal else ""))
        if re.search(r"\A[a-z0-9.-]*[A-Z][A-Za-z0-9.-]*\Z", name):
            new = new.capitalize()  # which no object may have stays visible
        self._new[name] = new
        return new

    def _base(self, name: str, roles: Container[str]) -> str:
        """The longest name that this one was made from, or none."""
        return next((base for base in _bases(name, roles) if base in self._found), "")

    def _fresh(self, category: str, suffix: str) -> str:
        while True:
            self._counts[category] += 1
            new = f"{category}{'' if category == 'word' else '-'}{_letters(self._counts[category])}{suffix}"
            if new not in self._found:
                return new

    def _renumbered(self) -> Iterator[tuple[str, str]]:
        """Addresses of the same network keep a network in common; a public one stays none of a private network."""
        taken = {address.rpartition(".")[0] for address in self._addresses}
        inside = (f"10.{high}.{low}" for high in range(200, 256) for low in range(256))
        free = {True: (n for n in inside if n not in taken), False: (n for n in _NOBODYS if n not in taken)}
        networks: dict[str, str] = {}
        hosts: Counter[str] = Counter()
        for address in self._addresses:
            network, dot, _ = address.rpartition(".")
            if dot and network not in networks:
                private = ipaddress.ip_address(address).is_private
                networks[network] = next(free[private], "10.255.255" if private else _NOBODYS[-1])
            new = networks.get(network, "")
            hosts[new] += 1
            yield (
                address,
                f"{new}.{hosts[new]}" if dot else f"{'fe80' if address[:4] == 'fe80' else 'fd00'}::a{hosts[new]:x}",
            )

    def _substitution(self, words: dict[str, str], addresses: dict[str, str]) -> Callable[[str], str]:
        """What replaces all of it in a text, in one pass, so that nothing is replaced twice."""
        # A name that is one common word, or one that engines print, may be a word of a sentence: elsewhere than in its own
        # fields only what says what it is makes it a name.
        telling = {
            name for name in self._new if not self._plain(name) or re.search(r"[\d.]", name) or self._is_composed(name)
        }
        ordinary = [name for name in self._new if name not in telling]
        joined = {text: new for text, new in self._joined.items() if text not in self._new}
        texts = {**{name: self._new[name] for name in telling}, **joined, **addresses}
        # a backend of OpenShift's router: namespace, Route, pod and Service
        parts = [
            r"(?P<route>\bbe_[a-z_]{1,20}:[a-z0-9.-]{1,253}:[a-z0-9.-]{1,253}/pod:[a-z0-9.-]{1,253}:[a-z0-9.-]{1,253})(?=:)",
            rf"(?<![A-Za-z0-9-])(?P<kept>(?i:{_any_of(self._kept())}))(?![A-Za-z0-9-])",
        ]
        services = {service for _, service in self._services}
        hosts = [name for name in ordinary if name in services | self._spaces or self._found[name] == "service"]
        spaces = [name for name in ordinary if name in self._spaces]
        if texts:
            within = rf"(?P<domain>(?:\.(?:{_any_of(hosts)})(?![A-Za-z0-9-]))*)" if hosts else ""
            parts.append(rf"(?<![A-Za-z0-9-])(?P<name>{_any_of(texts)})(?![A-Za-z0-9]){within}")
        if words:
            parts.append(rf"(?<![A-Za-z])(?P<word>(?i:{_any_of(words)}))(?![a-z])")
        if hosts:
            asked = rf"(?:(?<=//)|(?<![\w./-]))(?:{_any_of(hosts)})(?=:\d{{2,5}}(?!\w|[.:]\d))"
            parts.append(rf"(?P<asked>{asked}|(?<=[a-z0-9]\.)(?:{_any_of(hosts)})(?=\.svc\b))")
        if spaces:
            parts.append(rf"(?<![\w./@:$}}~-])(?P<of>{_any_of(spaces)})/(?P<object>[a-z0-9-]{{1,63}}+)(?![\w/-]|\.\w)")
        if ordinary:
            parts.append(rf"(?P<lead>{_LEAD})(?P<common>{_any_of(ordinary)})(?!(?!{_MADE})[A-Za-z0-9-])")
        pattern = re.compile("|".join(parts))

        def new(match: re.Match[str]) -> str:
            found = match.groupdict()
            if found["kept"] is not None:
                return match[0]
            if found.get("name"):
                rest = (found.get("domain") or "").split(".")
                return ".".join([texts[found["name"]], *(self._new[part] for part in rest[1:])])
            if found.get("word"):
                word = words[found["word"].lower()]
                return word.upper() if found["word"].isupper() else word
            if found["route"]:
                return "".join(map(renamed, re.split(r"([:/])", found["route"])))
            if found.get("asked"):
                return self._new[found["asked"]]
            if found.get("of"):
                part = renamed(found["object"])  # with what a program adds to a name, too: `serving/llm-0-rank-0`
                return f"{self._new[found['of']] if part != found['object'] else found['of']}/{part}"
            lead = found["lead"]
            if found["space"]:
                start, end = (at - match.start() for at in match.span("space"))
                lead = lead[:start] + renamed(found["space"]) + lead[end:]
            return lead + self._new[found["common"]]

        def renamed(part: str) -> str:
            return self._new.get(part) or pattern.sub(new, part)

        return lambda text: pattern.sub(new, text)

    def _kept(self) -> Iterator[str]:
        """What is passed over as a whole: public models and domains."""
        yield from (host for host in common.table().hosts if "." in host)
        yield from self._ids_here

    # --- the second pass ----------------------------------------------------------------------------------------------

    def replaced(self, value: Any, key: str = "", parent: str = "", option: str = "") -> Any:
        """A tree with everything replaced, keys too; `option` stands before it."""
        if isinstance(value, dict):
            return {
                self._key(inner, key): self._annotation(inner, item)
                if key == "annotations" and isinstance(item, str)
                else self.replaced(item, inner, key)
                for inner, item in value.items()
            }
        if isinstance(value, list | tuple):
            # the option before it says what a word is
            options = [item if key in _TEXTS and str(item)[:2] == "--" else "" for item in ["", *value]]
            return [self.replaced(item, key, parent, option) for item, option in zip(value, options, strict=False)]
        if not isinstance(value, str) or _is_constant(key, value):
            return value
        if parent in _LABELS or (_refers(parent) or parent in _MAYBE if key == "name" else key not in _TEXTS):
            if key == "generateName" and value.rstrip("-") in self._new:
                return self._new[value.rstrip("-")] + "-"
            if value in self._new:
                return self._new[value]
            if parent in _LABELS and self._is_own(key) and (base := self._base(value, ())):
                return self._new[base] + value.removeprefix(base)
        if value.lower() in self._ids or (key == "image" and value.startswith(_PUBLIC_REGISTRIES)):
            return value
        if option:
            return self._substitute(f"{option} {value}").removeprefix(f"{self._substitute(option)} ")
        return self._substitute(value)

    def _key(self, key: Any, parent: str) -> Any:
        if not isinstance(key, str):
            return key
        if parent == "nodes" and key in self._new:
            return self._new[key]
        # `kind` is a field, whatever somebody calls a pod.
        field = parent not in (*_LABELS, "annotations", "data") and re.fullmatch(r"[a-z][A-Za-z0-9]*", key)
        before, own = _of_label(key)
        return key if field else before + self._substitute(own)

    def _annotation(self, key: str, text: str) -> str:
        """An annotation of a public project, a number, common words; what anybody else's says, nobody here knows."""
        short = len(text) <= 40 and self._plain(text)
        return self._substitute(text) if short or self._is_public_key(key) else "anonymized"

    def _is_own(self, label: str) -> bool:
        """Whether the value of a label is somebody's."""
        return not self._is_public_key(label) or bool(_OWN_LABEL.search(label))

    @staticmethod
    def _is_public_key(key: str) -> bool:
        domain, slash, _ = _of_label(key)[1].partition("/")
        return bool(slash) and _is_public_host(domain)


def _any_of(texts: Iterable[str]) -> str:
    """A pattern of all these texts, of which the longest counts."""
    return "|".join(map(re.escape, sorted(texts, key=lambda text: (-len(text), text))))


def _bases(name: str, roles: Container[str] = ()) -> Iterator[str]:
    """The names that one may have been made from, the longest first: without one generated part or role, two, …"""
    base, dash, last = name.rpartition("-")
    while dash and (last in roles or _GENERATED.fullmatch(last)):
        yield base
        base, dash, last = base.rpartition("-")


def _of_label(key: str) -> tuple[str, str]:
    """What Cilium's selectors put before a label's key, for its source and for labels of namespaces, and the key."""
    before = re.match(r"(?:(?:k8s|any)[:.])?(?:io\.cilium\.k8s\.namespace\.labels\.)?", key)
    end = before.end() if before else 0
    return key[:end], key[end:]


def _is_constant(key: str, value: str) -> bool:
    """Whether a value is one of the API's own; a `reason` may also be a sentence."""
    return key in _VERBATIM and " " not in value


def _refers(key: str) -> bool:
    """Whether a `name` under a key is that of an object."""
    return key in _REFERENCES or key.endswith(("Ref", "Refs"))


def _is_long(word: str) -> bool:
    """Whether a word is somebody's wherever it stands; shorter ones are everywhere (`torch.ops`)."""
    return len(word) >= 4


def _letters(number: int) -> str:
    """1 is `a`, 27 is `aa`: no digits, which would look like an ordinal."""
    text = ""
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def _is_public_host(host: str) -> bool:
    host = host.lower().rstrip(".")
    if host in common.table().hosts:
        return True
    if host.endswith(_TENANT_HOSTS) and not host.endswith(".cluster.local"):
        return False
    return any(host.endswith(f".{public}") for public in common.table().hosts)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_address(text: str, found: re.Match[str], *, certain: bool) -> bool:
    """Whether four numbers with dots are an address: a version of cuDNN has four too."""
    address = _ip(found[0])
    if address is None or address.is_loopback or address.is_unspecified or address.is_link_local:
        return False
    if found[0].endswith((".0.0", ".0.0.0")) and text[found.end() : found.end() + 1] == "/":
        return False  # a block as large as everybody's
    before, after = text[max(found.start() - 3, 0) : found.start()], text[found.end() : found.end() + 1]
    return certain or address.is_private or before.endswith(("://", "@", "[")) or after == ":"

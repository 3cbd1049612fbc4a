"""The objects that run the node agent, as data; the one source of what `agent manifests` prints and of `agent/deploy/`.

What each profile needs stands in `PARTS`. Whatever is chosen: no host namespaces, no service account's token, a root
that is read only, no privileges, no GPU taken, and a NetworkPolicy that lets nobody in but the API server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kubectl_llmdoctor import __version__
from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.snapshot import Json

NAME = "llmdoctor-agent"
NAMESPACE = "llmdoctor"
PORT = 9479
IMAGE = f"llmdoctor-agent:{__version__}"
READER = "llmdoctor-agent-reader"

#: A label for nodes with GPUs that carry none of the labels that say so.
NODE_LABEL = "llmdoctor-agent"

Profile = Literal["minimal", "default"]
Part = Literal["pod-resources", "processes", "cgroup", "kernel-log"]

#: What `--with` takes.
OPTIONAL: tuple[Part, ...] = ("processes", "cgroup", "kernel-log")

_LABELS = {"app.kubernetes.io/name": NAME}


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A path of the host that a part reads, read only."""

    name: str
    host: str
    inside: str

    @property
    def volume(self) -> Json:
        """The volume of the pod."""
        return {"name": self.name, "hostPath": {"type": "Directory", "path": self.host}}

    @property
    def in_container(self) -> Json:
        return {"name": self.name, "readOnly": True, "mountPath": self.inside}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a part needs of the node beyond what `minimal` has."""

    mount: Mount | None = None
    capability: str = ""
    root: bool = False


PARTS: dict[Part, Needs] = {
    # The directory and not the socket: a kubelet that restarts makes a new socket.
    "pod-resources": Needs(
        mount=Mount(
            name="pod-resources", host="/var/lib/kubelet/pod-resources", inside="/var/lib/kubelet/pod-resources"
        ),
        root=True,
    ),
    "processes": Needs(mount=Mount(name="proc", host="/proc", inside="/host/proc")),
    "cgroup": Needs(mount=Mount(name="cgroup", host="/sys/fs/cgroup", inside="/host/sys/fs/cgroup")),
    # By syslog(2), which this capability permits and which the default seccomp profile then lets through. /dev/kmsg
    # would need a privileged container, since the device cgroup refuses it to all others.
    "kernel-log": Needs(capability="SYSLOG", root=True),
}

#: Labels of nodes that have NVIDIA GPUs; who sets them: docs/agent.md.
_GPU_NODES: tuple[Json, ...] = (
    {"key": "nvidia.com/gpu.present", "operator": "In", "values": ["true"]},
    {"key": "nvidia.com/gpu.count", "operator": "Exists"},
    {"key": "feature.node.kubernetes.io/pci-10de.present", "operator": "In", "values": ["true"]},
    {"key": "feature.node.kubernetes.io/pci-0302_10de.present", "operator": "In", "values": ["true"]},
    {"key": "feature.node.kubernetes.io/pci-0300_10de.present", "operator": "In", "values": ["true"]},
    {"key": "cloud.google.com/gke-accelerator", "operator": "Exists"},
    {"key": "kubernetes.azure.com/accelerator", "operator": "In", "values": ["nvidia"]},
    {"key": "karpenter.k8s.aws/instance-gpu-manufacturer", "operator": "In", "values": ["nvidia"]},
    {"key": "k8s.amazonaws.com/accelerator", "operator": "Exists"},
    {"key": NODE_LABEL, "operator": "In", "values": ["true"]},
)

#: The GPU operator sets its own pods aside by these labels while it replaces the driver or cuts GPUs into slices. An
#: agent that stayed would keep the driver loaded.
_NOT_PAUSED: tuple[Json, ...] = tuple(
    {
        "key": f"nvidia.com/gpu.deploy.{operand}",
        "operator": "NotIn",
        "values": ["paused-for-driver-upgrade", "paused-for-mig-change"],
    }
    for operand in ("device-plugin", "operator-validator")
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What somebody wants of the agent."""

    profile: Profile = "default"
    #: of `OPTIONAL`
    extra: tuple[Part, ...] = ()
    namespace: str = NAMESPACE
    image: str = ""
    #: networks from which the API server reaches pods, where it does not do so through konnectivity's agents
    allow_from: tuple[str, ...] = ()
    #: namespaces whose pods may ask, such as Prometheus'
    allow_namespaces: tuple[str, ...] = ()
    #: empty: none is named
    runtime_class: str = "nvidia"
    #: also nodes that do not say that they have GPUs
    all_nodes: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that is read beside NVML, in the order of `PARTS`."""
        chosen: set[Part] = {*self.extra}
        chosen |= {"pod-resources"} if self.profile == "default" else set()
        # a container's cgroup is found by the processes that hold a GPU
        chosen |= {"processes"} if "cgroup" in chosen else set()
        return tuple(part for part in PARTS if part in chosen)

    @property
    def is_root(self) -> bool:
        """Whether the agent must be user 0: to open a socket that belongs to it, or to have a capability."""
        return any(PARTS[part].root for part in self.parts)

    @property
    def pod_security(self) -> str:
        """The level of Pod Security that the namespace must allow."""
        needs = [PARTS[part] for part in self.parts]
        return "privileged" if any(need.mount or need.capability for need in needs) else "restricted"


def manifests(choice: Choice) -> list[Json]:
    """All objects in the order in which they are to be made. Raises UsageError for what cannot be."""
    _validate(choice)
    return [namespace(choice), role(choice), network_policy(choice), daemon_set(choice)]


def _validate(choice: Choice) -> None:
    if choice.namespace == "default" or choice.namespace.startswith("kube-"):
        raise UsageError(
            f"--namespace {choice.namespace}: the agent needs a namespace of its own, since whoever may read it may "
            "send requests to every pod beside it"
        )
    for network in choice.allow_from:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UsageError(f"--allow-from {network}: {error}") from None


def _metadata(choice: Choice, name: str) -> Json:
    return {"name": name, "namespace": choice.namespace, "labels": dict(_LABELS)}


def namespace(choice: Choice) -> Json:
    """The namespace, which lets the agent's pods in and no more."""
    modes = ("enforce", "audit", "warn")
    labels = {f"pod-security.kubernetes.io/{mode}": choice.pod_security for mode in modes}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": choice.namespace, "labels": _LABELS | labels}}


def role(choice: Choice) -> Json:
    """What a reader of the agent needs: to find its pods, and to send GET requests to them through the API server."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata(choice, READER),
        "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
        ],
    }


def network_policy(choice: Choice) -> Json:
    """Lets the API server in, by konnectivity's agents (AKS and GKE label them differently) or from given networks."""
    kube_system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    sources: list[Json] = [
        {"namespaceSelector": kube_system, "podSelector": {"matchLabels": {key: "konnectivity-agent"}}}
        for key in ("k8s-app", "app")
    ]
    sources += [{"ipBlock": {"cidr": network}} for network in choice.allow_from]
    sources += [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
        for name in choice.allow_namespaces
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(choice, NAME),
        "spec": {
            "podSelector": {"matchLabels": dict(_LABELS)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": sources, "ports": [{"port": PORT, "protocol": "TCP"}]}],
            "egress": [],
        },
    }


def daemon_set(choice: Choice) -> Json:
    """One agent for each node with GPUs."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _metadata(choice, NAME),
        "spec": {
            "selector": {"matchLabels": dict(_LABELS)},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": dict(_LABELS)}, "spec": _pod(choice)},
        },
    }


def _pod(choice: Choice) -> Json:
    mounts = [need.mount for part in choice.parts if (need := PARTS[part]).mount]
    user = 0 if choice.is_root else 65532
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsUser": user,
            "runAsGroup": user,
            "runAsNonRoot": not choice.is_root,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _nodes(choice)}},
        "containers": [_container(choice)],
    }
    if choice.runtime_class:
        pod["runtimeClassName"] = choice.runtime_class
    if mounts:
        pod["volumes"] = [mount.volume for mount in mounts if mount]
    return pod


def _nodes(choice: Choice) -> Json:
    terms = [[label, *_NOT_PAUSED] for label in _GPU_NODES] if not choice.all_nodes else [list(_NOT_PAUSED)]
    return {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}


def _container(choice: Choice) -> Json:
    needs = [PARTS[part] for part in choice.parts]
    capabilities: Json = {"drop": ["ALL"]}
    if added := [need.capability for need in needs if need.capability]:
        capabilities["add"] = added
    container: Json = {
        "name": "agent",
        "image": choice.image or IMAGE,
        "args": [f"--port={PORT}", *(f"--with={part}" for part in choice.parts)],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            # NVML of all GPUs, without asking for one
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"},
        ],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 30, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": capabilities,
        },
    }
    if mounts := [need.mount for need in needs if need.mount]:
        container["volumeMounts"] = [mount.in_container for mount in mounts]
    return container


def to_yaml(objects: Sequence[object]) -> str:
    """The objects as one YAML stream, keys in the order in which they are written here."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, _data: object) -> bool:
            return True

    return "---\n".join(yaml.dump(o, Dumper=Dumper, sort_keys=False, width=120) for o in objects)

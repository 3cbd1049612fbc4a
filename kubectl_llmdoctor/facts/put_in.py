"""Containers that something else than the workload puts into a pod, and whose resources are annotations of the pods.

Sources: GKE's guide to the Cloud Storage FUSE driver; the annotations that Istio, Linkerd, Vault's injector, Dapr and Knative list.
"""

from __future__ import annotations

from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.tree import numbered

#: What Istio's annotations of its proxy's resources begin with.
_PROXY = "sidecar.istio.io/proxy"
_MEMORY = {
    "gke-gcsfuse-sidecar": "gke-gcsfuse/memory-limit",
    "istio-proxy": f"{_PROXY}MemoryLimit",
    "linkerd-proxy": "config.linkerd.io/proxy-memory-limit",
    "vault-agent": "vault.hashicorp.com/agent-limits-mem",
    "vault-agent-init": "vault.hashicorp.com/agent-limits-mem",
    "daprd": "dapr.io/sidecar-memory-limit",
    "queue-proxy": "queue.sidecar.serving.knative.dev/memory-resource-limit",
}


def memory_annotation(container: Container) -> str:
    """The annotation of the pods that sets the memory limit of a container which was put in; empty where the workload states it itself."""
    name, pod = _MEMORY.get(container.name, ""), container.pod
    if not name or not pod.exists:
        return ""  # a manifest has what somebody wrote
    stated = (
        one.get("name")
        for kind in ("containers", "initContainers")
        for _, one in numbered(pod.template.pod if pod.template else None, f"spec.{kind}")
    )
    return "" if container.name in stated else name


def memory_annotations(container: Container, amount: str) -> dict[str, str]:
    """The annotations of the pods that give a container which was put in this memory limit; none where the workload states it itself.

    One of Istio's puts all that the mesh's configuration says of the proxy's resources out of force, so that what the proxy has of
    them goes with it.
    """
    name = memory_annotation(container)
    if not name:
        return {}
    stated = container.spec.resources
    told = ((stated.requests, "cpu", "CPU"), (stated.requests, "memory", "Memory"), (stated.limits, "cpu", "CPULimit"))
    kept = {f"{_PROXY}{part}": str(amounts[key]) for amounts, key, part in told if key in amounts}
    return {**(kept if name.startswith(_PROXY) else {}), name: amount}

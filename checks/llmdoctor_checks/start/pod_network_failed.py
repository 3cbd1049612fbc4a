"""A program of the node's own network that does not run, where the network of a pod cannot be set up."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Events,
    Evidence,
    Finding,
    Pod,
    check,
    event_evidence,
    expression,
    fixes,
    k8s,
    usage_of,
)

#: What plugins say that do not reach what they ask, or wait for files of a program that is to run beside them.
_UNREACHED = expression(
    r"(?i)setup network for sandbox|failed to set up (?:pod|sandbox)|to CNI network|cni plugin not initialized"
)
_NOBODY = expression(
    r"(?i)time(?:d )?out|deadline exceeded|connection refused|no route to host|unable to connect|no such file|not initialized"
)
#: How the pods are called that make the network of a node: the way to the cluster's own addresses, and the CNI plugins.
_NETWORK = expression(
    r"(?:kube-proxy|calico-node|canal|cilium|kube-flannel|aws-node|weave-net|kube-multus|multus|antrea-agent|kube-router|ovnkube-node|"
    r"kindnet|kube-ovn-cni)(?:-[a-z0-9]{1,20}){0,3}"
)
#: Before the finding that has the kubelet's words alone.
_MORE = -2.0


@check("pod-network-failed", since="0.3")
def pod_network_failed(pod: Pod, events: Events | None) -> Iterator[Finding]:
    """The network of the pod cannot be set up on its node.

    Before any container starts, the container runtime calls the node's CNI plugins to give the pod an address, and further
    interfaces where it asks for them (Multus, SR-IOV for RDMA). One of them refuses: the network that the pod names does not
    exist, the node has no address left, the plugin is not installed or is not allowed to ask the API server, or does not reach
    it, because the node's kube-proxy or the plugin's own pod ends again and again. The pod stays in ContainerCreating, and the
    kubelet tries again forever.

    ## Fix

    Create the network that the pod names, or name one that exists. Else fix the network of the node; other new pods there
    fail alike.

    ## References

    - https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/
    - https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/docs/how-to-use.md
    """
    own = [e for e in events or () if e.name == pod.name and e.kind == "Pod" and _UNREACHED.search(e.message[:4000])]
    if not pod.failing or not own or not _NOBODY.search(own[-1].message[:4000]):
        return
    node = pod.spec.node_name
    for other in usage_of(pod.cluster).pods(node) if node else ():
        state = _down(other)
        if not state or not _NETWORK.fullmatch(other.metadata.name):
            continue
        name, where = other.metadata.name, f"kubectl -n {other.metadata.namespace or 'default'}"
        of_proxy = ": without it no address of a Service, the API server's among them, leads anywhere on that node"
        yield Finding(
            summary=f"The network of the pod cannot be set up on {node}, where {name} does not run ({state})"
            f"{of_proxy if name.startswith('kube-proxy') else ''}.",
            evidence=(
                event_evidence(own[-1], pod.cluster),
                Evidence(source="pod", ref=f"Pod/{name} status.containerStatuses", text=state),
            ),
            explains=("not-ready", "pod-failed", "rollout-stuck", "ray-cluster", "multinode-discovery", "worker-lost"),
            fix=fixes.platform(
                f"Fix what ends {name} on {node}, as its last log says: {pod.name} gets its network by itself then",
                f"{where} logs {name} --previous",
                f"{where} describe pod {name}",
            ),
            order=_MORE,
        )
        return


def _down(pod: k8s.Pod) -> str:
    """How a pod does not run, that has ended before; empty where it runs."""
    for status in pod.status.of_containers:
        waits = status.state.waiting
        if (
            status.restart_count
            and waits
            and waits.reason in ("CrashLoopBackOff", "RunContainerError", "CreateContainerError")
        ):
            return f"{waits.reason}, {status.restart_count} restarts"
    return ""

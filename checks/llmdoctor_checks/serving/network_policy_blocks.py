"""A NetworkPolicy that keeps a pod from what it asks for, its clients from it, or the ranks of one server from each other."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    RAY_CLUSTER,
    RAY_NODE_TYPE,
    Cluster,
    Finding,
    Logs,
    Pod,
    Subject,
    check,
    dig,
    k8s,
    log_evidence,
    rows,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.serving import _mesh_policies, _policy_clients, _policy_egress, _policy_webhooks
from llmdoctor_checks.serving._policies import CILIUM, has_port, policies, policies_on, rules, selected
from llmdoctor_checks.serving._policy_words import quote, with_rules

#: Kinds of other network plugins, whose rules add to these.
_FOREIGN = ("FQDNNetworkPolicy", "AdminNetworkPolicy")

#: What a Ray worker says of a head that does not answer: KubeRay's init container, and Ray itself.
_NO_HEAD = ("Waiting for GCS to be ready", "Failed to connect to GCS", "Unable to connect to GCS")


@check(
    "network-policy-blocks",
    since="0.2",
    severity="warning",
    literals=(
        *_NO_HEAD,
        *_policy_egress.LITERALS,
        *_policy_clients.LITERALS,
        _policy_webhooks.CALLING,
        *_mesh_policies.LITERALS,
    ),
)
def network_policy_blocks(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A NetworkPolicy stops the download, DNS, another Service, clients, or the ranks of one server.

    A pod that a policy with `Egress` selects may open only the connections that some rule allows. Without one to port
    443 of public addresses the Hub is out of reach, and the download times out after minutes of retries. Without one to
    port 53 not even a name resolves, and without one to the port of a database or cache in the cluster that is out of reach,
    too. A pod that a policy with `Ingress` selects is reached by those whom some rule names, and by nobody else: gateways
    and clients in other namespaces wait until they time out, while the server is Ready. A server over several pods needs all
    ports between its ranks: NCCL, gloo and Ray choose theirs when they start. The API server, which asks the webhooks of operators, is
    no pod: it is let in by a rule that names nobody, or addresses.

    A rule to `namespaceSelector: {}` leads to every pod of the cluster and to no address outside of it: a script that installs
    packages at each start ends there, too.

    An AuthorizationPolicy of Istio has the server's own proxy answer 403 to whom no rule of those that allow names, and a
    PeerAuthentication with the mode STRICT has it cut off clients outside of the mesh, which speak no mTLS. One of the former that
    forgets Knative's activator has it hold requests that it cannot pass on. AWS' load balancers are no pods: they
    ask for a pod's health from addresses of their subnets.

    Policies add up: what one forbids another may allow, Cilium's included. They do not bind pods on the host's network.

    ## Fix

    Allow DNS, and port 443 outside (or fetch the model in advance and set `HF_HUB_OFFLINE=1`); allow all ports between
    the pods of one server.

    ## References

    - https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    if pod.spec.host_network or pod.log_only or any(next(cluster.items(k), None) for k in _FOREIGN):
        return
    engines = subject.engines(pod)
    yield from _policy_clients.of_balancer(pod, engines, cluster)
    if pod.ready:
        yield from _mesh_policies.denied(pod, cluster, logs)
        yield from _mesh_policies.plain(pod, engines, cluster, logs)
        yield from _mesh_policies.unprobed(pod, cluster)
    yield from _policy_egress.outside(pod, engines, cluster, logs)
    if pod.ready and (found := _policy_clients.of_server(pod, cluster)) is not None:
        yield found
    elif logs is not None and pod.exists and not engines:
        yield from _policy_clients.of_client(pod, cluster, logs)
    cilium = any(next(cluster.items(kind), None) for kind in CILIUM)
    if pod.ready and logs is not None and pod.exists and not engines and not cilium:
        yield from _policy_egress.services(pod, cluster, logs)
        yield from _policy_egress.names_of_a_client(pod, cluster, logs)
    if pod.ready and not engines and not cilium:
        yield from _policy_webhooks.of_webhook(pod, cluster)
    if pod.ready and logs is not None and not cilium:
        yield from _policy_egress.names_of_a_store(pod, engines, cluster, logs)
    if pod.ready or cilium:
        return
    hub = [finding for engine in engines for finding in _policy_egress.hub(pod, engine, cluster, logs)]
    yield from hub
    if engines:
        yield from () if hub else _policy_egress.packages(pod, cluster)
        yield from _peers(pod, subject, cluster)
    if logs is not None and pod.failing:
        yield from _policy_egress.services(pod, cluster, logs)
        if not engines:
            yield from _policy_egress.dns(pod, cluster, logs)
    yield from _head(pod, cluster, logs)


def _head(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A Ray worker that gets no answer from a head which runs, and a policy by which the head takes nothing from it."""
    line = next(logs.find(*_NO_HEAD), None) if logs and pod.failing else None
    group = pod.labels.get(RAY_CLUSTER)
    if line is None or not group:
        return
    for head in cluster.all(k8s.Pod, "Pod"):
        labels = head.metadata.label_texts
        if head.metadata.namespace != pod.namespace or labels.get(RAY_CLUSTER) != group:
            continue
        if labels.get(RAY_NODE_TYPE) != "head" or head.status.phase != "Running" or head.spec.host_network:
            continue
        found = policies_on(labels, pod.namespace, cluster, "Ingress")
        if not found or any(_lets_in(rule, pod.labels) for rule in rules(found, "Ingress")):
            return
        names = " and ".join(item.name for item in found)
        rule: dict[str, object] = {"from": [{"podSelector": {"matchLabels": {RAY_CLUSTER: group}}}]}
        yield Finding(
            severity="critical",
            summary=f"NetworkPolicy {names} lets nothing of {pod.name} in to {head.metadata.name}, which runs: the worker waits for it.",
            evidence=(log_evidence(line), *(quote(item, "ingress") for item in found)),
            explains=("ray-cluster", "multinode-discovery", *FAILED_START),
            fix=with_rules(found[0], "ingress", [rule], "Let the pods of the Ray cluster reach each other"),
            order=line.order,
        )
        return


def _lets_in(rule: dict[str, object], labels: dict[str, str]) -> bool:
    """Whether a rule may let a pod of these labels in to the port of Ray's head; a foreign one is taken for it."""
    peers = rows(rule.get("from"))
    of_worker = not peers or any("podSelector" not in p or selected(p.get("podSelector"), labels) for p in peers)
    return of_worker and has_port(rule, 6379)


def _peers(pod: Pod, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """Ranks in several pods, and no rule that lets them reach each other on all ports."""
    nodes = pod.nodes if not pod.exists else len(subject.pods)
    found = policies(pod, cluster, "Ingress")
    if not nodes or nodes < 2 or not found:
        return
    labels = pod.labels
    if not labels:
        return
    for rule in rules(found, "Ingress"):
        peers = rows(rule.get("from"))
        own = not peers or any("ipBlock" in p or selected(p.get("podSelector"), labels) for p in peers)
        if own and not rows(rule.get("ports")):
            return
    names = " and ".join(item.name for item in found)
    rule = {"from": [{"podSelector": dig(found[0].raw, "spec.podSelector") or {}}]}
    yield Finding(
        role="risk",
        summary=f"NetworkPolicy {names} lets the {nodes} pods of one server reach each other on chosen ports only; NCCL, gloo "
        "and Ray choose theirs when they start, and the ranks wait for each other until they time out.",
        evidence=tuple(quote(item, "ingress") for item in found),
        fix=with_rules(found[0], "ingress", [rule], "Allow all ports between the pods of the server"),
        pods=tuple(p.name for p in subject.pods if p.exists),
    )

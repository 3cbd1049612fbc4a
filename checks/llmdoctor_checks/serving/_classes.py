"""Ingresses that nobody serves: of a class that no controller has, or of none, or refused by the controller that they are for.

Sources: ingress-nginx (`store.go`) says of each Ingress without a class that is its own that it leaves it out. The controllers of AWS and
Google write events of the Ingress: `FailedBuildModel` and `FailedDeployModel`, `Translate`, and `SuccessfullyReconciled` and `Sync` later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    current_logs,
    dig,
    escaped,
    event_evidence,
    events_of,
    fixes,
    log_evidence,
    object_evidence,
    table,
)
from llmdoctor_checks._ingress import CLASS_ANNOTATION, class_of
from llmdoctor_checks.scheduling._words import sentence
from llmdoctor_checks.serving._exposure import backends
from llmdoctor_checks.serving._routes import answers, led_by_others
from llmdoctor_checks.start._routed_ports import ways_to

IGNORED = "Ignoring ingress because of error while validating ingress class"
_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
_REFUSES = ("FailedBuildModel", "FailedDeployModel", "Translate")
_TAKES = ("SuccessfullyReconciled", "Sync")
#: Cloud controllers of a Service (`cloud-provider/controllers/service`).
_BALANCED = "EnsuredLoadBalancer"
#: The clouds' controllers, and MetalLB.
_NO_BALANCER = ("SyncLoadBalancerFailed", "AllocationFailed")
_OF_ENVOY_GATEWAY = "gateway.envoyproxy.io/owning-gateway-name"
_TARGET_TYPE, _NEG = "alb.ingress.kubernetes.io/target-type", "cloud.google.com/neg"


def unserved(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The first such Ingress of a pod to which no other leads."""
    names = {item.name for item in pod.services}
    mine = [item for item in cluster.items("Ingress", pod.namespace) if names & set(backends(item))]
    for item in mine:
        if (refused := _refused(item, pod, cluster)) is not None and not answers(pod, logs) and len(mine) == 1:
            yield refused
            return
        if item.annotations.get(CLASS_ANNOTATION) or dig(item.raw, "status.loadBalancer.ingress"):
            continue
        said = _said(item, cluster)
        if not _without_controller(item, said, cluster):
            continue
        if any(other is not item and not _said(other, cluster) for other in mine) or answers(pod, logs):
            continue
        yield _nobody_serves(item, said, pod, cluster)
        return


def _without_controller(item: Item, said: Line | None, cluster: Cluster) -> bool:
    """Whether an Ingress is of a class that is not there, or of none where none is the default, as far as somebody knows."""
    told, classes = class_of(item), list(cluster.items("IngressClass"))
    if any(one.name == told if told else one.annotations.get(_DEFAULT) == "true" for one in classes):
        return False
    return bool(said or (told and classes and cluster.complete("IngressClass")))


def _nobody_serves(item: Item, said: Line | None, pod: Pod, cluster: Cluster) -> Finding:
    told, classes = class_of(item), [one.name for one in cluster.items("IngressClass")]
    have = ", ".join(classes)
    lacks = (
        f"is of class {told}, and there is no such IngressClass"
        if told
        else "names no class, and no IngressClass is the default"
    )
    text = f"Set ingressClassName of Ingress/{item.name} to "
    if len(classes) == 1:
        fix = fixes.set_field(item, "/spec/ingressClassName", classes[0], text + classes[0], op="add")
    else:
        among = f" ({have})" if have else ""
        fix = fixes.advice(f"{text}the class of its controller{among}", "kubectl get ingressclasses")
    return Finding(
        role="risk" if led_by_others(pod, item, cluster) else "cause",
        severity="warning",
        summary=f"Nobody serves Ingress {item.name}: it {lacks}{f', only {have}' if have else ''}. {pod.name} gets no requests through it.",
        evidence=(
            object_evidence(item, "spec.ingressClassName", told or "none"),
            *((log_evidence(said),) if said else ()),
        ),
        fix=fix,
    )


def unbalanced(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """A Service of type LoadBalancer of a pod for which its controller makes none, by what that said last, and that has no address."""
    for item in pod.services:
        if dig(item.raw, "spec.type") != "LoadBalancer" or dig(item.raw, "status.loadBalancer.ingress"):
            continue
        told = [
            one
            for one in events_of(cluster).about([("Service", item.name)])
            if one.namespace == item.namespace and one.reason in (*_NO_BALANCER, _BALANCED)
        ]
        last = max(told, key=lambda one: (one.last is not None, one.last), default=None)
        others = any(one is not item and dig(one.raw, "spec.type") == "LoadBalancer" for one in pod.services)
        if last is None or last.reason not in _NO_BALANCER or others or any(ways_to(item, cluster)):
            continue
        yield Finding(
            severity="warning",
            summary=f"Service {item.name} has no address: {sentence(last.message)} {pod.name} gets no requests from outside through it.",
            evidence=(event_evidence(last, cluster),),
            fix=_balanced(item, last.message),
        )
        return


def _by_its_words(message: str) -> Fix | None:
    """What is missing at the cloud or in the network, by the words of who makes load balancers: AWS' controllers, and MetalLB."""
    if re.search(r"[1-9]\d{0,4} have insufficient available IP addresses", message) is not None:
        return fixes.platform(
            "Free addresses in the subnets that are tagged for load balancers (the controller wants 8 in each), or tag larger ones",
            "aws ec2 describe-subnets --query 'Subnets[].[SubnetId,AvailableIpAddressCount,Tags]'",
        )
    if (
        re.search(r"could not find any suitable subnets|unable to (?:resolve|discover) at least one subnet", message)
        is not None
    ):
        return fixes.platform(
            "Tag subnets of the cluster's VPC, in two zones for an ALB: kubernetes.io/role/elb: 1 (public), "
            "kubernetes.io/role/internal-elb: 1 (internal), and kubernetes.io/cluster/NAME: shared for older controllers; or name them "
            "(alb.ingress.kubernetes.io/subnets, service.beta.kubernetes.io/aws-load-balancer-subnets)",
            "aws ec2 describe-subnets --filters Name=vpc-id,Values=VPC --query 'Subnets[].[SubnetId,AvailabilityZone,Tags]'",
        )
    if host := re.search(r"no certificate found for host: (?P<name>[\w.*-]{1,253})", message):
        return fixes.platform(
            f"Request or import a certificate for {host['name']} in ACM, in the load balancer's region, or name one in the annotation "
            "alb.ingress.kubernetes.io/certificate-arn",
            "aws acm list-certificates",
        )
    if right := re.search(r"not authorized to perform: (?P<action>[a-z0-9]{2,40}:\w{2,60})", message):
        denied = "explicit deny" in message
        return fixes.platform(
            f"Take the deny of {right['action']} from the policy that the message names, which no other policy outweighs"
            if denied
            else f"Allow {right['action']} to the role of the controller that makes load balancers: its policy lacks that",
            "kubectl -n kube-system get serviceaccount aws-load-balancer-controller -o yaml",
        )
    if "no available IPs" in message:
        return fixes.platform(
            "Add addresses to an IPAddressPool of MetalLB that this Service may use (its autoAssign and serviceAllocation), or delete a "
            "Service of type LoadBalancer that is not needed: none is left",
            "kubectl get ipaddresspools.metallb.io -A -o yaml",
            "kubectl get services -A | grep LoadBalancer",
        )
    return None


def _balanced(item: Item, message: str) -> Fix:
    """What a cloud's load balancers take; of the Service of a gateway its operator decides, which would set it back."""
    refused = re.search(r'externalTrafficPolicy: "?Local"? is unsupported', message) is not None
    if not refused or dig(item.raw, "spec.externalTrafficPolicy") != "Local":
        return _by_its_words(message) or fixes.advice(
            f"Correct what it names, in Service/{item.name} or at the cloud",
            f"kubectl -n {item.namespace} describe service {item.name}",
        )
    if item.labels.get(_OF_ENVOY_GATEWAY) or any(
        _OF_ENVOY_GATEWAY in key for key in table(dig(item.raw, "spec.selector"))
    ):
        return fixes.advice(
            "Set spec.provider.kubernetes.envoyService.externalTrafficPolicy: Cluster in the EnvoyProxy of the Gateway (in "
            f"Service/{item.name} itself Envoy Gateway sets it back)",
            "kubectl get envoyproxies -A",
        )
    text = f"Let Service/{item.name} take traffic on every node: the cloud has no load balancer for Local"
    return fixes.set_field(item, "/spec/externalTrafficPolicy", "Cluster", text)


def _refused(item: Item, pod: Pod, cluster: Cluster) -> Finding | None:
    """What its controller says last of an Ingress of which it makes no load balancer."""
    events = [one for one in events_of(cluster).about([("Ingress", item.name)]) if one.namespace == item.namespace]
    # Google's says `Sync` of what it is about to look at, too, and of its own faults
    told = sorted(
        (
            one
            for one in events
            if one.last is not None
            and one.reason in (*_REFUSES, *_TAKES)
            and not (one.reason == "Sync" and (one.warning or "Scheduled" in one.message))
        ),
        key=lambda one: (one.last is None, one.last),
    )
    last = told[-1] if told else None
    if last is None or last.reason in _TAKES:
        return None
    made = bool(dig(item.raw, "status.loadBalancer.ingress"))
    return Finding(
        role="risk" if made or led_by_others(pod, item, cluster) else "cause",
        severity="warning",
        summary=f"The controller of Ingress {item.name} "
        + (
            f"does not change its load balancer any more, which stays as it was: {sentence(last.message)}"
            if made
            else f"makes no load balancer for it: {sentence(last.message)} {pod.name} gets no requests through it."
        ),
        evidence=(event_evidence(last, cluster),),
        fix=_accepted(item, last.message, pod),
    )


def _accepted(item: Item, message: str, pod: Pod) -> Fix:
    """What lets a load balancer ask pods behind a Service that has no port of the nodes; else what the controller says."""
    if re.search(r"NodePort['\"]{1,2} or ['\"]{0,2}LoadBalancer", message) is not None:
        if "target-type" in message:
            return fixes.set_field(
                item,
                f"/metadata/annotations/{escaped(_TARGET_TYPE)}",
                "ip",
                f"Set {_TARGET_TYPE}: ip on Ingress/{item.name}, so that the load balancer asks the pods themselves",
                op="add",
            )
        service = next((one for one in pod.services if one.name in set(backends(item))), None)
        if service is not None:
            return fixes.set_field(
                service,
                f"/metadata/annotations/{escaped(_NEG)}",
                '{"ingress": true}',
                f"Set {_NEG}: '{{\"ingress\": true}}' on Service/{service.name}, so that the load balancer asks the pods themselves",
                op="add",
            )
    return _by_its_words(message) or fixes.advice(
        f"Correct what the controller of Ingress/{item.name} names",
        f"kubectl -n {item.namespace} describe ingress {item.name}",
    )


def _said(item: Item, cluster: Cluster) -> Line | None:
    named = rf'ingress="{re.escape(item.namespace)}/{re.escape(item.name)}"'
    for log in current_logs(cluster):
        found = [line for line in log.find(IGNORED) if re.search(named, line.text[:2000])]
        if found:
            later = (x for x in log.find("Found valid IngressClass") if x.number > found[-1].number)
            return None if any(re.search(named, x.text[:2000]) for x in later) else found[-1]
    return None

"""Machines that were asked for and are no nodes: what their own objects say, and the autoscaler that gave up before it asked.

Sources: Karpenter pkg/controllers/nodeclaim/lifecycle (registration.go, liveness.go: a claim without a node is deleted after 15
minutes and made again) and pkg/state/nodepoolhealth; OpenShift's machine-api-operator and kubermatic's machine-controller
(errorReason, errorMessage, providerStatus.conditions); Cluster API (failureMessage, conditions); Gardener's
machine-controller-manager (lastOperation); cluster-autoscaler core/static_autoscaler.go.
"""

import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kubectl_llmdoctor.api import (
    Event,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Pending,
    Pod,
    dig,
    event_evidence,
    events_of,
    expression,
    fixes,
    k8s,
    log_evidence,
    object_evidence,
    parse_time,
    rows,
    say_seconds,
    written_ago,
)
from llmdoctor_checks.scheduling._clouds import asked_of_cloud
from llmdoctor_checks.scheduling._nodepools import OF_ANY, OF_NODES, TYPES
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._words import EXPLAINS, said_by, sentence

#: How long a machine with GPUs may take to join: some install a driver first.
_JOINS_SECONDS = 600
#: How long a pod waits for a machine without anything being wrong.
_AWAITED_SECONDS = 900

#: Where APIs of machines keep the failure of one, and where its conditions stand.
_ERRORS = ("status.errorMessage", "status.failureMessage")
_CONDITIONS = ("status.providerStatus.conditions", "status.conditions")
#: Where it says which labels its node gets.
_OF_NODES = ("spec.metadata.labels", "spec.nodeTemplate.metadata.labels")
#: Where providers name the type of a machine.
_OF_TYPE = ("instanceType", "vmSize", "machineType", "flavor")
#: Annotations of MachineSets on the GPUs of each of their machines.
_COUNTS = ("machine.openshift.io/GPU", "capacity.cluster-autoscaler.kubernetes.io/gpu-count")

#: What the autoscaler says of a group at its own ConfigMap: the cloud refused it, or its machines did not join.
_GROUP_FAILED = ("FailedToScaleUpGroup", "ScaleUpTimedOut")
#: A group and its size before and after, where a pod is promised a node.
_PROMISED = r"\{(\S{1,300}) \d{1,6}->\d{1,6} "

#: The autoscaler's loop ended before it looked at any group, for all pods alike; and that it did add nodes.
LOOP = "static_autoscaler.go"
_LOOP_FAILED = expression(
    r"static_autoscaler\.go:\d{1,5}\] Failed to (?:scale up|get node infos for groups|refresh cloud provider config|update node registry)"
    r"[^:]{0,40}: (?P<why>.{1,600})"
)
GROWS = ("Final scale-up plan", "Scale-up: setting group")
#: What it says in a round that got beyond what may fail so.
_BEYOND = ("Calculating unneeded nodes", "Scale down status: ", "No unschedulable pods")


def unjoined(claims: list[Item], pending: Pending, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """Karpenter has a machine for the pod, which is no node: refused as one, or for too long on its way."""
    selected = {key: str(value) for key, value in pending.pod.spec.node_selector.items()}
    for claim in claims:
        of_others = any(claim.labels.get(key, value) != value for key, value in selected.items())
        why = None if of_others else _unregistered(claim, pending)
        if not why:
            continue
        text, words = why
        yield _finding(
            f"Karpenter's machine {claim.name} was launched and is no node of the cluster: {sentence(words)}",
            (object_evidence(claim, "status.conditions[Registered]", text),),
            "Look on the machine itself why it does not join: its console and boot log, the kubelet's log; the image, user data "
            "and role of its node class, the way to the API server",
            *_console(claim),
            f"kubectl describe nodeclaims.karpenter.sh {claim.name}",
            pending=pending,
            found=found,
            first=_untainted(claim) if "unregistered taint" in words else None,
        )
        return


def _console(claim: Item) -> Iterator[str]:
    """How the console of a machine of AWS is read."""
    found = re.fullmatch(
        r"aws:///(?P<zone>[\w-]{1,40})/(?P<id>i-[0-9a-f]{8,17})", str(dig(claim.raw, "status.providerID"))
    )
    if found:
        yield f"aws ec2 get-console-output --latest --output text --region {found['zone'][:-1]} --instance-id {found['id']}"


def _untainted(claim: Item) -> Fix:
    """A machine of an image of one's own, whose kubelet is not told the taint of what is not registered yet."""
    ref = dig(claim.raw, "spec.nodeClassRef")
    kind, name = (str(ref.get("kind")), str(ref.get("name"))) if isinstance(ref, dict) else ("node class", "of it")
    return fixes.platform(
        f"Have the kubelet register with the taint karpenter.sh/unregistered:NoExecute (--register-with-taints, registerWithTaints) in "
        f"spec.userData of {kind} {name}: what its image starts does not set it",
        f"kubectl edit {shlex.quote(kind.lower())} {shlex.quote(name)}",
    )


def _unregistered(claim: Item, pending: Pending) -> tuple[str, str] | None:
    """What the condition says of a claim that was launched and not registered, and that in words."""
    launched, registered = claim.condition("Launched", "True"), claim.condition("Registered") or k8s.Condition()
    if launched is None or registered.status == "True" or "deletionTimestamp" in claim.metadata:
        return None
    text = f"{registered.status}, {registered.text}"
    # releases before 1.0 say False of one that is only on its way
    if registered.status == "False" and registered.message and registered.reason != "NodeNotFound":
        return text, registered.message
    waited = pending.pod.cluster.seconds_since(launched.last_transition_time) or 0
    pool = pending.pod.cluster.item("NodePool", "", claim.labels.get("karpenter.sh/nodepool", ""))
    alike = pool is not None and pool.condition(OF_NODES, "False")
    if waited < _JOINS_SECONDS and not alike:
        return None
    before = f", and neither did others of NodePool {pool.name}" if pool and alike else ""
    return text, f"it has not joined for {say_seconds(waited)}{before}"


def failed_machine(pending: Pending, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """A machine that would have been a node for the pod and was not made, by its own object."""
    failed = [
        (machine, why) for machine in _without_node(pending) if (why := _error(machine)) and _meant(machine, pending)
    ]
    if failed and _being_made(pending):
        return  # another is on its way
    for machine, why in failed:
        path, text = why
        yield _finding(
            f"Machine {machine.name}, which would be a node for the pod, cannot be made: {sentence(text)}",
            (object_evidence(machine, path, text),),
            "Ask the provider for what it refuses (quota, rights, capacity), or change the machine's type; then have the machine "
            "made again: many controllers do not try a failed one again",
            f"kubectl -n {machine.namespace} describe machine {machine.name}",
            pending=pending,
            found=found,
            first=asked_of_cloud(text, types=_types(machine)),
        )
        return


def coming(pending: Pending, found: Cause) -> str:
    """The name of a machine that is being made, and will be a node with what the pod finds on none: labels, or GPUs.

    Which labels a node gets beside those that its machine names, nobody knows before.
    """
    spec = pending.pod.spec
    selects = any(not re.match(OF_ANY, key) for key in spec.node_selector) and not spec.node_terms
    lacks = selects if found.obstacle == "selector" else found.obstacle == "absent"
    # one that is made again and again comes no nearer
    if not lacks or pending.seconds is None or pending.seconds > _AWAITED_SECONDS:
        return ""
    machine = _being_made(pending)
    failed = machine is not None and any(_error(one) and _meant(one, pending) for one in _without_node(pending))
    return machine.name if machine is not None and not failed else ""


def _being_made(pending: Pending) -> Item | None:
    """A machine that is on its way to be a node for the pod."""
    return next((one for one in _without_node(pending) if _on_its_way(one, pending) and _meant(one, pending)), None)


def _without_node(pending: Pending) -> list[Item]:
    """The machines that are no nodes, and are to be."""
    cluster = pending.pod.cluster
    return cluster.once(
        "machines without a node",
        lambda: [
            machine
            for machine in cluster.items("Machine")
            if not dig(machine.raw, "status.nodeRef") and "deletionTimestamp" not in machine.metadata
        ],
    )


def _error(machine: Item) -> tuple[str, str] | None:
    """Where a machine's object says that it failed, and how."""
    for path in _ERRORS:
        if isinstance(text := dig(machine.raw, path), str) and text:
            return path, text
    last = dig(machine.raw, "status.lastOperation")
    if isinstance(last, dict):  # Gardener's: its conditions are those of the node that it is
        made = last.get("type") == "Create" and last.get("state") == "Failed" and last.get("description")
        return ("status.lastOperation", str(last["description"])) if made else None
    for path in _CONDITIONS:
        for row in rows(machine.raw, path):
            failed = re.search(r"(?i)fail|error", str(row.get("reason") or ""))
            if row.get("status") == "False" and failed and row.get("message"):
                return f"{path}[{row.get('type')}]", f"{row['reason']}: {row['message']}"
    return None


def _on_its_way(machine: Item, pending: Pending) -> bool:
    """Whether it was asked for lately, and nothing says that it failed."""
    age = pending.pod.cluster.seconds_since(machine.metadata.get("creationTimestamp"))
    return age is not None and age < _JOINS_SECONDS and _error(machine) is None


def _meant(machine: Item, pending: Pending) -> bool:
    """Whether it would be a node for the pod: by the labels that the pod selects, or by GPUs, as the pod asks for some."""
    cluster = pending.pod.cluster
    labels = dict(machine.labels)
    for path in _OF_NODES:
        labels |= _labels(dig(machine.raw, path))
    if asked := {k: str(v) for k, v in pending.pod.spec.node_selector.items() if not re.match(OF_ANY, k)}:
        return all(labels.get(key) == value for key, value in asked.items())
    if not pending.accelerators:
        return False
    spec, types = dig(machine.raw, "spec.providerSpec.value"), _types(machine)
    sets = [machine, *cluster.chain(machine)]
    counted = any(item.annotations.get(key, "0") not in ("", "0") for item in sets for key in _COUNTS)
    return (
        counted or any(re.match(TYPES, kind) for kind in types) or (isinstance(spec, dict) and bool(spec.get("gpus")))
    )


def _types(machine: Item) -> list[str]:
    """The type of a machine, under whichever name its provider has it."""
    spec = dig(machine.raw, "spec.providerSpec.value")
    return [str(spec.get(key) or "") for key in _OF_TYPE] if isinstance(spec, dict) else []


def _labels(found: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def group_failed(pending: Pending, promise: Event, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """The group that was to grow for the pod did not, since the promise: the autoscaler says so of the group alone."""
    groups, cluster = re.findall(_PROMISED, promise.message), pending.pod.cluster
    told = [event for event in events_of(cluster).of_kind("ConfigMap") if "autoscaler" in event.reporter and event.last]
    for group in groups:
        named = re.compile(rf"(?<![\w.-]){re.escape(group)}(?![\w-])")
        of_it = [event for event in told if named.search(event.message)]
        last = max(of_it, key=lambda event: event.last.timestamp() if event.last else 0, default=None)
        if (
            last is None
            or last.reason not in _GROUP_FAILED
            or (promise.last and last.last and last.last < promise.last)
        ):
            continue
        yield _finding(
            f"The autoscaler promised a node of group {group}, and has not got one since: {sentence(last.message)}",
            (event_evidence(last, cluster), event_evidence(promise, cluster)),
            f"Fix what keeps group {group} from growing (its limits, quota, capacity, or why its machines do not join)",
            "kubectl -n kube-system get configmap cluster-autoscaler-status -o yaml",
            pending=pending,
            found=found,
            first=asked_of_cloud(last.message),
        )
        return


def loop_failed(pending: Pending, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """The cluster autoscaler fails in each round before it looks at the groups, and so says nothing of any pod."""
    made = parse_time(pending.pod.obj.metadata.creation_timestamp)
    for scaler, last in pending.pod.cluster.once("rounds of autoscalers that fail", lambda: _failing(pending)):
        if _before(last, scaler, made):
            continue
        said = _LOOP_FAILED.search(last.text)
        yield _finding(
            f"The cluster autoscaler adds no node for any pod, because its rounds fail: {sentence(said['why'] if said else '')}",
            (log_evidence(last, LOOP),),
            "Fix what it names (a node, a group, its rights in the cloud), or update it",
            pending=pending,
            found=found,
        )
        return


def _failing(pending: Pending) -> list[tuple[Pod, Line]]:
    """The last failure of each log in which no round went on after it; the same for all pods that wait."""
    found = []
    logs = pending.subject.controllers
    current = {(pod.namespace, pod.name) for pod, log in logs if not log.previous}
    for pod, log in logs:
        if log.previous and (pod.namespace, pod.name) in current:
            continue  # it has been started again
        failures = [line for line in log.find(LOOP) if _LOOP_FAILED.search(line.text)]
        went_on = max((line.number for line in log.find(*GROWS, *_BEYOND)), default=0)
        if failures and failures[-1].number > went_on:
            found.append((pod, failures[-1]))
    return found


def _before(line: Line, writer: Pod, made: datetime | None) -> bool:
    """Whether a line was written before the pod was made: it says nothing of it. A clock that was before its writer is another."""
    ago, now = written_ago(line, writer.cluster.now), writer.cluster.now
    if ago is None or made is None or now is None:
        return False
    begun = parse_time(writer.obj.metadata.creation_timestamp)
    return ago > (now - made).total_seconds() and (begun is None or ago <= (now - begun).total_seconds())


def _finding(
    summary: str,
    evidence: tuple[Evidence, ...],
    advice: str,
    *commands: str,
    pending: Pending,
    found: tuple[Cause, ...],
    first: Fix | None = None,
) -> Finding:
    """Why there is no further node for the pod; what the nodes that are there lack follows from it."""
    return Finding(
        summary=summary,
        evidence=(*evidence, *said_by(pending)),
        explains=(*EXPLAINS, "progress-deadline", *(cause.id for cause in found)),
        fixes=(*filter(None, [first]), fixes.platform(advice, *commands)),
        order=float(len(found)),
    )

"""A deadline of the rollout that is over before the model is loaded."""

import itertools
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from kubectl_llmdoctor.api import (
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    Container,
    Event,
    Evidence,
    Finding,
    Fix,
    Phase,
    Pod,
    Subject,
    Workload,
    check,
    dig,
    duration,
    escaped,
    event_evidence,
    events_of,
    fixes,
    k8s,
    phase_of,
    pod_evidence,
    say_seconds,
    workload_evidence,
)

#: Kubernetes' and Knative's own.
_DEFAULT_SECONDS = 600
_REASON = "ProgressDeadlineExceeded"
#: Knative's words for the same, which its Services and KServe's objects repeat.
_NEVER = "Initial scale was never achieved"
#: How kstatus, by which Flux and others wait, words it, and the labels of what Flux's helm-controller applies.
_MISSED = "Progress deadline exceeded"
_FLUX = "helm.toolkit.fluxcd.io"
#: Kueue's word on pods that it takes away (pkg/controller/core/workload_controller.go). One may have had a bad start.
_NOT_IN_TIME, _OFTEN, _LATELY = "Exceeded the PodsReady timeout", 2, timedelta(hours=1)
_ANNOTATION = "serving.knative.dev/progress-deadline"
#: Who makes a revision, and by which label of its pods it is known.
_MAKERS = (
    ("InferenceService", INFERENCE_SERVICE),
    ("Service.serving.knative.dev", KNATIVE_SERVICE),
)
#: What a container waits for before its first start.
_BEING_MADE = ("ContainerCreating", "PodInitializing")
#: How long a machine with GPUs may take until it offers them: it is made, boots, and may get its driver first.
_MACHINE_SECONDS = 1800


@check("progress-deadline", since="0.2", severity="warning")
def progress_deadline(subject: Subject) -> Iterator[Finding]:
    """The deadline of the rollout is shorter than the load time of the model.

    A Deployment that makes no progress for `progressDeadlineSeconds` (600 by default) is reported as failed:
    ProgressDeadlineExceeded. Its pods go on loading, but `kubectl rollout status`, Helm's `--wait` and Argo CD give up, and
    some pipelines roll back. Knative is stricter: a revision that is not ready within its progress deadline (600 s, set by
    the annotation `serving.knative.dev/progress-deadline`) is marked as failed and scaled to zero. KServe's plain mode
    makes Deployments with 600 s. Kueue, where it waits for pods to be ready, takes them away again when they are not within
    `waitForPodsReady.timeout` (5 minutes unless told otherwise), and admits them again.

    It is a risk where the deadline is shorter than the start that the pod's own startup probe allows, and a note where a
    Deployment has the default or more.

    ## Fix

    Let the deadline be longer than the budget of the startup probe:

        progressDeadlineSeconds: 2400

    ## References

    - https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#progress-deadline-seconds
    - https://knative.dev/docs/serving/configuration/deployment/#configuring-progress-deadlines
    """
    told = list(_exceeded(subject))
    if told and not subject.exists and not subject.static and any(_gave_up(evidence) for evidence in told):
        yield _given_up(told, subject.workload)
        return
    yield from _release_failed(subject)
    yield from _by_kueue(subject)
    for pod in subject.pods:
        yield from itertools.islice(_of_pod(pod, subject, told), 1)


def _by_kueue(subject: Subject) -> Iterator[Finding]:
    """Pods that Kueue took away since they were not ready in time, of which the present ones run and load."""
    there = [pod for pod in subject.pods if pod.exists]
    loads = [p for p in there if p.scheduled and not p.ready and {t.kind for t in p.troubles} <= {"not-ready"}]
    if not loads or len(loads) < len(there):
        return
    gone, seconds = _taken(subject, loads)
    if len(gone) < _OFTEN:
        return
    within = f" within {say_seconds(seconds)} of their admission" if seconds else " in time"
    yield Finding(
        summary=f"Kueue has taken away {len(gone)} pods of {subject.workload.ref if subject.workload else 'it'} within the last hour "
        f"because they were not ready{within}, and begins with a new one each time.",
        evidence=tuple(event_evidence(event, subject.cluster) for event in gone[-3:]),
        explains=("not-ready", "rollout-stuck", "slow-load"),
        fixes=(
            fixes.platform(
                "Set waitForPodsReady.timeout in Kueue's configuration (ConfigMap kueue-manager-config) above what the model takes to load"
            ),
            fixes.advice("Have the model load faster: its files on a volume that lasts, a local copy"),
        ),
    )


def _taken(subject: Subject, loads: list[Pod]) -> tuple[list[Event], float]:
    """What Kueue says of late of pods that it took away in place of these, oldest first, and the longest time that one had."""
    makers = "|".join(re.escape(owner.name) for pod in loads for owner in pod.obj.metadata.owner_references)
    names, now = {pod.name for pod in loads}, subject.cluster.now
    ends: list[tuple[datetime, Event]] = []
    begun: dict[str, list[datetime]] = {}
    for event in events_of(subject.cluster).of_kind("Pod"):
        ours = event.name in names or re.fullmatch(rf"(?:{makers})-[a-z0-9]{{5}}", event.name)
        if event.namespace != subject.namespace or not ours or event.last is None or now is None:
            continue
        if event.reason == "Started" and "Admitted by" in event.message:
            begun.setdefault(event.name, []).append(event.last)
        elif event.reason == "Stopped" and _NOT_IN_TIME in event.message and now - event.last < _LATELY:
            ends.append((event.last, event))
    ends.sort(key=lambda end: end[0])
    spans = ((at - since).total_seconds() for at, event in ends for since in begun.get(event.name, ()) if since < at)
    return [event for _, event in ends], max(spans, default=0.0)


def _release_failed(subject: Subject) -> Iterator[Finding]:
    """A release of Flux that stands as failed, since the Deployment missed its deadline, although its pods came up later."""
    workload = subject.workload
    there = [pod for pod in subject.pods if pod.exists]
    up = bool(there) and all(pod.ready for pod in there)  # else it is told below how far it has come
    if workload is None or workload.kind != "Deployment" or not up:
        return
    labels = workload.item.labels
    name, space = labels.get(f"{_FLUX}/name"), labels.get(f"{_FLUX}/namespace") or subject.namespace
    release = subject.cluster.item("HelmRelease", space, name) if name else None
    condition = release.condition("Ready", "False") if release else None
    if condition and _MISSED in condition.message and f"/{workload.name} " in condition.message:
        rolled = _rolled(there[0], subject)
        typed = rolled.item.typed() if rolled else None
        own = typed.spec.progress_deadline_seconds if isinstance(typed, k8s.Workload) else None
        seconds = own if own is not None else _DEFAULT_SECONDS
        yield Finding(
            summary=f"HelmRelease/{name} stands as failed: {workload.ref} was not ready within {say_seconds(seconds)}, and is ready now.",
            evidence=(
                Evidence(source="workload", ref=f"HelmRelease/{name} status.conditions[Ready]", text=condition.text),
                workload_evidence(
                    workload,
                    "spec.progressDeadlineSeconds",
                    str(own) if own is not None else f"not set, {seconds} by default",
                ),
            ),
            explains=("rollout-stuck",),
            fixes=(
                *_fixes(workload, None, seconds * 3),
                fixes.advice(
                    f"Have Flux try the release again: flux reconcile helmrelease {name} -n {space} --reset --force",
                    f"flux reconcile helmrelease {name} -n {space} --reset --force",
                ),
            ),
        )
        return


def _given_up(told: list[Evidence], workload: Workload | None) -> Finding:
    """A revision that Knative has given up, whose pod is gone or goes: how far it had come is nowhere to be seen."""
    stated = duration(str(workload.item.annotations.get(_ANNOTATION) or "")) if workload else None
    inner = dig(workload.raw, "spec.template.metadata.annotations") if workload else None
    if isinstance(inner, dict) and (own := duration(str(inner.get(_ANNOTATION) or ""))):
        stated = own
    seconds = int(max(stated or 0, _DEFAULT_SECONDS) * 3)
    return Finding(
        severity="critical",
        confidence="possible",
        summary="The rollout has passed its deadline; Knative gave it up and took its pod away before it was ready.",
        evidence=tuple(told),
        explains=("rollout-stuck",),
        fixes=(_handed_on(workload, seconds) if workload else None)
        or (fixes.advice(f"Set the annotation {_ANNOTATION}: {seconds}s on the revision's template"),),
    )


def _exceeded(subject: Subject) -> Iterator[Evidence]:
    """Conditions of the target, and of the revision that it belongs to, that say so."""
    for workload in subject.platform:
        item = workload.item
        for condition in item.conditions:
            if (condition.reason == _REASON or _NEVER in condition.message) and condition.status == "False":
                yield Evidence(
                    source="workload",
                    ref=f"{item.plain_kind}/{item.name} status.conditions[{condition.type}]",
                    text=condition.text,
                )


def _loads(pod: Pod, container: Container) -> bool:
    """Whether a pod is on its way, and nothing has gone wrong with it."""
    ended = any(c.terminated for c in pod.containers if c.role == "main")
    begun = bool(container.running) or any(c.running for c in pod.containers if c.role == "init")
    return pod.exists and begun and not ended and all(t.kind == "not-ready" for t in pod.troubles)


def _pulled(pod: Pod) -> bool:
    """Whether a pod has its node and nothing is wrong with it but that its images take long: the last word is that one is pulled."""
    waits = (c.waiting.reason in _BEING_MADE if c.waiting else False for c in pod.containers if c.role == "main")
    said = [(e.last, e.reason) for e in pod.events if e.last and e.reason != "FailedScheduling"]
    return pod.exists and all(waits) and bool(said) and max(said)[1] == "Pulling"


def _before_its_node(pod: Pod, workload: Workload, told: list[Evidence], deadline: float) -> Finding:
    """Knative has given a revision up whose pod waits for a node that an autoscaler makes."""
    return Finding(
        summary=f"{workload.ref} was given up after {say_seconds(deadline)}, while {pod.name} still waits for the node that is being made "
        "for it.",
        evidence=tuple(told),
        explains=("pod-pending", "rollout-stuck", "gpu-insufficient", "gpu-resource-absent"),
        fixes=tuple(_fixes(_maker(pod, workload), None, int(max(deadline * 3, _MACHINE_SECONDS)))),
        pods=(pod.name,),
    )


def _maker(pod: Pod, workload: Workload) -> Workload:
    """What a person edits in a revision's place: nobody may change one."""
    for kind, label in _MAKERS if workload.kind == "Revision" else ():
        if item := pod.cluster.item(kind, pod.namespace, pod.labels.get(label, "")):
            return Workload(item, pod.cluster)
    return workload


class _Passed(msgspec.Struct, frozen=True):
    """A deadline of a workload, or of what an operator makes of it: where it stands, and what says that it has passed."""

    seconds: float
    evidence: Evidence
    workload: Workload
    made: Workload | None
    told: list[Evidence]

    @property
    def given_up(self) -> bool:
        """Whether somebody says that it gave the workload up."""
        return any(map(_gave_up, self.told))

    def longer(self, least: float = 0) -> tuple[Fix, ...]:
        """Three times the deadline, or more."""
        return tuple(_fixes(self.workload, self.made, int(max(self.seconds * 3, least))))


def _of_pod(pod: Pod, subject: Subject, told: list[Evidence]) -> Iterator[Finding]:
    """What a deadline did to a pod, or will do: before it had a node, while it was made, while it loads."""
    workload = subject.workload
    found = _deadline(pod, subject, told)
    if workload is None or found is None:
        return
    seconds, evidence = found
    given_up = any(map(_gave_up, told))
    if pod.unscheduled and given_up and pod.promised_node(_MACHINE_SECONDS):
        yield _before_its_node(pod, workload, [*told, evidence], seconds)
        return
    made = next((w for w in subject.platform if w is not workload and evidence.ref.startswith(f"{w.ref} ")), None)
    if workload.kind == "Revision" and given_up:
        workload, made = _maker(pod, workload), None  # its Deployment has the deadline that the annotation gives it
    elif made:
        told = [said for said in told if said.ref.startswith(f"{made.ref} ")]
    passed = _Passed(seconds, evidence, workload, made, told)
    if told and pod.scheduled and (pod.being_made or _pulled(pod)):
        yield _while_it_is_made(pod, passed)
        return
    engines = [engine.container for engine in subject.engines(pod)]
    for container in engines or [c for c in pod.containers if c.role == "main"]:
        phase = phase_of(subject.logs(pod).current(container.name))
        if late := _of_container(pod, container, phase, passed, loads=bool(engines)):
            yield late
            return


def _while_it_is_made(pod: Pod, passed: _Passed) -> Finding:
    return Finding(
        confidence="likely" if pod.being_made else "possible",
        summary=f"{passed.workload.ref} was given up after {say_seconds(passed.seconds)}, while the containers of {pod.name} are still "
        "being made.",
        evidence=(*passed.told, passed.evidence),
        explains=("not-ready", "rollout-stuck"),
        fixes=passed.longer(_MACHINE_SECONDS),
        pods=(pod.name,),
    )


def _of_container(
    pod: Pod, container: Container, phase: Phase | None, passed: _Passed, *, loads: bool
) -> Finding | None:
    """A server that still loads, or has gone since, or whose own probe allows more time than the deadline."""
    if passed.told and _loads(pod, container) and _on_its_way(container, phase, passed.told, passed.seconds):
        return Finding(
            confidence="likely" if phase else "possible",
            summary=f"{passed.workload.ref} was given up after {say_seconds(passed.seconds)}; {_doing(container, phase)}.",
            evidence=(*passed.told, passed.evidence),
            explains=("rollout-stuck", "not-ready"),
            fixes=passed.longer(),
            pods=(pod.name,),
        )
    if phase is None and pod.leaving and passed.given_up and _loads(pod, container):
        return _given_up(passed.told, passed.workload)
    probe = container.spec.startup_probe
    # the two are often meant to be the same, with a delay on top
    if not pod.exists and probe is not None and probe.budget > passed.seconds * 1.1:
        return _too_short(container, probe, passed.seconds, passed.evidence, passed.workload, passed.made, loads=loads)
    return None


def _on_its_way(container: Container, phase: Phase | None, told: list[Evidence], deadline: float) -> bool:
    """Whether a container still loads: by its log, else since it is not ready and may be within the time that it needs."""
    if phase:
        return phase.name != "serving"
    return not container.pod.ready and (any(map(_gave_up, told)) or _may_yet(container, deadline))


def _doing(container: Container, phase: Phase | None) -> str:
    """What a container does while its rollout is given up, in words."""
    if not container.running:
        init = next((c.name for c in container.pod.containers if c.role == "init" and c.running), "")
        return f"its init container {init} is still at work"
    return f"{container.name} runs since its first start and is {f'still {phase.doing}' if phase else 'not ready yet'}"


def _too_short(
    container: Container,
    probe: k8s.Probe,
    deadline: float,
    evidence: Evidence,
    workload: Workload,
    made: Workload | None,
    *,
    loads: bool,
) -> Finding:
    """A deadline of a rollout before the end of what a startup probe allows; not every program loads a model."""
    strict = _knative(workload)
    doing = "the model still loads" if loads else "it still starts"
    after = "marked as failed and scaled to zero" if strict else f"reported as failed while {doing}"
    return Finding(
        # a Deployment that misses it harms only who waits for it, and whoever set more than the default had the load in mind
        role="risk" if strict or deadline < _DEFAULT_SECONDS else "note",
        summary=f"The startup probe of {container.name} gives it {say_seconds(probe.budget)}, the rollout {say_seconds(deadline)}: "
        f"a start that takes longer is {after}.",
        evidence=(
            evidence,
            pod_evidence(container, "startupProbe", f"{probe.failure_threshold} x {probe.period_seconds} s"),
        ),
        fixes=tuple(_fixes(workload, made, probe.budget + _DEFAULT_SECONDS)),
    )


def _may_yet(container: Container, deadline: float) -> bool:
    """Whether its own startup probe still waits for it, or, without one, it has not had as long as the rollout: its node came late."""
    probe, ran = container.spec.startup_probe, container.pod.cluster.seconds_since(container.started)
    return ran is not None and ran < (probe.budget if probe else deadline)


def _knative(workload: Workload) -> bool:
    return workload.item.kind == "Service.serving.knative.dev" or workload.kind == "InferenceService"


def _gave_up(evidence: Evidence) -> bool:
    """Whether it is Knative that gave up, not a Deployment."""
    return evidence.ref.startswith("Revision/") or _NEVER in evidence.text


def _deadline(pod: Pod, subject: Subject, told: list[Evidence]) -> tuple[float, Evidence] | None:
    """Seconds, and what says so; None where no such deadline applies or it is not known."""
    workload = subject.workload
    if workload is None:
        return None
    stated = pod.annotations.get(_ANNOTATION) or workload.item.annotations.get(_ANNOTATION)
    if stated is not None and _knative(workload):
        seconds = duration(str(stated))
        evidence = workload_evidence(workload, f"annotations[{_ANNOTATION}]", str(stated))
        return (seconds, evidence) if seconds else None
    # an InferenceService may be served by a plain Deployment, too
    if workload.item.kind == "Service.serving.knative.dev" or (_knative(workload) and any(map(_gave_up, told))):
        return _DEFAULT_SECONDS, workload_evidence(workload, f"annotations[{_ANNOTATION}]", "not set, 600s by default")
    rolled = _rolled(pod, subject)
    typed = rolled.item.typed() if rolled else None
    if rolled is None or not isinstance(typed, k8s.Workload):
        return None
    own = typed.spec.progress_deadline_seconds
    text = str(own) if own is not None else f"not set, {_DEFAULT_SECONDS} by default"
    return own if own is not None else _DEFAULT_SECONDS, workload_evidence(rolled, "spec.progressDeadlineSeconds", text)


def _rolled(pod: Pod, subject: Subject) -> Workload | None:
    """The Deployment of a pod: the target itself, or what an operator made of it."""
    owners = list(pod.cluster.chain(pod.item)) if pod.item else []
    for workload in subject.platform:
        if workload.kind == "Deployment" and (
            workload is subject.workload or any(workload.item is owner for owner in owners)
        ):
            return workload
    return None


def _fixes(workload: Workload, made: Workload | None, seconds: int) -> Iterator[Fix]:
    """`made` is the Deployment whose deadline it is, where an operator makes it of the workload."""
    if made:
        yield fixes.advice(
            f"Have what waits for {made.ref} wait {say_seconds(seconds)}: its pods go on loading. {workload.ref} is made into "
            "it, and its progressDeadlineSeconds is changed there, if that has a field for it"
        )
        return
    summary = f"Let the rollout wait {say_seconds(seconds)}, in {workload.ref}"
    if workload.kind == "Deployment":
        yield fixes.set_field(workload.item, "/spec/progressDeadlineSeconds", seconds, summary, op="add")
    elif handed := _handed_on(workload, seconds):
        yield from handed
    else:
        yield fixes.advice(f"{summary}: annotation {_ANNOTATION}: {seconds}s")


def _handed_on(workload: Workload, seconds: int) -> tuple[Fix, ...]:
    """The annotation where it comes from to Knative's revision; nothing where the object has no place for it."""
    summary, key = f"Let the rollout wait {say_seconds(seconds)}, in {workload.ref}", escaped(_ANNOTATION)
    if workload.kind == "InferenceService":
        text, path = f"{summary}: KServe hands its annotation on to the revision", f"/metadata/annotations/{key}"
    elif isinstance(dig(workload.raw, "spec.template"), dict):
        text, path = summary, f"/spec/template/metadata/annotations/{key}"
    else:
        return ()
    return (fixes.set_field(workload.item, path, f"{seconds}s", text, op="add"),)

"""What the controller says of an autoscaler, and KEDA: that it gets no value, cannot be used, or reads nothing."""

import itertools
import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Log,
    Logs,
    Metrics,
    Pod,
    Subject,
    condition_evidence,
    dig,
    expression,
    fixes,
    object_evidence,
    parse_time,
    pointer_to,
    rows,
    say_seconds,
)
from llmdoctor_checks.scheduling._words import sentence
from llmdoctor_checks.serving._autoscaler_queue import lasting_queue, measured_queue, stays
from llmdoctor_checks.serving._autoscaling import Scaler, absent, cache_metric, of_others_alone, queue_metric, renamed

#: What has no value for so long is not only restarting.
_LASTS_SECONDS = 600

#: Who turned so often within an hour, up and down, flaps: of one rise and fall each step is an event of its own. A window that is shorter
#: than what Kubernetes takes for granted lets it, and one of ten minutes outlasts the loading of most models.
_FLAPS, _HOUR, _WINDOW, _LONGER_WINDOW = 3, timedelta(hours=1), 300, 600
#: The controller looks every 15 seconds.
_MOST_AN_HOUR = 240

#: Why the controller does not even ask for a value (`horizontal.go`, validateAndParseSelector), in words, and else.
_NO_PODS = {
    "InvalidSelector": "cannot tell which pods it scales for {}",
    "AmbiguousSelector": "shares the pods of {} with another autoscaler",
}
_NO_VALUE = "gets no value of the metric by which it scales {}"

#: By which reasons it says in an event that it got no value (`horizontal.go`), and in which words.
_NO_METRIC = tuple(f"FailedGet{kind}Metric" for kind in ("Pods", "Object", "External", "Resource", "ContainerResource"))
_NO_METRIC += ("FailedComputeMetricsReplicas",)
_UNREAD = r"unable to (?:get|fetch) metric|no metrics returned"

#: How KEDA calls the metric of a trigger, by its number, and how its operator says that one cannot be read (scale_handler.go).
_FAILING = expression(r"s(\d{1,3})-")
_EMPTY = "the result is empty"
_SCALE_DECISION, _ITS_ERROR = "error getting scale decision", expression(r'"error": ?"((?:[^"\\]|\\.){1,1500})"')

#: What KEDA calls a trigger that it cannot read, and a ScaledObject that it makes no autoscaler of.
_REFUSED = ("KEDAScalerFailed", "ScaledObjectCheckFailed")


def as_it_says(
    pod: Pod, engine: Engine, scaler: Scaler, subject: Subject, rescale: Fix, logs: Logs | None, metrics: Metrics | None
) -> Finding | None:
    """What its own status says is wrong with an autoscaler."""
    return (
        _gets_nothing(pod, engine, scaler, rescale, logs)
        or _not_used(pod, engine, scaler, subject)
        or _reads_nothing(pod, engine, scaler, logs, metrics)
    )


def _gets_nothing(pod: Pod, engine: Engine, scaler: Scaler, rescale: Fix, logs: Logs | None) -> Finding | None:
    """What the controller says: it gets no value, although there is a pod to ask."""
    if pod.exists and not pod.ready:
        return None
    hpa = _acts(scaler, pod.cluster)
    acting = msgspec.structs.replace(scaler, item=hpa)
    for row in rows(hpa.raw, "status.conditions") or _by_events(acting, pod.cluster):
        inactive = (row.get("type"), row.get("status")) == ("ScalingActive", "False")
        reason = str(row.get("reason"))
        if inactive and (reason.startswith("FailedGet") or reason in (*_NO_METRIC, *_NO_PODS)):
            said = f"{reason}: {row.get('message') or ''}".rstrip(": ")
            queue = lasting_queue(pod, engine, acting, logs)
            waits = f" Meanwhile {queue[0]}, and {stays(acting)}." if queue else ""
            told = _for_long(acting, row, pod.cluster) if not queue else None
            if told:
                waits = f" It has said so for {told[0]}."
            gone = next((found for look in scaler.looks if (found := absent(engine, look.name))), None)
            if gone and pod.exists:
                waits += f" {engine.label} does not emit {gone[0]}; it has {gone[1]}."
            return Finding(
                role="cause" if queue or told or (gone and pod.exists) else "risk",
                severity="warning",
                confidence="certain",
                summary=f"{scaler.ref} {_NO_PODS.get(reason, _NO_VALUE).format(engine.label)}, and does nothing.{waits}",
                evidence=(
                    row.get("event") or acting.evidence("status.conditions[ScalingActive]", said),
                    *scaler.quoted,
                    *((queue[1],) if queue else ()),
                    *(told[1] if told else ()),
                ),
                explains=("queue-growing", "kv-cache-saturated") if queue else (),
                fix=_selectable(scaler, reason) if reason in _NO_PODS else _lookup(pod, engine, scaler, rescale),
            )
    return None


def _by_events(scaler: Scaler, cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The same as a condition, by the controller's events, of an autoscaler whose conditions were not read."""
    for reason in _NO_METRIC:
        for raw, said in _events(scaler, reason, cluster):
            ago = cluster.seconds_since(raw.get("lastTimestamp"))
            # beside one metric that cannot be read it goes by the others
            some = re.search(r"\((\d{1,3}) invalid out of (\d{1,3})\)", said.text)
            every = some[1] == some[2] if some else len(scaler.looks) == 1
            if ago is not None and ago <= _LASTS_SECONDS and every and re.search(_UNREAD, said.text):
                told = {"reason": reason, "message": said.text, "event": said}
                yield {"type": "ScalingActive", "status": "False", **told}


def _not_used(pod: Pod, engine: Engine, scaler: Scaler, subject: Subject) -> Finding | None:
    """What KEDA says of a ScaledObject that it cannot use as it stands, so that it scales nothing."""
    if scaler.item.plain_kind != "ScaledObject":
        return None
    said = scaler.item.condition("Ready", "False")
    if said is None:
        return None
    # the condition often says only that the triggers failed
    events = [said for _, said in _events(scaler, "KEDAScalerFailed", pod.cluster)]
    why = events[-1].text if events else said.message or said.reason
    # at zero replicas KEDA alone could make one
    asleep = subject.workload is not None and subject.workload.replicas == 0 and scaler.minimum == 0
    told = next((told for reason in _REFUSED if (told := _for_long(scaler, {"reason": reason}, pod.cluster))), None)
    told = told or _never_made(scaler, said.reason, pod.cluster)
    lasts = told is not None and pod.exists and pod.ready
    return Finding(
        role="cause" if asleep or lasts else "risk",
        severity="warning",
        confidence="likely" if asleep else "certain",
        summary=f"KEDA cannot use {scaler.ref} as it stands and scales {engine.label} by nothing: {sentence(why)}"
        + (" There are 0 replicas, and nothing else makes one." if asleep else "")
        + (f" It has said so for {told[0]}." if told and lasts else ""),
        evidence=(*events[-1:], condition_evidence(scaler.item, said), *scaler.quoted),
        explains=("scale-from-zero-blind",),
        fix=_corrected(scaler, why),
    )


def _corrected(scaler: Scaler, why: str) -> Fix:
    """What mends a trigger, by KEDA's word for what is wrong with it (pkg/scalers/prometheus_scaler.go)."""
    command = f"kubectl -n {scaler.item.namespace} {{}} scaledobject {scaler.item.name}"
    asked = [
        str(dig(row, "metadata.query") or "")
        for row in rows(scaler.item.raw, "spec.triggers")
        if row.get("type") == "prometheus"
    ]
    query = f" ({asked[0][:160]})" if len(asked) == 1 and asked[0] else ""
    if missing := re.search(r'missing required parameter "([\w.-]{1,80})"', why):
        text = f"Give the trigger of {scaler.ref} the {missing[1]} that it lacks"
    elif _EMPTY in why or "the value list is empty" in why:
        text = (
            f"Correct the query of {scaler.ref}{query}, which has no result: try it in Prometheus with the names and labels of the series "
            "that are there; where none may be there at times, take out ignoreNullValues: 'false', so that none counts as 0"
        )
    elif "returned multiple elements" in why:
        text = f"Have the query of {scaler.ref} give one value: sum(…) or max(…) around it{query}"
    elif "api returned error. status: 400" in why:
        text = f"Correct the query of {scaler.ref}, which Prometheus cannot read (400){query}"
    elif status := re.search(r"api returned error\. status: (401|403)", why):
        text = f"Give the trigger of {scaler.ref} authModes and an authenticationRef that Prometheus takes, which refuses it ({status[1]})"
    elif others := _other_sources(scaler, why):
        text = others
    elif unknown := re.search(r"lookup (?P<host>[\w.-]{1,253})\b.{0,60}no such host", why):
        text = (
            f"Correct serverAddress in the trigger of {scaler.ref}: KEDA's operator does not reach {unknown['host']} "
            "(SERVICE.NAMESPACE.svc and the port of its Service)"
        )
    elif status := re.search(r"api returned error\. status: (5\d\d)", why):
        text = f"See why Prometheus, or a proxy before it, answers {status[1]} to the trigger of {scaler.ref}"
    elif "x509:" in why:
        text = (
            f"Let KEDA's operator trust the certificate of serverAddress in the trigger of {scaler.ref} (its authority at /custom/ca of "
            "the operator, --ca-dir), or have the address name what the certificate is for"
        )
    elif "deadline exceeded" in why:
        text = (
            "See that Prometheus answers KEDA's operator in time: a NetworkPolicy between them, its load, the query of "
            f"{scaler.ref}{query}"
        )
    elif gone := re.search(r"dial tcp (?P<at>[\d.:\[\]a-f]{3,60}): ", why):
        text = (
            f"See that Prometheus runs at {gone['at']} and that no NetworkPolicy keeps KEDA's operator from it, or correct serverAddress "
            f"in the trigger of {scaler.ref} (SERVICE.NAMESPACE.svc and the port of its Service)"
        )
    else:
        return fixes.advice(f"Correct what it names in {scaler.ref}", command.format("describe"))
    return fixes.advice(text, command.format("edit"))


def _other_sources(scaler: Scaler, why: str) -> str:
    """What to do where a trigger that asks no Prometheus is not let in or does not get through; empty elsewhere."""
    kinds = sorted({str(row.get("type")) for row in rows(scaler.item.raw, "spec.triggers")})
    if "prometheus" in kinds or not kinds:
        return ""
    asked = f"what the trigger of {scaler.ref} asks ({', '.join(kinds)})"
    if "x509:" in why:
        return (
            f"Let KEDA's operator trust the certificate of {asked}: its authority at /custom/ca of the operator (--ca-dir) or in the "
            "TriggerAuthentication, or an address that the certificate is for"
        )
    at = re.search(
        r"dial tcp (?:lookup )?(?P<at>[\w.:\[\]-]{3,260}?)(?: on [\d.:]{7,30})?: ",
        why.replace("tcp: lookup", "tcp lookup"),
    )
    if at is not None:
        return (
            f"See that {asked} runs at {at['at']} and that no NetworkPolicy keeps KEDA's operator from it, or correct the address in its "
            "metadata"
        )
    if "deadline exceeded" in why:
        return f"See that {asked} answers KEDA's operator in time: the address in its metadata, a NetworkPolicy between them, its load"
    return ""


def _never_made(scaler: Scaler, reason: str, cluster: Cluster) -> tuple[str, tuple[Evidence, ...]] | None:
    """The same by the age of a ScaledObject of which KEDA made no autoscaler yet: its conditions have no times."""
    age = cluster.seconds_since(scaler.item.metadata.get("creationTimestamp"))
    unmade = reason in _REFUSED and not dig(scaler.item.raw, "status.hpaName")
    return (say_seconds(age), ()) if unmade and age is not None and age >= _LASTS_SECONDS else None


def _reads_nothing(
    pod: Pod, engine: Engine, scaler: Scaler, logs: Logs | None, metrics: Metrics | None
) -> Finding | None:
    """Everything that it looks at is zero, by its own word, while the engine says that requests run and wait.

    Whatever says something of this engine's load is more than that; a query that finds no series is zero to KEDA.
    """
    hpa = _acts(scaler, pod.cluster)
    acting = msgspec.structs.replace(scaler, item=hpa)
    read = rows(hpa.raw, "status.currentMetrics")
    values = [dig(row, f"{str(row.get('type')).lower()}.current") for row in read if row.get("type") != "Resource"]
    nothing = all(isinstance(x, dict) and str(x.get("averageValue") or x.get("value") or "") == "0" for x in values)
    if not values or len(read) != len(scaler.looks) or len(values) != len(read) or not nothing or not pod.ready:
        return None
    queue = lasting_queue(pod, engine, acting, logs)
    queue = queue or measured_queue(acting, metrics)
    if queue is None:
        return None
    return Finding(
        severity="warning",
        summary=f"{scaler.ref} reads 0 for what it scales {engine.label} on, and does nothing. Meanwhile {queue[0]}, and "
        f"{stays(acting)}: what it asks for finds nothing of this engine.",
        evidence=(object_evidence(hpa, "status.currentMetrics", "0"), *scaler.quoted, queue[1]),
        explains=("queue-growing", "kv-cache-saturated"),
        fix=_by_hand(engine, scaler),
    )


def flaps(pod: Pod, engine: Engine, scaler: Scaler, rescale: Fix) -> Finding | None:
    """Replicas that come and go by the controller's own events, again and again within an hour.

    The requests that wait alone are none as soon as all run, so that full replicas are taken away, and wanted again. With any metric
    a short window lets each dip take some; those who stream from one are cut off, and a new one loads its model first.
    """
    acting = msgspec.structs.replace(scaler, item=_acts(scaler, pod.cluster))
    (more, rescaled_up), (fewer, rescaled_down) = _turns(acting, pod.cluster)
    window = dig(acting.item.raw, "spec.behavior.scaleDown.stabilizationWindowSeconds")
    short = isinstance(window, int) and window < _WINDOW
    # an adapter may name it with an underscore for the colon
    looks = [look.name.replace(":", "_") for look in scaler.looks]
    queue = (queue_metric(engine) or "?").replace(":", "_")
    alone = len(looks) == 1 and queue in looks[0] and not re.search(r"running|usage", looks[0])
    if not (short or alone) or min(more, fewer) < _FLAPS:
        return None
    why = [
        *(("it looks at waiting requests alone, of which there are none as soon as all run",) if alone else ()),
        *((f"a dip of {say_seconds(window)} is enough to take replicas away",) if short else ()),
    ]
    path = "/spec/behavior/scaleDown/stabilizationWindowSeconds"
    own = scaler.item.plain_kind != "ScaledObject"
    at = path if own else path.replace("/spec/", "/spec/advanced/horizontalPodAutoscalerConfig/")
    window_fix = fixes.set_field(
        scaler.item, at, _LONGER_WINDOW, f"Take replicas away only after {say_seconds(_LONGER_WINDOW)}", op="add"
    )
    return Finding(
        role="risk",
        summary=f"{acting.ref} added replicas {more} times within an hour and took some away {fewer} times: {', and '.join(why)}. "
        "Each time the requests of those that go are cut off or waited for, and those that come load their model first.",
        evidence=(
            *rescaled_up,
            *rescaled_down,
            *((acting.evidence(path[1:].replace("/", "."), f"{window}"),) if short else ()),
            *scaler.quoted,
        ),
        fixes=((window_fix,) if short else ()) + ((rescale,) if alone else ()),
    )


def _turns(scaler: Scaler, cluster: Cluster) -> list[tuple[int, tuple[Evidence, ...]]]:
    """How often it began to add replicas within the last hour, and to take some away, each with the last event that says so."""
    both = [_rescales(scaler, words, cluster) for words in (" above target", "All metrics below target")]
    steps = sorted((when, which) for which, (times, _) in enumerate(both) for when in times)
    turns = [which for which, _ in itertools.groupby(steps, key=lambda step: step[1])]
    return [(turns.count(which), shown) for which, (_, shown) in enumerate(both)]


def _rescales(scaler: Scaler, words: str, cluster: Cluster) -> tuple[list[datetime], tuple[Evidence, ...]]:
    """When it changed the number of replicas for a reason within the last hour, and the last event that says so.

    Of what is counted in one event only the first and the last time are known.
    """
    times: list[datetime] = []
    shown: tuple[Evidence, ...] = ()
    for raw, said in _events(scaler, "SuccessfulRescale", cluster):
        first, last = (parse_time(raw.get(key)) for key in ("firstTimestamp", "lastTimestamp"))
        if words not in said.text or first is None or last is None or cluster.now is None:
            continue
        count = raw.get("count")
        often = count if isinstance(count, int) and count > 0 else 1
        apart = (last - first) / max(often - 1, 1)
        moments = [last - n * apart for n in range(min(often, _MOST_AN_HOUR))]
        if recent := [moment for moment in moments if cluster.now - moment <= _HOUR]:
            times, shown = times + recent, (said,)
    return times, shown


def _acts(scaler: Scaler, cluster: Cluster) -> Item:
    """The HorizontalPodAutoscaler whose status tells what an autoscaler does: of a ScaledObject the one that KEDA makes of it."""
    if scaler.item.plain_kind != "ScaledObject":
        return scaler.item
    name = str(dig(scaler.item.raw, "status.hpaName") or f"keda-hpa-{scaler.item.name}")
    return cluster.item("HorizontalPodAutoscaler", scaler.item.namespace, name) or scaler.item


def _for_long(scaler: Scaler, condition: dict[str, Any], cluster: Cluster) -> tuple[str, tuple[Evidence, ...]] | None:
    """For how long it has had no value, and the event that says so, where that is no hiccup of what serves the metrics."""
    seconds = cluster.seconds_since(condition.get("lastTransitionTime"))
    if seconds is not None and seconds >= _LASTS_SECONDS:
        return say_seconds(seconds), ()
    for raw, said in _events(scaler, str(condition.get("reason")), cluster):
        first, last = (parse_time(raw.get(key)) for key in ("firstTimestamp", "lastTimestamp"))
        if first is not None and last is not None and (last - first).total_seconds() >= _LASTS_SECONDS:
            return say_seconds((last - first).total_seconds()), (said,)
    return None


def _events(scaler: Scaler, reason: str, cluster: Cluster) -> Iterator[tuple[dict[str, Any], Evidence]]:
    """What is said of an autoscaler for a reason, the latest last: the event as it is, and as evidence."""
    for item in sorted(cluster.items("Event", scaler.item.namespace), key=_last_said):
        about = item.raw.get("involvedObject") or item.raw.get("regarding")
        here = (str(scaler.item.raw.get("kind")), scaler.item.name)
        if item.raw.get("reason") == reason and (dig(about, "kind"), dig(about, "name")) == here:
            text = str(item.raw.get("message") or item.raw.get("note") or "")
            yield item.raw, Evidence(source="event", ref=f"{scaler.ref} {reason}", text=text)


def _last_said(item: Item) -> float:
    raw = item.raw
    when = raw.get("lastTimestamp") or dig(raw, "series.lastObservedTime") or raw.get("eventTime")
    time = parse_time(when)
    return time.timestamp() if time is not None else 0.0


def _selectable(scaler: Scaler, reason: str) -> Fix:
    """What to do where the autoscaler cannot tell whose replicas it counts."""
    target = dig(scaler.item.raw, "spec.scaleTargetRef")
    what = f"{dig(target, 'kind')}/{dig(target, 'name')}"
    if reason == "AmbiguousSelector":
        return fixes.platform(
            f"Leave one autoscaler to the pods of {what}, or let the selectors of what they scale not overlap",
            f"kubectl -n {scaler.item.namespace} get hpa",
        )
    return fixes.platform(
        f"Give the scale subresource of {what} a selector that is its own, let its operator scale it, or point {scaler.ref} at what "
        "makes the pods",
        f"kubectl -n {scaler.item.namespace} describe hpa {scaler.item.name}",
    )


def _lookup(pod: Pod, engine: Engine, scaler: Scaler, rescale: Fix) -> Fix:
    if all(look.source == "resource" for look in scaler.looks):
        return rescale
    if all(of_others_alone(engine, look.name) for look in scaler.looks if look.source != "resource"):
        return rescale
    if scaler.item.plain_kind != "ScaledObject":
        return _published(pod, engine, scaler)
    gone = absent(engine, scaler.looks[0].name)
    return (
        renamed(scaler, scaler.looks[0], gone)
        if gone
        else _failing_trigger(scaler, pod.cluster) or _by_hand(engine, scaler)
    )


def _published(pod: Pod, engine: Engine, scaler: Scaler) -> Fix:
    """A rule by which prometheus-adapter publishes what an autoscaler asks for, by the series that this release emits."""
    name = next(look.name for look in scaler.looks if look.source != "resource")
    gone, plain = absent(engine, name), re.sub(r"\W", "_", name)
    emitted = [queue_metric(engine), cache_metric(engine)]
    series = next((one for one in emitted if one and re.sub(r"\W", "_", one) == plain), gone[1] if gone else name)
    by = "avg" if series.endswith("_perc") or "usage" in series else "sum"
    rule = (
        f"- {{seriesQuery: '{series}', resources: {{overrides: {{namespace: {{resource: namespace}}, pod: {{resource: pod}}}}}}, "
        f"name: {{as: '{name}'}}, metricsQuery: '{by}(<<.Series>>{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)'}}"
    )
    return fixes.platform(
        f"Publish {series}{'' if series == name else f' as {name}'} by a rule of prometheus-adapter (rules.custom of its chart): {rule}",
        f"kubectl get --raw {shlex.quote(f'/apis/custom.metrics.k8s.io/v1beta1/namespaces/{pod.namespace}/pods/*/{name}')}",
    )


def _failing_trigger(scaler: Scaler, cluster: Cluster) -> Fix | None:
    """What to do where KEDA says of a trigger that it fails: a query that finds no series is zero to it, unless it is told otherwise."""
    health = dig(scaler.item.raw, "status.health")
    failing = [n for n, one in health.items() if dig(one, "status") == "Failing"] if isinstance(health, dict) else []
    told = _FAILING.match(failing[0]) if failing else None
    triggers = rows(scaler.item.raw, "spec.triggers")
    if told is None or int(told[1]) >= len(triggers):
        return None
    trigger, why = triggers[int(told[1])], _why_it_fails(scaler, cluster)
    address = dig(trigger, "metadata.serverAddress")
    if _EMPTY in why or (not why and dig(trigger, "metadata.ignoreNullValues") == "false"):
        return None
    what = f"serverAddress {address}" if address else "what it names"
    return fixes.platform(
        f"Correct {what} in trigger {told[1]} of {scaler.ref}, or its authentication: KEDA gets no answer there"
        + (f" ({why})" if why else "; its operator's log says why"),
        f"kubectl -n {scaler.item.namespace} edit scaledobject {scaler.item.name}",
    )


def _why_it_fails(scaler: Scaler, cluster: Cluster) -> str:
    """What the log of KEDA's operator says last of a ScaledObject, without the request that it made."""
    said = cluster.once(
        "scale decisions",
        lambda: [x.text[:4000] for text in cluster.snapshot.logs for x in Log(text).find(_SCALE_DECISION)],
    )
    whose = (f'"scaledObject.Name":"{scaler.item.name}"', f'"scaledObject.Namespace":"{scaler.item.namespace}"')
    mine = [text for text in said if all(one in text.replace(": ", ":") for one in whose)]
    why = _ITS_ERROR.search(mine[-1]) if mine else None
    return why[1].rpartition('\\": ')[2] if why else ""


def _by_hand(engine: Engine, scaler: Scaler) -> Fix:
    """What to do where a query of KEDA's finds nothing: another label in it, where it has one that no series of the engine has."""
    look = next((look for look in scaler.looks if look.source != "resource"), scaler.looks[0])
    served = engine.value("served_model_name") or engine.value("model")
    model = served if isinstance(served, str) else served[0] if isinstance(served, (list, tuple)) and served else None
    right = {"namespace": engine.container.pod.namespace, "model_name": model}
    # of a gateway's series nobody knows where they are
    own = look.text if engine.name.replace(".", "") in look.name else ""
    for said in re.finditer(r"\b(namespace|model_name|model)(=~?)\"([^\"]{0,200})\"", own):
        label = "model_name" if said[1] == "model" and engine.name in ("vllm", "sglang") else said[1]
        wanted = right.get(label)
        if not isinstance(wanted, str) or (label == said[1] and (said[3] == wanted or said[2] == "=~")):
            continue
        query = look.text.replace(said[0], f'{label}="{wanted}"')
        summary = f'Ask for {label}="{wanted}" in place of {said[0]}, which no series of {engine.title} has'
        if look.path.endswith("query"):
            return fixes.set_field(scaler.item, pointer_to(look.path), query, summary, owner="platform")
    return fixes.platform(
        f"Put what {scaler.ref} asks for to Prometheus by hand ({look.text[:200]}), and correct the labels in it that no series has (the "
        "name of a pool, namespace, model), or let the metrics be scraped",
        f"kubectl -n {scaler.item.namespace} describe scaledobject {scaler.item.name}",
    )

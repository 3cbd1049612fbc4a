"""A queue that lasts while an autoscaler could add a replica and does not."""

from kubectl_llmdoctor.api import Engine, Evidence, Logs, Metrics, Pod, Subject, dig, log_evidence, seconds_between
from llmdoctor_checks._load import last_load, recent_load, works
from llmdoctor_checks.serving._autoscaling import Scaler
from llmdoctor_checks.serving._saturation import load_of

#: Fewer that wait are a burst; a queue that is longer by this factor than a few minutes ago grows.
_QUEUE, _GROWS = 10, 1.5
#: Two looks so far apart are no burst, and then so few that wait are a queue, where they are half as many as run.
_APART_SECONDS, _FEW, _HALF = 110, 4, 2
#: Who has added a replica so short a time ago may have a queue: the new one starts for so long.
_JUST_SCALED_SECONDS = 600


def lasting_queue(
    pod: Pod, engine: Engine, scaler: Scaler, logs: Logs | None, subject: Subject | None = None
) -> tuple[str, Evidence] | None:
    """A queue that lasts, and grows or is longer than what runs, where the autoscaler could add a replica."""
    said = recent_load(engine.container, logs)
    if not said or not works(pod, said) or not stays(scaler, subject):
        return None
    last, grows = said[-1], said[-1].waiting >= _GROWS * said[0].waiting
    if any(load.waiting < (_QUEUE if grows else max(_QUEUE, load.running)) for load in said):
        return None
    return f"{last.waiting} requests wait while {last.running} run", log_evidence(last.line)


def seen_queue(
    pod: Pod, engine: Engine, scaler: Scaler, logs: Logs | None, metrics: Metrics | None
) -> tuple[str, Evidence] | None:
    """A queue in the few statements of a log that was cut down, or in two looks at the metrics, that does not get shorter.

    That alone may be a burst; beside an autoscaler that by its own status adds nothing it is probably none.
    """
    said = last_load(engine.container, logs)
    if not stays(scaler) or _just_scaled(pod, scaler):
        return None
    apart = (seconds_between(said[0].line, said[-1].line) or 0) if said else 0
    if apart >= _APART_SECONDS and works(pod, said):
        last, least = said[-1], min(load.waiting - max(load.running // _HALF, _QUEUE) for load in said)
        if least >= 0 and last.waiting >= said[0].waiting:
            return f"{last.waiting} requests wait while {last.running} run", log_evidence(last.line)
    waiting, running = (metrics.span(name) if metrics else None for name in ("waiting", "running"))
    if waiting is None or running is None or waiting.seconds < _APART_SECONDS:
        return None
    if min(waiting.values) < max(_FEW, running.last // _HALF) or waiting.last < waiting.points[0][1]:
        return None
    return f"{waiting.last:.0f} requests wait while {running.last:.0f} run", waiting.evidence()


def _just_scaled(pod: Pod, scaler: Scaler) -> bool:
    """Whether its number of replicas changed a short while ago."""
    ago = pod.cluster.seconds_since(dig(scaler.item.raw, "status.lastScaleTime"))
    return ago is not None and ago < _JUST_SCALED_SECONDS


def measured_queue(scaler: Scaler, metrics: Metrics | None) -> tuple[str, Evidence] | None:
    """The same by the metrics of the last hour."""
    load = load_of(metrics)
    if load is None or not load.queues or load.drains or min(load.recent.waiting.values) < _QUEUE or not stays(scaler):
        return None
    return f"{load.waiting.last:.0f} requests wait while {load.running.last:.0f} run", load.waiting.evidence()


def stays(scaler: Scaler, subject: Subject | None = None) -> str:
    """How many replicas it has, in words; empty where that is not known, it could add none, or adds some now."""
    replicas = dig(scaler.item.raw, "status.currentReplicas")
    if replicas is None and subject is not None and subject.workload is not None:
        replicas = subject.workload.replicas  # a ScaledObject keeps no count of its own
    wanted = dig(scaler.item.raw, "status.desiredReplicas")
    could = isinstance(replicas, int) and replicas < scaler.maximum
    could = could and not (isinstance(wanted, int) and wanted > replicas)
    return f"it stays at {replicas} of {scaler.maximum} replicas" if could else ""

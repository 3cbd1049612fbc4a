"""Host memory of a server that runs: that grows, that is as good as full, or for which it was killed some time ago."""

import itertools
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Hardware,
    Logs,
    Metrics,
    Pod,
    Span,
    Subject,
    parse_time,
    pod_evidence,
    say_bytes,
    say_seconds,
)
from llmdoctor_checks.memory._memory_limit import GROWS, raised, stated
from llmdoctor_checks.memory._prompt_cache import Greed, prompt_cache

#: A container that is this full, and fills up within this time, is on its way to its limit.
_NEARLY_FULL, _SOON_SECONDS = 0.7, 24 * 3600

#: For so long memory has to grow: loading a model ends sooner.
_GROWING_SECONDS = 1800

#: What grows little within an hour counts from this share of the limit on, where each tenth of the time has more than the one before, and
#: so long after the start that caches have filled.
_NEARLY_THERE, _PARTS, _NO_SLOWER, _FILLED_SECONDS = 0.85, 10, 0.8, 6 * 3600

#: From this share on of what cannot be taken back a limit is as good as reached.
_FULL = 0.95

#: A kill is remembered for so long, and until the server has run so many times as long as before it.
_REMEMBERED_DAYS, _LONG_SURE = 7, 2

#: So many restarts, as far apart as this one: it goes on, and is what is wrong.
_OFTEN = 3


def of_running(
    pod: Pod, logs: Logs | None, subject: Subject, hardware: Hardware | None, metrics: Metrics | None
) -> Iterator[Finding]:
    """What will be killed, or killed again, of a pod that serves."""
    if metrics is not None:
        yield from _trend(metrics, subject, logs)
    for container in pod.containers:
        grown = _growth(metrics) if metrics is not None and metrics.container is container else None
        yield from _before(pod, container, subject, logs, grown)
        if hardware is not None:
            yield from _nearly(container, hardware, subject, logs)


class _Growth(msgspec.Struct, frozen=True):
    """Memory of a container itself that grows: its course, in how many seconds it is killed, and whether that is little yet."""

    rss: Span
    left: float
    little: bool


def _growth(metrics: Metrics) -> _Growth | None:
    """Memory that grows towards the limit: what the kernel cannot take back, and no page cache."""
    container, rss, whole = metrics.container, metrics.span("memory_rss"), metrics.span("memory_working_set")
    limit = container.limit("memory") if container else None
    if limit is None or rss is None or whole is None or metrics.started is None:
        return None
    recent = rss.tail(2 * _GROWING_SECONDS)
    loaded = recent.points[0][0] - metrics.started
    thirds = [recent.third(n) for n in range(3)]
    steady = thirds[0] < thirds[1] < thirds[2]
    if recent.seconds < _GROWING_SECONDS or loaded < _GROWING_SECONDS or not steady or recent.slope <= 0:
        return None
    left = (limit - rss.last) / recent.slope
    if rss.last < _NEARLY_FULL * limit or whole.last < rss.last or not 0 < left < _SOON_SECONDS:
        return None
    little = thirds[2] - thirds[0] < 0.02 * limit
    if little and not (rss.last >= _NEARLY_THERE * limit and loaded >= _FILLED_SECONDS and _straight(recent)):
        return None  # it breathes
    return _Growth(recent, left, little)


def _trend(metrics: Metrics, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    container, grown = metrics.container, _growth(metrics)
    limit = container.limit("memory") if container else None
    if container is None or limit is None or grown is None:
        return
    rss, kept = grown.rss, [*_kept(container, limit, logs, subject)]
    yield Finding(
        role="risk",
        confidence="possible" if grown.little else "likely",
        summary=f"The memory of {container.name} itself grew by {say_bytes(rss.slope * 3600)} an hour for "
        f"{say_seconds(rss.seconds)}, to {say_bytes(rss.last)} of its limit of {say_bytes(limit)}; at that pace it is killed in "
        f"{say_seconds(grown.left)}." + "".join(x.text for x in kept),
        evidence=(rss.evidence(say_bytes), stated(container), *(x.evidence for x in kept)),
        fixes=(*(x.fix for x in kept), *raised(container, limit, subject, "" if kept else GROWS)),
    )


def _straight(span: Span) -> bool:
    """Whether it rises all the time and no slower in the end: as a leak does, and a cache that fills does not."""
    size = len(span.points) // _PARTS
    means = [sum(span.values[n * size : (n + 1) * size]) / size for n in range(_PARTS)] if size else []
    rises = bool(means) and all(a < b for a, b in itertools.pairwise(means))
    return rises and span.tail(span.seconds / 2).slope >= _NO_SLOWER * span.slope


def _before(
    pod: Pod, container: Container, subject: Subject, logs: Logs | None, grown: _Growth | None
) -> Iterator[Finding]:
    """A server that was killed at its limit some time ago, and has not served for as long again since."""
    ended, since, now = container.terminated, container.started, pod.cluster.now
    limit = container.memory_limit
    began, died = map(parse_time, (ended and ended.started_at, ended and ended.finished_at))
    if ended is None or ended.reason != "OOMKilled" or limit is None or container.role != "main" or pod.failing:
        return
    if now is None or began is None or died is None or since is None or (now - died).days >= _REMEMBERED_DAYS:
        return
    served, ago, again = ((b - a).total_seconds() for a, b in ((began, died), (died, now), (since, now)))
    if served < _GROWING_SECONDS or again > _LONG_SURE * served:
        return  # it was killed while it started, or has come further since
    restarts, made = container.status.restart_count, parse_time(pod.obj.metadata.creation_timestamp)
    often = restarts >= _OFTEN and made is not None and (now - made).total_seconds() / restarts <= _LONG_SURE * served
    kept = [*_kept(container, limit, logs, subject)]
    yield Finding(
        role="cause" if often else "risk",
        severity="warning",
        summary=f"Container {container.name} was killed at its memory limit of {say_bytes(limit)} {say_seconds(ago)} ago, after "
        f"{say_seconds(served)}; it has run again with the same limit for {say_seconds(again)}"
        f"{f', and restarted {restarts} times in all' if often else ''}"
        + (
            f", and holds {say_bytes(grown.rss.last)} that grow by {say_bytes(grown.rss.slope * 3600)} an hour: at that pace it is "
            f"killed again in {say_seconds(grown.left)}."
            if grown is not None
            else "."
        )
        + "".join(x.text for x in kept),
        evidence=(
            pod_evidence(
                pod,
                f"status.containerStatuses[{container.name}].lastState.terminated",
                f"exitCode: {ended.exit_code}, reason: {ended.reason}",
            ),
            *((grown.rss.evidence(say_bytes),) if grown is not None else ()),
            stated(container),
            *(x.evidence for x in kept),
        ),
        fixes=(*(x.fix for x in kept), *raised(container, limit, subject, "" if kept else GROWS)),
    )


def _kept(container: Container, limit: int, logs: Logs | None, subject: Subject) -> Iterator[Greed]:
    """What a server that runs keeps of earlier prompts, by its settings or by the newest log that tells of it."""
    of_each = container.own_logs(logs) if logs is not None else []
    for log in [*reversed(of_each), None]:
        if (found := prompt_cache(subject.engine_of(container), limit, log)) is not None:
            yield found
            return


def _nearly(container: Container, hardware: Hardware, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """Memory that nobody can take back, up to the limit: what the processes hold, without the page cache."""
    use, limit = hardware.use_of(container), container.limit("memory")
    if use is None or limit is None or use.memory.anon_bytes is None:
        return
    own, files = use.memory.anon_bytes, use.memory.shmem_bytes or 0
    if own + files < _FULL * limit or files > own:
        return  # oomkilled-shm speaks of memory-backed files
    kept = [*_kept(container, limit, logs, subject)]
    shared = f" and {say_bytes(files)} in memory-backed files" if files else ""
    yield Finding(
        role="risk",
        summary=f"The processes of {container.name} hold {say_bytes(own)}{shared} of its memory limit of {say_bytes(limit)}; the kernel "
        "can take none of it back, and kills at the limit." + "".join(x.text for x in kept),
        evidence=(
            hardware.use_evidence(
                use, "memory", f"anonBytes: {own}, shmemBytes: {files}, maxBytes: {use.memory.max_bytes}"
            ),
            stated(container),
            *(x.evidence for x in kept),
        ),
        fixes=(*(x.fix for x in kept), *raised(container, limit, subject, "" if kept else GROWS)),
    )

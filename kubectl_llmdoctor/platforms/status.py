"""What operators say of their objects: conditions, and the failures that they keep in fields of their own.

Sources: KServe inference_service_status.go, KubeRay rayservice_types.go and rayjob_types.go, the NIM operator's
conditions.go, Grove podcliqueset.go, LeaderWorkerSet, JobSet and Argo Rollouts API types.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from re import Pattern

import msgspec

from kubectl_llmdoctor.tree import dig, rows, table

from .pointer import Json


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that an operator says of its object. `path` is its place in the object."""

    path: str
    text: str
    #: it states that something failed; a condition that is only not met yet does not
    failed: bool
    #: it repeats the words of the program in the container, as a log would
    quoted: bool = False
    #: what it repeats holds now, though nothing has failed
    holds: bool = False


#: Condition types that are bad news when they are True, as everywhere else False is.
_BAD = r"fail|error|degraded|stalled|invalid"

#: Condition types that say nothing of health: something is going on, or somebody wants it so.
_NEUTRAL = (
    r"progress|suspend|stopped|paused|updating|upgrad|rollback|scaling|completed|startuppolicy|requests|rollout|"
    r"finished|evicted|preempted|deactivated"
)

#: Reasons by which a condition that is not met is a failure, not a wait.
_FAILED_REASON = (
    r"fail|error|invalid|refused|notfound|not_found|unsupported|notrecognized|exceeded|abort|missing|rejected|timeout"
)

_RAY_BROKEN = ("DEPLOY_FAILED", "UNHEALTHY")
#: States of an application, or a part of it, that is not there yet: the message says what it waits for.
_RAY_BEGINS = ("DEPLOYING", "UPDATING")

#: Fields of a status that name its state in one word, and those in which operators then say why: KubeRay's RayCluster (`state`,
#: `reason`), SeldonDeployment (`state`, `description`), others by the same habit (`phase`, `message`).
_STATES = ("state", "phase")
_WHY = ("reason", "message", "description", "error", "errorMessage", "failureMessage", "lastError")
_BROKEN = r"fail(?!over)|(?<!no)(?<!no )error|invalid|degraded"
#: Kinds of Kubernetes itself, whose phases are read where they belong, and whose state is told by an operator's own fields.
_READ_ELSEWHERE = frozenset({"Job", "PersistentVolumeClaim", "PersistentVolume", "Namespace", "RayJob"})


@cache
def _any(words: str) -> Pattern[str]:
    """Compiled when a condition is there to be judged."""
    import re

    return re.compile(words, re.IGNORECASE)


def said(raw: Json) -> list[Said]:
    """All that the operator says is wrong, the object's own failures first, then its conditions; Ready comes first."""
    status = table(raw.get("status"))
    found = [*_kserve(status), *_ray_service(status), *_ray_job(raw, status), *_grove(status), *_state(raw, status)]
    return found + sorted(_conditions(status), key=lambda s: (not s.failed, "[Ready]" not in s.path))


def _conditions(status: Json) -> Iterator[Said]:
    for condition in rows(status.get("conditions")):
        kind, value = str(condition.get("type")), str(condition.get("status"))
        reason = str(condition.get("reason") or "")
        bad = bool(_any(_BAD).search(kind))
        if value != ("True" if bad else "False"):
            continue
        failed = bad or bool(_any(_FAILED_REASON).search(reason))
        if _any(_NEUTRAL).search(kind) and not failed:
            continue
        text = ": ".join(str(condition[k]) for k in ("reason", "message") if condition.get(k))
        yield Said(path=f"status.conditions[{kind}]", text=text or value, failed=failed)


def _kserve(status: Json) -> Iterator[Said]:
    """An InferenceService's model: why it did not load; the message may be the container's last words."""
    model = table(status.get("modelStatus"))
    failure = table(model.get("lastFailureInfo"))
    if not failure:
        return
    broken = model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec")
    where = "status.modelStatus.lastFailureInfo"
    if failure.get("reason") and failure.get("reason") != failure.get("message"):
        parts = [str(failure[k]) for k in ("reason", "location") if failure.get(k)]
        code = failure.get("exitCode")
        parts += [f"exitCode {code}"] if code else []
        yield Said(path=where, text=", ".join(parts), failed=broken)
    if failure.get("message"):
        yield Said(path=f"{where}.message", text=str(failure["message"]), failed=broken, quoted=True)


def _ray_service(status: Json) -> Iterator[Said]:
    """A RayService's applications and their deployments; the message is the traceback of the replica.

    While it serves from one cluster, what the applications of the next wait for is nobody's trouble.
    """
    ready = [row.get("status") for row in rows(status.get("conditions")) if row.get("type") == "Ready"]
    serves = "True" in ready or (not ready and status.get("serviceStatus") == "Running")
    for service in ("activeServiceStatus", "pendingServiceStatus"):
        for name, app in table(dig(status, f"{service}.applicationStatuses")).items():
            at = f"status.{service}.applicationStatuses[{name}]"
            yield from _ray_application(at, table(app), serves=serves)
            for part, deployment in table(table(app).get("serveDeploymentStatuses")).items():
                yield from _ray_application(f"{at}.serveDeploymentStatuses[{part}]", table(deployment), serves=serves)


def _ray_application(at: str, app: Json, *, serves: bool) -> Iterator[Said]:
    if app.get("status") in _RAY_BROKEN:
        yield Said(path=f"{at}.status", text=str(app["status"]), failed=True)
        if app.get("message"):
            yield Said(path=f"{at}.message", text=str(app["message"]), failed=True, quoted=True)
    elif app.get("status") in _RAY_BEGINS and app.get("message") and not serves:
        yield Said(path=f"{at}.message", text=str(app["message"]), failed=False, quoted=True, holds=True)


def _ray_job(raw: Json, status: Json) -> Iterator[Said]:
    if raw.get("kind") != "RayJob" or "Failed" not in (
        status.get("jobDeploymentStatus"),
        str(status.get("jobStatus")).title(),
    ):
        return
    text = ", ".join(str(status[k]) for k in ("jobStatus", "reason") if status.get(k))
    yield Said(path="status.jobDeploymentStatus", text=text or "Failed", failed=True)
    if status.get("message"):
        yield Said(path="status.message", text=str(status["message"]), failed=True, quoted=True)


def _state(raw: Json, status: Json) -> Iterator[Said]:
    """Why it is in a state that is called failed, for objects that have a word for it and no condition."""
    states = [str(status[key]) for key in _STATES if isinstance(status.get(key), str)]
    if raw.get("kind") in _READ_ELSEWHERE or not any(_any(_BROKEN).search(state) for state in states):
        return
    for key in _WHY:
        if isinstance(text := status.get(key), str) and text:
            yield Said(path=f"status.{key}", text=text, failed=True)


def _grove(status: Json) -> Iterator[Said]:
    for error in rows(status.get("lastErrors")):
        text = ": ".join(str(error[k]) for k in ("code", "description") if error.get(k))
        if text:
            yield Said(path="status.lastErrors", text=text, failed=True)

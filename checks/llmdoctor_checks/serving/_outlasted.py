"""Requests that a server behind Knative's proxy answered, as its own log says, later than the proxy waits for an answer.

Sources: Tornado's access log (`web.py`, KFServing's and KServe's servers up to 0.10), KServe's trace of each request
(`model_server`, `kserve.trace`); Knative's queue-proxy (`network/error_handler.go`), which says of a request that it ended itself, or whose
client went away, that its context was canceled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    Cluster,
    Finding,
    Line,
    Logs,
    Pod,
    fixes,
    log_evidence,
    long_past,
    say_seconds,
)
from llmdoctor_checks.serving._patience import STREAM
from llmdoctor_checks.serving._timeouts import longer, of_knative

#: How long a request took that was answered well, in milliseconds, by the words around it.
OUTLASTED = ("] 200 POST /", "predict_ms: ")
_TOOK = r"\] 200 POST /\S{1,300} \(\S{1,60}\) (?P<tornado>\d{1,9}\.\d\d)ms|\bpredict_ms: (?P<kserve>\d{1,9}\.\d{1,12})"

#: So many answers are no chance, and one that came so many seconds later came too late.
_FEWEST, _LATER = 2, 1


#: Knative's proxy of a request that was ended before it was answered.
CANCELED = '"error":"context canceled"'
_OF_PROXY = "error reverse proxying request"


def ended_early(pod: Pod, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Requests that ended without an answer, where the proxy waits for its beginning less long than somebody gave the whole."""
    known = list(of_knative(pod, cluster)) if logs is not None else []
    whole = max((one.seconds for one in known if one.whole), default=0)
    timeout = next((one for one in known if not one.whole and one.seconds < whole), None)
    log = logs.current("queue-proxy") if logs is not None and timeout is not None else None
    lines = [line for line in log.find(CANCELED) if _OF_PROXY in line.text] if log is not None else []
    if timeout is None or len(lines) < _FEWEST or not pod.ready:
        return None
    labels = (("InferenceService", INFERENCE_SERVICE), ("Service", KNATIVE_SERVICE))
    kind, name = next(((kind, pod.labels[key]) for kind, key in labels if key in pod.labels), ("", ""))
    same = f"{whole:.0f}, as long as timeoutSeconds"
    by_default = f"revision-response-start-timeout-seconds: {same}, in ConfigMap config-defaults of knative-serving"
    return Finding(
        role="risk" if long_past(lines) else "cause",
        severity="warning",
        confidence="possible",
        summary=f"Knative's proxy ended {len(lines)} requests without an answer: it waits {say_seconds(timeout.seconds)} for an answer to "
        f"begin, however long the whole may take ({say_seconds(whole)}). What is not streamed begins when it is complete.",
        evidence=(log_evidence(lines[-1], "context canceled"), timeout.evidence),
        fixes=(
            fixes.advice(f"Set responseStartTimeoutSeconds: {same}, in spec.template.spec of Knative's Service/{name}")
            if kind == "Service"
            else fixes.platform(f"Set {by_default}"),
            STREAM,
        ),
        order=lines[0].order,
    )


def outlasted(pod: Pod, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Answers that came when the proxy had long said 504, and what states its time."""
    answers = list(_answers(pod, logs)) if logs is not None else []
    for timeout in of_knative(pod, cluster) if len(answers) >= _FEWEST else ():
        late = [(line, took) for line, took in answers if took >= timeout.seconds + _LATER]
        if not timeout.whole or len(late) < _FEWEST:
            continue
        lines, longest = [line for line, _ in late], max(took for _, took in late)
        return Finding(
            role="risk" if long_past(lines) else "cause",
            severity="warning",
            summary=f"{lines[-1].log.container} of {pod.name} took up to {say_seconds(round(longest))} for {len(late)} of {len(answers)} "
            f"requests, and {timeout.where} allows {say_seconds(timeout.seconds)}: their clients got 504 before the answer was there.",
            evidence=(log_evidence(lines[-1]), timeout.evidence),
            fix=longer(timeout, 0, at_least=longest),
            order=lines[0].order,
        )
    return None


def _answers(pod: Pod, logs: Logs) -> Iterator[tuple[Line, float]]:
    """What the servers of the pod answered well, and after how many seconds."""
    for log in (logs.current(container.name) for container in pod.containers):
        for line in log.find(*OUTLASTED) if log is not None else ():
            if (said := re.search(_TOOK, line.text[:2000])) is not None:
                yield line, float(said["tornado"] or said["kserve"]) / 1000

"""The symptom of an engine that says that it could not start, and not why."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Line, Logs, Pod, answered, check, lacks_model, log_evidence, phase_at, said

from ._signals import SIGNALS

#: What the process itself prints above its traceback, while it starts and while it serves.
FAILED = (
    "EngineCore hit an exception: Traceback",  # vLLM 0.7 and 0.8, V1
    "Scheduler hit an exception: Traceback",  # SGLang 0.4+
)

#: How SGLang says that its own first requests failed, of which it ends itself.
_WARMUP = "Initialization failed. warmup error:"

#: Lines that engines print when another process of theirs has failed; the cause stands earlier.
_SECONDARY = (
    "Engine core initialization failed.",  # vLLM 0.8.5+, API server
    "EngineCore failed to start.",  # vLLM 0.8.5+
    "Engine process failed to start. See stack trace for the root cause.",  # vLLM, V0
    "WorkerProc initialization failed due to an exception in a background process.",  # vLLM 0.8.5+
    "DP Coordinator process failed during startup.",  # vLLM 0.17+
    "StageDiffusionProc died during handshake",  # vLLM-Omni
    "atchdog timeout (self.watchdog_timeout=",  # SGLang 0.3.5+, then the signal
    "Received sigquit from a child process. It usually means the child failed.",  # SGLang 0.4.1+
    "Received sigquit from a child proces. It usually means the child failed.",  # the same, as it was spelled at first
    "It usually means one child failed.",  # SGLang 0.5.2+, while it serves
    "scheduler died during initialization (exit code: ",  # SGLang 0.5.10+
    "Initialization failed. Please see the error messages above.",  # SGLang
    _WARMUP,
    "Error: ShardCannotStart",  # TGI
    "exiting due to model loading error",  # llama.cpp
    "Executor worker died during initialization",  # TensorRT-LLM
    "Internal - failed to load all models",  # Triton
    "Error: Could not create backend",  # Text Embeddings Inference
    "Error: Model backend is not healthy",  # Text Embeddings Inference, while it warms up
    "Failed to start model server",  # KServe
    "Backend worker monitoring thread interrupted or backend worker process died.",  # TorchServe, Multi Model Server
    *FAILED,
)


#: vLLM names the processes that ended, and how: `Failed core proc(s): {'EngineCore_DP0': -9}`.
_ENDED = r"Failed core proc\(s\): \{'(?P<who>[\w-]+)': -(?P<signal>\d+)"
#: SGLang's scheduler ends the server when no step of it has finished for so long; the soft one only says so.
_HANG = r"atchdog timeout \(self\.watchdog_timeout=(?P<seconds>\d+)(?:\.\d+)?(?:\)|, self\.soft=False)"
#: SGLang stops its processes one after the other when it is told to end, and calls that a failure.
_STOPPED = "SIGTERM received."
#: So many answers below a line show that the server is there again, where no pod tells.
_MANY_ANSWERS = 10


@check("engine-init-failed", since="0.1", literals=(*_SECONDARY, _STOPPED))
def engine_init_failed(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """The engine reports that one of its own processes failed.

    Engines of several processes (API server, engine core, workers, shards) print this in the process that waited for
    another. It is always a consequence: the process that failed has printed why, earlier in the same log.

    A server that loads its models later (Ollama, llama-swap, Xinference, Triton) lives on when one of them fails: the pod
    is Ready, and the requests for that model are answered with an error.

    ## Fix

    Read the log upwards from this line to the first traceback or error of another process.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if not pod.failing:
        yield from _without_model(pod, logs)
        return
    for text in _SECONDARY:
        for line in logs.find(text):
            if said(line.text).text.lstrip().startswith(("raise ", '"', 'f"')) or recovered(pod, line):
                continue  # the source line of a traceback, or of a start before
            if text in FAILED and phase_at(line) in ("", "serving"):
                continue
            hang = re.search(_HANG, line.text)
            if text.startswith("atchdog") and not hang:
                continue
            if text.startswith("It usually") and any(x.number < line.number for x in line.log.find(_STOPPED)):
                continue
            who = line.log.container or "The engine"
            ended = re.search(_ENDED, line.text)
            how = SIGNALS.get(int(ended["signal"]), f"signal {ended['signal']}") if ended else ""
            killed = f" Its {ended['who']} was ended by {how}." if ended else ""
            summary = f"{who} says: {text.removesuffix(' (exit code: ')}{killed}"
            if text == _WARMUP:
                summary = (
                    f"The requests with which {line.log.container or 'SGLang'} warms up failed, and it ended itself."
                )
            if hang:
                summary = f"{who} was ended by its watchdog: no step of it had finished for {hang['seconds']} s."
            yield Finding(
                role="symptom",
                severity="critical"
                if pod.log_only
                else "warning",  # a pod that fails has a critical symptom of its own
                confidence="certain",
                summary=summary,
                evidence=(log_evidence(line),),
                order=line.order,
            )
            return


def recovered(pod: Pod, line: Line) -> bool:
    """Whether a log that came without its pod shows that requests were answered well after a line."""
    return pod.log_only and answered(line.log, after=line.number) >= _MANY_ANSWERS


def _without_model(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """A pod that is ready, whose server has said last of a model that it did not come up."""
    for log in logs if pod.exists and pod.ready else ():
        line = None if log.previous else lacks_model(log)
        if line is not None:
            yield Finding(
                role="symptom",
                confidence="certain",
                summary=f"{log.container} is up, and a model that it should have loaded has failed.",
                evidence=(log_evidence(line),),
                order=line.order,
            )
            return

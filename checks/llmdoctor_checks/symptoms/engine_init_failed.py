"""The symptom of an engine that says that it could not start, and not why."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Logs, Pod, check, log_evidence

from ._signals import SIGNALS

#: Lines that engines print when another process of theirs has failed; the cause stands earlier.
_SECONDARY = (
    "Engine core initialization failed.",  # vLLM 0.8.5+, API server
    "EngineCore failed to start.",  # vLLM 0.8.5+
    "Engine process failed to start. See stack trace for the root cause.",  # vLLM, V0
    "WorkerProc initialization failed due to an exception in a background process.",  # vLLM 0.8.5+
    "Received sigquit from a child process. It usually means the child failed.",  # SGLang 0.4.1+
    "Initialization failed. Please see the error messages above.",  # SGLang
    "Error: ShardCannotStart",  # TGI
    "exiting due to model loading error",  # llama.cpp
    "Executor worker died during initialization",  # TensorRT-LLM
)


#: vLLM names the processes that ended, and how: `Failed core proc(s): {'EngineCore_DP0': -9}`.
_ENDED = re.compile(r"Failed core proc\(s\): \{'(?P<who>[\w-]+)': -(?P<signal>\d+)")


@check("engine-init-failed", since="0.1", literals=_SECONDARY)
def engine_init_failed(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """The engine reports that one of its own processes failed to start.

    Engines of several processes (API server, engine core, workers, shards) print this in the process that waited for
    another. It is always a consequence: the process that failed has printed why, earlier in the same log.

    ## Fix

    Read the log upwards from this line to the first traceback or error of another process.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if not pod.failing:
        return
    for text in _SECONDARY:
        for line in logs.find(text):
            if line.text.lstrip().startswith(("raise ", '"', 'f"')):
                continue  # the source line of a traceback
            ended = _ENDED.search(line.text)
            how = SIGNALS.get(int(ended["signal"]), f"signal {ended['signal']}") if ended else ""
            killed = f" Its {ended['who']} was ended by {how}." if ended else ""
            yield Finding(
                role="symptom",
                severity="warning",
                confidence="certain",
                summary=f"{line.log.container or 'The engine'} says: {text}{killed}",
                evidence=(log_evidence(line),),
                order=line.order,
                pods=(pod.name,),
            )
            return

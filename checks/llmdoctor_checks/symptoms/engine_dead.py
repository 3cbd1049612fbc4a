"""The symptom of an engine whose process died while it served."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Line, Logs, Pod, check, log_evidence, said

#: A server that is told to stop ends its engine, and then says the same of it.
_STOPPING = ("[shutdown]", "Shutting down", "SIGTERM", "KeyboardInterrupt")

#: Lines of a server whose engine has died; those of the engine itself first. The cause stands in the traceback below or above.
_DEATHS = (
    "EngineCore encountered a fatal error.",  # vLLM 0.8.5+, engine core
    "died unexpectedly, shutting down client",  # vLLM 0.10+, API server
    "EngineCore encountered an issue. See stack trace (above) for the root cause.",  # vLLM 0.8.5+, API server
    "EngineCore hit an exception: Traceback",  # vLLM 0.7 and 0.8, V1
    "Scheduler hit an exception: Traceback",  # SGLang 0.4+
    "MQLLMEngine is already dead, terminating server process",  # vLLM, V0
    "AsyncLLMEngine has failed, terminating server process",  # vLLM, V0
    "Background loop has errored already.",  # vLLM, V0
)


@check("engine-dead", since="0.1", literals=_DEATHS)
def engine_dead(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """The engine's process died while the server ran.

    The server in front of it answers all requests with an error from then on, and ends or is restarted. It is always a
    consequence: the process that died has printed why, in the first traceback, or was killed.

    ## Fix

    Read the first traceback of the engine or of a worker. If there is none, look at how the container and its processes
    ended: out of memory, a signal, an Xid in the kernel's log of the node.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if not pod.failing:
        return
    for text in _DEATHS:
        for line in logs.find(text):
            if said(line.text).text.lstrip().startswith(("raise ", '"', 'f"', "logger.")):
                continue  # the source line of a traceback
            if _stopping(line):
                continue
            yield Finding(
                role="symptom",
                severity="critical"
                if pod.log_only
                else "warning",  # a pod that fails has a critical symptom of its own
                confidence="certain",
                summary=f"{line.log.container or 'The engine'} says: {said(line.text).text.strip()[:160]}",
                evidence=(log_evidence(line),),
                order=float(line.number),
                pods=(pod.name,),
            )
            return


def _stopping(line: Line) -> bool:
    """Whether the server was told to stop shortly before a line."""
    before = line.log.lines(max(1, line.number - 60), line.number)
    return any(text in other.text for other in before for text in _STOPPING)

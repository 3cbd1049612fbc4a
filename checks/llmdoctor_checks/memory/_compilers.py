"""Compilers of kernels that run side by side, as many as there are cores, and fill the memory.

FlashInfer and torch build what they lack when an engine first starts, with ninja and nvcc. The kernel kills a compiler then, and not the
engine, which says that its build failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kubectl_llmdoctor.api import GIB, Container, Evidence, Line, Log, expression, fixes, last_words, log_evidence
from llmdoctor_checks.memory._prompt_cache import Greed

#: How ninja (1.12 and later), nvcc, GCC and clang say that a compiler was killed; and how FlashInfer (jit/core.py) and torch
#: (utils/cpp_extension.py) say that they begin to build.
_SAID = (
    "FAILED: [code=137]",
    "died due to signal 9",
    "Killed signal terminated program",
    "unable to execute command: Killed",
)
_BEGUN = ("Building JIT module ", "overridable by setting the environment variable MAX_JOBS")
#: The first of the steps in which CUDA graphs are captured (SGLang's model_runner.py, vLLM's gpu_model_runner.py), before any is done: what
#: kernels are not there yet is compiled in it.
_CAPTURES = "Capturing "
_FIRST_STEP, _LATER_STEP = (
    expression(r"Capturing [^|]{1,120}\|[^|]{0,20}\| 0/\d{1,4} \["),
    expression(r"\| [1-9]\d{0,3}/\d{1,4} \["),
)
LITERALS = (*_SAID, *_BEGUN, _CAPTURES)

#: The kernel's line of one that it killed.
_KILLED = expression(
    r"Killed process \d{1,10},? \((?:cicc|ptxas|cudafe\+\+|fatbinary|nvcc|cc1plus|cc1|clang(?:\+\+)?(?:-\d{1,2})?|ld\.lld|hipcc)\)"
)

#: What the compiler of one of CUTLASS's kernels takes, at the most, and as many at once as are enough.
_A_JOB, _AT_ONCE = 8 * GIB, 4
_VARIABLE = "MAX_JOBS"

_COMPILED = " It was compiling kernels, whose compilers run side by side and fill any limit."
_IN_CAPTURE = (
    " It was at the first step of the capture of CUDA graphs, in which the kernels that are missing are compiled: compilers run side by "
    "side and fill any limit."
)


def compilers(
    container: Container, room: int | None, log: Log | None, kernel: Iterable[Evidence] = (), *, killed: bool = False
) -> Greed | None:
    """That a compiler was killed in so much memory, by the kernel's word or by the log's, and how many may run at once.

    Of a container that was `killed` as a whole the log says that it had begun to build.
    """
    how = _COMPILED
    evidence = next((word for word in kernel if _KILLED.search(word.text)), None)
    if evidence is None and log is not None:
        said = next(log.find(*_SAID), None)
        begun = (line for line in log.find(*_BEGUN) if killed and line.number in last_words(log))
        evidence = log_evidence(line) if (line := said or next(begun, None)) else None
        if evidence is None and killed and (line := _at_first_step(log)) is not None:
            evidence, how = log_evidence(line, _CAPTURES), _IN_CAPTURE
    if evidence is None:
        return None
    jobs = _AT_ONCE if room is None else max(1, min(_AT_ONCE, room // _A_JOB))
    if how is _IN_CAPTURE:
        jobs = 1  # weights and cache are there by then, on some machines in the same memory
    told = container.env.get(_VARIABLE)
    if told and re.fullmatch(r"[1-9]\d{0,3}", told.value or ""):
        jobs = min(jobs, int(told.value or "1") // 2)
    if not jobs:
        return None  # one at a time, as it is told to
    at_once = f"{jobs} compilers" if jobs > 1 else "one compiler"
    why = "else there is one for each core, and that of a large kernel takes up to 8 GiB"
    summary = f"Let {at_once} run at once, {_VARIABLE}={jobs}: {why}"
    return Greed(
        how,
        evidence,
        fixes.set_env(container, _VARIABLE, str(jobs), summary),
    )


def _at_first_step(log: Log) -> Line | None:
    """The line of a capture that had not come beyond its first step when the log ended."""
    lines = [line for line in log.find(_CAPTURES) if line.number in last_words(log)]
    first = next((line for line in lines if _FIRST_STEP.search(line.text[:4000])), None)
    later = any(_LATER_STEP.search(line.text[:20000]) for line in lines)
    return None if later else first

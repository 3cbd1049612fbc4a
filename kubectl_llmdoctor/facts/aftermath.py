"""What comes after a line: whether the start that it belongs to got over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.processes import raised_at, said, tracebacks
from kubectl_llmdoctor.facts.requests import refused, went_on
from kubectl_llmdoctor.facts.starts import (
    OLLAMA_LOADED,
    PHASES,
    READY,
    STARTS,
    later_banners,
    marks_of,
    phase_at,
    printed_from,
    tells,
)

#: Of which model ModelMesh's adapters speak, in the fields of a line.
_MODEL = expression(r'"model_?[iI]d": ?"[^"\s]{1,200}"')
#: A process of which there are several that load the model side by side.
_RANK = expression(r"(?i)worker|rank|\b(?:TP|PP|EP)\d")

#: What other engines print when they begin to load a model, and when it is loaded. llama-server and Ollama try again with
#: less when memory does not suffice.
_LOADS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("load_model: loading model",), ("server is listening on http",)),
    (('msg="starting runner"', 'msg="starting llama server"', 'msg="starting llama-server"'), OLLAMA_LOADED),
    (("== NVIDIA Inference Microservice", "TensorRT-LLM version: "), (READY,)),
    (("Triton Server Version",), ("Started HTTPService at",)),
    # ComfyUI, which does without a node of its users that cannot be imported
    (("Total VRAM ",), ("To see the GUI go to: ",)),
)
#: Of these ends, what only this program prints, once in a start: it tells also where a log was cut before the start began.
#: That of Triton does not, nor llama-server's: they listen, too, without the model or the GPU of which they complained.
_ITS_OWN = "To see the GUI go to: "
#: vLLM's banner, and the process of which it says that it prints what any web server prints.
_VLLM, _API_SERVER = STARTS[0][0], "(APIServer "
#: What SGLang prints before the exception of which a process of it ends.
_HIT = " hit an exception: Traceback"
#: What vLLM prints when it begins to load weights, in processes that exist only once the configuration has been read; those.
_BEGINS_TO_LOAD = "Starting to load model"
_BESIDE_OTHERS = expression(r"(?i)engine_?core|worker|rank|apiserver_|replica")
#: All that is looked for here, beside the marks of starts.
LITERALS = (_HIT, *(literal for pair in _LOADS for literals in pair for literal in literals))


def survived(line: Line) -> bool:
    """Whether the server became ready after a line, in the same start; only some engines' logs tell."""
    return not_serving_yet(line) or any(_loaded_after(line, *pair) for pair in _LOADS)


def configured_after(line: Line) -> bool:
    """Whether vLLM, of whose configuration an exception speaks, went on from it to load weights: it was caught.

    One of several that load beside each other does not tell: a process of the engine, a replica of Ray Serve, one server of two.
    """
    who = said(line.text).process
    if raised_at(line) is None or phase_at(line) or _BESIDE_OTHERS.search(who):
        return False
    begun = next((x for x in line.log.marks(_BEGINS_TO_LOAD) if x.number > line.number), None)
    if begun is None or any(line.number < at <= begun.number for at in later_banners(line.log)):
        return False
    spoke = line.log.once("API servers", lambda: _api_servers(line.log))
    servers = {server for server, (first, last) in spoke.items() if first <= begun.number and last >= line.number}
    return len(servers | {who} - {""}) < 2


def _api_servers(log: Log) -> dict[str, tuple[int, int]]:
    """The first and the last line of each API server of vLLM."""
    found: dict[str, tuple[int, int]] = {}
    for line in log.find(_API_SERVER):
        who = said(line.text).process
        found[who] = found.get(who, (line.number, 0))[0], line.number
    return found


def lived_on(line: Line) -> bool:
    """Whether the process that raised the error of a line did not end with it, as far as the log tells."""
    return survived(line) or went_on(line) or refused(line)


def _served_after(line: Line, banner: str, ready: str) -> bool:
    starts = [x.number for x in marks_of(line.log, banner)]
    up = next((x for x in marks_of(line.log, ready) if x.number > line.number), None)
    if up is None:
        return False
    # what any web server prints is the engine's only after its banner; the rest no other program prints, and a log that was
    # cut at its head has no banner
    whose = bool(starts) or ready != READY or (banner == _VLLM and _API_SERVER in up.text)
    # the first start prints something before its banner
    return whose and not any(line.number < start < up.number for start in starts[1:])


def _loaded_after(line: Line, begins: tuple[str, ...], ends: tuple[str, ...]) -> bool:
    """Whether a line stands between the beginning and the end of the same load."""
    starts = [x.number for text in begins for x in line.log.marks(text)]
    done = min((x.number for text in ends for x in line.log.marks(text) if x.number > line.number), default=None)
    begun = any(at < line.number for at in starts) or (not starts and ends[0] == _ITS_OWN)
    return done is not None and begun and not any(line.number < at < done for at in starts)


def not_serving_yet(line: Line) -> bool:
    """Whether a server that answers requests only once it is ready became ready after a line, in the same start."""
    return any(_served_after(line, *pair) for pair in STARTS)


def overcome(line: Line, signs: Sequence[str], *, serving: bool = True) -> bool:
    """Whether a later line of the same start shows that what a line complains of was overcome.

    A sign is a text, or the name of a phase, which stands for what is printed in it and in the phases after it. What a
    rank complains of, or one model of a llama-server router or of ModelMesh, the progress of another does not overcome.
    That it is `serving` need be no sign: a server may come up without the model of which the line speaks.
    """
    if not signs or _ended_a_process(line):
        return False
    who = said(line.text).process
    apart = _RANK.search(who) or who.startswith("port ")
    model = _MODEL.search(line.text[:4000])
    limit = next((at for at in later_banners(line.log) if at > line.number), None)
    up = () if serving else tuple(printed_from(PHASES[-1]))
    for text in _signs(signs):
        if any(text in one for one in up):
            continue
        for found in line.log.marks(text):
            if found.number <= line.number or not tells(text, found):
                continue
            if limit is not None and found.number > limit:
                break
            if model is not None and model[0] not in found.text:
                continue
            if not apart or said(found.text).process == who:
                return True
    return False


def _ended_a_process(line: Line) -> bool:
    """Whether a line is of the exception with which a process of SGLang ends: that others go on does not bring it back."""
    ends = line.log.once("ended processes", lambda: list(_ends_of_processes(line.log)))
    return any(first <= line.number <= last for first, last in ends)


def _ends_of_processes(log: Log) -> Iterator[tuple[int, int]]:
    """The first and the last line of each exception of which a process of SGLang ended."""
    for one in tracebacks(log) if log.marks(_HIT) else ():
        if _HIT in one.root.first.text:
            yield one.root.first.number, one.last.number


def signs_of(signs: Sequence[str]) -> tuple[str, ...]:
    """The texts that `overcome` looks for."""
    return tuple(_signs(signs))


def _signs(signs: Sequence[str]) -> Iterator[str]:
    for sign in signs:
        if sign in PHASES:
            yield from printed_from(sign)
        else:
            yield sign

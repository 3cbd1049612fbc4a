"""A parser of tool calls that was named and not switched on."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    answered,
    check,
    count_of,
    fixes,
    log_evidence,
    often,
    pod_evidence,
    releases,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.families import parser_among, tool_parser
from llmdoctor_checks._clients import asking, astray, refused, told

#: What vLLM answers, as clients print it; its own log has only the status.
_ANSWERS = (
    (
        "tool choice requires --enable-auto-tool-choice and",
        r"tool choice requires --enable-auto-tool-choice and --tool-call-parser",
    ),
    ("requires --tool-call-parser to be set", r"requires --tool-call-parser to be set"),
)

#: What TensorRT-LLM warns of an answer (serve/tool_parser/base_tool_parser.py): a model may write one call in many wrongly, so many, and
#: such a share of all answers, are of another format.
_UNREAD, _WHOSE = "detected tool-call markup but extracted no", r"Tool parser '([\w.-]{1,60})' detected"
_FEWEST_UNREAD, _SHARE_UNREAD = 5, 0.1

#: What vLLM's parsers log of an answer that they could not read, whole and streamed (tool_parsers/, logged with its traceback).
_FAILED = ("Error in extracting tool call from response", "Error trying to handle streaming tool call")
_FEWEST_FAILED = 2
#: A Llama writes calls as JSON or as Python, as its template tells it to.
_OF_LLAMA = frozenset({"llama3_json", "llama4_json", "pythonic", "llama4_pythonic"})

#: What models write around a call, which clients see where the server did not read it, and the parsers of vLLM and SGLang that read it;
#: not the examples of a prompt that tells a model to write so.
_MARKS = (
    (
        "<function=",
        r"<function=(?!example_)[\w.-]{1,64}>",
        ("qwen3_coder", "qwen3_xml", "step3p5", "seed_oss", "mimo"),
    ),
    (
        "<tool_call>",
        r"<tool_call>(?:\\n|\s){0,4}\{(?!\\?[\"']name\\?[\"']: ?<)",
        ("hermes", "qwen25", "qwen", "granite", "granite4", "mimo", "ernie45", "trinity", "xlam"),
    ),
    ("[TOOL_CALLS]", r"\[TOOL_CALLS\] ?[\[\w]", ("mistral", "xlam")),
    ("<|tool_calls_section_begin|>", r"<\|tool_calls_section_begin\|>", ("kimi_k2",)),
    ("<arg_key>", r"<arg_key>[\w.-]{1,64}</arg_key>", ("glm45", "glm47", "glm", "ling3", "poolside_v1")),
    ("<minimax:tool_call>", r"<minimax:tool_call>", ("minimax_m2", "minimax-m2")),
    ("tool▁calls▁begin", r"<｜tool▁calls▁begin｜>", ("deepseek_v3", "deepseek_v31", "deepseekv3", "deepseekv31")),
)

#: Variables of NIM 1.x.
_OF_NIM = ("NIM_ENABLE_AUTO_TOOL_CHOICE", "NIM_TOOL_CALL_PARSER")


@check(
    "tool-parser-not-enabled",
    since="0.1",
    severity="warning",
    literals=(_UNREAD, *_FAILED, *(words for words, _ in _ANSWERS), *(words for words, _, _ in _MARKS)),
)
def tool_parser_not_enabled(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """Tool calls are sent to a server that does not read them.

    A request with `tools` lets the model decide to call one of them, and the server must find the call in the model's text. The
    format differs by model family, so vLLM does it only with `--enable-auto-tool-choice` and a `--tool-call-parser`; without them
    every such request fails with status 400. llama-server wants `--jinja`.

    The server's log may have only the status. Clients print why: that counts where their environment, arguments or configuration
    name this server and no other. NVIDIA NIM has variables for it (`NIM_ENABLE_AUTO_TOOL_CHOICE`, `NIM_TOOL_CALL_PARSER`) that not
    all of its releases read; from 2.0 on the flags go into `NIM_PASSTHROUGH_ARGS`.

    A server of vLLM that names a parser without the switch was meant to read tool calls and does not: vLLM makes the parser
    only where the switch is set. Models with Mistral's own tokenizer, and GPT-OSS, need no switch.

    A parser of another format than the model's reads nothing: requests are answered with 200, and the calls are lost. TensorRT-LLM warns
    of it where the marks of a call are there. vLLM logs the exception with which it failed; it counts where the model is known to write
    another format. Of vLLM and SGLang a client that asks this server alone tells it, where its log has a call as
    the model wrote it (`<function=…>`, `[TOOL_CALLS]`).

    ## Fix

    Add the two flags with the parser of the model's family; some models also need a chat template for tools
    (`--chat-template`).

    ## References

    - https://docs.vllm.ai/en/latest/features/tool_calling/
    - https://github.com/ggml-org/llama.cpp/blob/master/docs/function-calling.md
    """
    reads = engine.value("enable_auto_tool_choice", False) is not False and engine.explicit("tool_call_parser")
    # which variables a NIM reads depends on its release; what it answers tells
    asked = engine.name == "nim" or (engine.name == "vllm" and not reads)
    if asked and (said := told(pod, engine, cluster, logs, _ANSWERS, "400")):
        line, words = said[-1]
        count, all_of = refused(engine.container.own_log(logs), "400")
        yield Finding(
            role="note" if astray(len(said), count, all_of) else "cause",
            severity="warning",
            summary=f"{line.log.pod} sends tools, and {engine.container.name} was started without --enable-auto-tool-choice and "
            f"--tool-call-parser{_unread(engine)}: it is refused, {often(len(said))} in its log.",
            evidence=(log_evidence(line, words[0]), *_variables(engine)),
            fix=releases.reads_tools(engine) or _switched_on(engine),
            order=line.order,
        )
        return
    if logs is not None and (unread := _unread_calls(engine, logs)) is not None:
        yield unread
        return
    if (seen := _seen_by_clients(pod, engine, cluster) or _of_another_family(engine, logs)) is not None:
        yield seen
        return
    parser = engine.explicit("tool_call_parser")
    if engine.name != "vllm" or parser is None or not engine.found.argv_known or pod.partial or pod.log_only:
        return
    if engine.value("enable_auto_tool_choice", False) is not False or _reads_anyway(engine, str(parser.value)):
        return
    flag = "--enable-auto-tool-choice"
    yield Finding(
        role="risk",
        summary=f"{engine.container.name} names the parser {parser.value} for tool calls, and without {flag} {engine.label} uses "
        'none: every request with tools and tool_choice "auto" fails with status 400.',
        evidence=(setting_evidence(engine.container, parser),),
        fix=fixes.set_flag(engine, "enable_auto_tool_choice", flag, "", f"Add {flag}"),
    )


def _unread_calls(engine: Engine, logs: Logs) -> Finding | None:
    """Calls whose marks the parser saw, and which it could not read."""
    log = logs.current(engine.container.name)
    lines = list(log.find(_UNREAD)) if log is not None else []
    whose = re.search(_WHOSE, lines[-1].text[:2000]) if lines else None
    if whose is None:
        return None
    all_of = answered(log, after=lines[0].number)
    usual = len(lines) >= max(_FEWEST_UNREAD, _SHARE_UNREAD * all_of)
    followed = f"; {count_of(all_of, 'answer')} followed the first" if all_of else ""
    return Finding(
        role="cause" if usual else "note",
        severity="warning",
        confidence="likely" if all_of else "possible",  # without an access log nobody knows of how many
        summary=f"The parser {whose[1]} of {engine.container.name or engine.title} saw tool calls in "
        f"{count_of(len(lines), 'answer')} and could not read them{followed}. The calls are lost, with status 200.",
        evidence=(log_evidence(lines[-1]),),
        fix=fixes.advice(
            f"Name the parser of the format that the model writes (--tool_parser) in {fixes.edited(engine.container.pod)}; look at "
            "such an answer for it, and at whether max_tokens cut it off"
        ),
        order=lines[-1].order,
    )


def _seen_by_clients(pod: Pod, engine: Engine, cluster: Cluster) -> Finding | None:
    """Calls as the model writes them, in the log of a client of this server alone: the parser that it was told reads another format."""
    parser = engine.explicit("tool_call_parser")
    if (
        not pod.ready
        or parser is None
        or engine.name not in ("vllm", "sglang")
        or engine.explicit("tool_parser_plugin")
    ):
        return None
    if engine.name == "vllm" and engine.value("enable_auto_tool_choice", False) is False:
        return None
    said = cluster.once("marks of calls", lambda: list(_marked(cluster)))
    clients = {c.whose for c in asking(pod, cluster)} if said else set()
    unread = ((line, able) for who, line, able in said if who in clients and parser.value not in able)
    line, able = next(unread, (None, ()))
    if line is None:
        return None
    family = parser_among(engine.checkpoint.rstrip("/").rpartition("/")[2], list(able))
    return Finding(
        confidence="likely" if family else "possible",
        summary=f"{line.log.pod} gets tool calls as text, with status 200: {engine.container.name} has the parser {parser.value}, and the "
        f"model writes them as {able[0]} reads them.",
        evidence=(log_evidence(line), setting_evidence(engine.container, parser)),
        fix=(releases.reads_tools(engine) if family else None) or _of_the_format(engine, able[0]),
        order=line.order,
    )


def _of_another_family(engine: Engine, logs: Logs | None) -> Finding | None:
    """Calls that vLLM's parser failed on, again and again, where the model is of a family that writes them in another format."""
    parser = engine.explicit("tool_call_parser")
    log = logs.current(engine.container.name) if logs is not None else None
    if log is None or parser is None or engine.name != "vllm" or engine.explicit("tool_parser_plugin"):
        return None
    right = tool_parser(engine.checkpoint.rstrip("/").rpartition("/")[2])
    failed = sorted(log.find(*_FAILED), key=lambda line: line.number)
    one_format = any({right, str(parser.value)} <= set(able) for able in (*(able for _, _, able in _MARKS), _OF_LLAMA))
    if not right or right == parser.value or one_format or len(failed) < _FEWEST_FAILED:
        return None
    # a template of another format than the family's, or a model that was trained to it, is called so
    template = engine.explicit("chat_template")
    called = re.sub(r"[^a-z0-9.]", "_", f"{engine.checkpoint} {template.value if template else ''}".lower())
    if re.search(rf"(?<![a-z0-9]){re.escape(str(parser.value))}(?![a-z0-9.]*\d)", called):
        return None
    return Finding(
        summary=f"The parser {parser.value} of {engine.container.name or engine.title} failed on {count_of(len(failed), 'answer')}: "
        f"{engine.checkpoint} writes tool calls as {right} reads them. They come as text, with status 200.",
        evidence=(log_evidence(failed[-1]), setting_evidence(engine.container, parser)),
        fix=releases.reads_tools(engine) or _of_the_format(engine, right),
        order=failed[-1].order,
    )


def _marked(cluster: Cluster) -> Iterator[tuple[tuple[str, str, str], Line, tuple[str, ...]]]:
    """Whose log (namespace, pod, container) holds a call as a model writes it, where, and the parsers of that format."""
    for text in cluster.snapshot.logs:
        log = Log(text)
        for literal, pattern, parsers in _MARKS if text.pod and not text.previous else ():
            line = next((x for x in log.find(literal) if re.search(pattern, x.text[:4000])), None)
            if line is not None:
                yield (text.namespace, text.pod, text.container), line, parsers


def _of_the_format(engine: Engine, parser: str) -> Fix:
    return fixes.set_flag(
        engine,
        "tool_call_parser",
        "--tool-call-parser",
        parser,
        f"Set --tool-call-parser to {parser}, which reads this format",
    )


def _variables(engine: Engine) -> tuple[Evidence, ...]:
    """A NIM's variables for tool calls, which some releases read."""
    container, names = engine.container, _OF_NIM if engine.name == "nim" else ()
    return tuple(pod_evidence(container, f"env {x}", str(v.value)) for x in names if (v := container.env.get(x)))


def _switched_on(engine: Engine) -> Fix:
    """How this engine is told the two, and by the name of its model, or of a NIM's image, which parser it is."""
    container, (switch, choice) = engine.container, _OF_NIM
    model = engine.checkpoint or container.spec.image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    parser = tool_parser(model.rpartition("/")[2])
    by_variable = engine.name == "nim" and engine.at_least("2.0") is False and not _unread(engine)
    if by_variable and (choice in container.env or parser):
        values = {switch: "1"} | ({} if choice in container.env else {choice: parser})
        told = " and ".join(f"{name} to {value}" for name, value in values.items())
        return fixes.set_variables(container, values, f"Set {told}")
    which = parser or "that of the model's family (hermes, llama3_json, mistral, qwen3_coder and others)"
    if by_variable:
        return fixes.advice(f"Set {switch} to 1 and {choice} to {which} in {fixes.edited(engine.pod)}")
    where = " to NIM_PASSTHROUGH_ARGS, which NIM has from 2.0 on," if engine.name == "nim" else ""
    flags = f"--enable-auto-tool-choice and --tool-call-parser{f'={parser}' if parser else f' with {which}'}"
    return fixes.advice(f"Add {flags}{where} in {fixes.edited(engine.pod)}")


def _unread(engine: Engine) -> str:
    """That its variables for them are both set, and this release does not heed them."""
    switch, parser = (engine.container.env.get(name) for name in _OF_NIM)
    set_both = (
        engine.name == "nim" and switch and parser and str(switch.value).lower() in ("1", "true") and parser.value
    )
    return f" ({' and '.join(_OF_NIM)} had no effect)" if set_both else ""


def _reads_anyway(engine: Engine, parser: str) -> bool:
    """Whether the model is one of those whose tool calls vLLM reads by itself, as far as parser, mode or name say so."""
    model = str(engine.value("model", "")).lower()
    return parser in ("mistral", "openai") or engine.value("tokenizer_mode") == "mistral" or "gpt-oss" in model

"""Requests that are refused because more is in them than the server takes, and prompts that it cuts."""

import itertools
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Metrics,
    Pod,
    Subject,
    answered,
    check,
    count_of,
    fixes,
    length_of,
    log_evidence,
    often,
    say_seconds,
)
from llmdoctor_checks._clients import astray, refused, told
from llmdoctor_checks.serving import _bodies, _bus

#: So many refused requests, and this share of all, are worth a note.
_LEAST, _SHARE = 20, 0.05

#: Statuses as the server groups them.
_STATUSES = ("2xx", "3xx", "4xx", "5xx")

#: Prompts that are accepted and reach beyond this share of the context say that others may not have fitted.
_LONG, _OFTEN = 0.5, 0.01


#: Ollama's runner says this of a prompt that is longer than the context, and goes on with what it keeps; its server before (`server/
#: prompt.go`, where it is told to print debug lines) of the oldest messages of a chat that it leaves out.
_CUT, _CUT_MESSAGES = "truncating input prompt", "truncating input messages which exceed context length"

#: So many prompts, and so large a share of the requests that were answered, are no few that went astray; of fewer it may be by chance.
_FEWEST_CUTS, _FEW_CUTS, _MOST = 5, 2, 0.8
#: What is kept of the beginning of a prompt beside half of the context: num_keep, 4 by itself.
_KEPT = 64

#: Gin's access log of what Ollama generates, and of embeddings, of which a text that is too long loses its end by default.
_POSTED = 'POST     "/'
_GENERATED, _EMBEDDED = r"/(?:api/(?:chat|generate)|v1/(?:chat/)?completions)\"", r"/(?:api/embed|v1/embeddings)"


#: llama-server computes an embedding in one physical batch: who sends pieces of documents meets that again and again, with some of them.
_BATCH = "too large to process. increase the physical batch size"

#: vLLM counts the images, videos and audios of a request, with those of earlier turns of the chat.
_ITEMS = "(s) may be provided in one "

#: What servers answer, as clients print it: vLLM, SGLang, llama-server. vLLM's own log has only the status in some releases.
_REFUSED = (
    ("maximum context length is", r"maximum context length is (?P<max>\d{1,9}) tokens"),
    (
        "Please request fewer output tokens",
        r"cannot be greater than max_model_len=(?:max_total_tokens=)?(?P<max>\d{1,9})",
    ),
    ("is longer than the maximum model length of", r"maximum model length of (?P<max>\d{1,9})"),
    ("is longer than the model's context length", r"context length \((?P<max>\d{1,9}) tokens\)"),
    ("exceeds the available context size (", r"context size \((?P<max>\d{1,9}) tokens\)"),
    (_BATCH, r"\(current batch size: (?P<max>\d{1,9})\)"),
    (_ITEMS, r"At most (?P<max>\d{1,6}) (?P<what>[a-z_]{1,40})\(s\) may be provided in one (?:request|prompt)\b"),
)


#: What Ollama answers, with 400 or 500, to a text that is longer than the context of the model that embeds it; its log has the status.
_EMBEDDING = (
    ("input length exceeds the context length", r"\b[Tt]he input length exceeds the context length(?! of\b)"),
)
_TO_EMBED, _FAILED = r"/(?:api/embed(?:dings)?|v1/embeddings)\"", r"\| (?:400|500) \|"

#: How much was asked for, in the same answers: to generate, and the prompt; of some releases both together.
_ASKED_FOR = (
    ("new", r"you requested (\d{1,9}) output tokens"),
    (
        "have",
        r"(?:prompt contains(?: at least)?|requested(?: a total of)?|your request has|length|input \(|request \() ?\(?(\d{1,9})\b"
        r"(?! output)(?:\)? (?:input |prompt )?tokens|\) is longer| )",
    ),
)
#: To a multiple of this llama.cpp rounds the part of a slot up.
_ROUNDED = 256
#: What engines call the length of their context.
OPTIONS = {
    "vllm": "--max-model-len",
    "sglang": "--context-length",
    "llama.cpp": "--ctx-size",
    "nim": "NIM_MAX_MODEL_LEN",
}

#: What a server in Rust (axum) answers a body that is larger than it takes, and how clients print the status. Its log has no word of it.
_BODIES = (
    ("length limit exceeded", r"Failed to buffer the request body: length limit exceeded"),
    ("Payload Too Large", r"\b413\b.{0,60}Payload Too Large"),
)
#: Another reason for this status, which it does log.
_BATCH_OF_TEXTS = "maximum allowed batch size"


@check(
    "request-too-long",
    since="0.1",
    severity="warning",
    literals=(
        _CUT,
        _CUT_MESSAGES,
        "request: POST ",
        *(words for words, _ in (*_REFUSED, *_EMBEDDING, *_BODIES)),
        *_bodies.LITERALS,
        *_bodies.OWN,
        *_bus.LITERALS,
    ),
)
def request_too_long(
    pod: Pod, subject: Subject, cluster: Cluster, metrics: Metrics | None, logs: Logs | None
) -> Iterator[Finding]:
    """Requests are longer, or have more in them, than the server takes.

    Prompt and answer together must fit into the context length that the server was started with. Longer requests are refused
    with status 400; the server itself is well and serves others. Chat histories that grow, documents pasted whole and a large
    `max_tokens` are the usual reasons. llama-server divides its context among its slots.

    vLLM also limits how many images, videos and audios one request may have (`--limit-mm-per-prompt`; up to 0.8 one of each unless
    it is told otherwise), with those of earlier turns of the chat.

    The server's log says so for each request. Its metrics only count what was refused (vLLM by status, Text Generation
    Inference as `validation`); where many are, and accepted prompts come near the context, length is the likeliest reason.

    A gateway may refuse a request before the server sees it, for the size of its body (413): nginx takes 1 MiB where nothing is set,
    which an image or two fill, Express' parser of JSON 100 KiB, and an Envoy that reads the body to find a model's name what it may
    buffer. Its log says so, or that of any program that asks this server alone, where the server's own has no such answer. A
    gateway's own log is read the same way; where it has
    the size of each request, and at a route those above a limit are all refused (404 as well as 413) and no smaller one is,
    it need not be 413. Text
    Embeddings Inference and Text Generation Inference have such a limit themselves (`--payload-limit`, 2 MB where nothing is set), and
    only their clients are told of it.

    An Envoy whose filter wants the whole answer (embeddings are long) drops one above its buffer, too, and answers 500.

    NATS, over which a frontend of Dynamo's may send requests to workers, closes the connection on a message above its `max_payload`
    (1 MiB); only its own log says so, and the frontend's that nobody answered in time.

    Ollama refuses nothing: it cuts the beginning of a prompt down to its context (2048 or 4096 tokens where nothing else is
    set, in newer versions more on a large GPU), answers without what it cut, and only its log says so (of a chat's oldest messages,
    which it leaves out first, at its debug level). Where that happens to most requests, it is why the model forgets what it was told.
    A text to embed it does refuse, at `/api/embeddings`, and at `/api/embed` with `truncate: false`; only its clients are told why.

    ## Fix

    Raise the context as far as the model and the KV cache allow, or shorten what clients send.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/engine_args/
    - https://github.com/ggml-org/llama.cpp/tree/master/tools/server
    - https://docs.ollama.com/context-length
    """
    engines = subject.engines(pod)
    for engine in engines:
        yield from _of_engine(pod, engine, cluster, metrics, logs)
    server = pod.gpu_container if not engines else None
    found = _refused_before(pod, server, cluster, logs) if server is not None else None
    found = found or _bus.too_large(pod, cluster, logs)
    if found is None and not engines and logs is not None and pod.ready:
        found = _by_itself(pod, logs)
    if found is not None:
        yield found


def _of_engine(
    pod: Pod, engine: Engine, cluster: Cluster, metrics: Metrics | None, logs: Logs | None
) -> Iterator[Finding]:
    if engine.name == "ollama" and logs is not None:
        yield from _cut(pod, engine, logs)
        yield from _not_embedded(pod, engine, cluster, logs)
    if logs is not None and (found := _told_to_clients(pod, engine, cluster, logs)) is not None:
        yield found
        return
    if logs is not None and (found := _body_too_large(pod, engine, cluster, logs)) is not None:
        yield found
        return
    if (found := _refused_before(pod, engine.container, cluster, logs)) is not None:
        yield found
        return
    if metrics is not None:
        yield from _counted(pod, engine, metrics)


def _refused_before(pod: Pod, server: Container, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Bodies that a gateway refused, which the server never saw."""
    own = server.own_log(logs)
    bodies = _bodies.refused(pod, server, cluster, own)
    if not bodies:
        return None
    return _bodies.finding(pod, bodies, cause=not astray(len(bodies), len(bodies), answered(own) + len(bodies)))


def _by_itself(pod: Pod, logs: Logs) -> Finding | None:
    """What a gateway or another program that is no engine refuses itself for its size, by its own access log."""
    for own in (log for log in logs if not log.previous):
        if len(lines := _bodies.refused_itself(own)) >= _FEW_CUTS and not astray(
            len(lines), len(lines), answered(own) + len(lines)
        ):
            return _bodies.own_finding(pod, lines, "", "likely" if _bodies.in_own_words(own) else "possible")
        if len(dropped := _bodies.answers_dropped(own)) >= _FEW_CUTS and not astray(
            len(dropped), len(dropped), answered(own) + len(dropped)
        ):
            return _bodies.dropped_finding(pod, dropped)
        if (found := _bodies.refused_by_size(own)) is not None:
            lines, limit = found
            more = f", and each of more than {limit} bytes, while it answered all smaller ones"
            return _bodies.own_finding(pod, lines, more, "likely")
    return None


def _cut(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """Prompts that lost their beginning."""
    container = engine.container
    log = logs.current(container.name)
    found = [*log.find(_CUT, _CUT_MESSAGES, _POSTED)] if log is not None else []
    lines = sorted(found, key=lambda line: line.number)
    cuts = [line for line in lines if _POSTED not in line.text]
    if not cuts:
        return
    sizes = [(line, m) for line in cuts if (m := re.search(r"\blimit=(\d{1,9}) prompt=(\d{1,9})\b", line.text))]
    line, longest = max(sizes, key=lambda cut: int(cut[1][2])) if sizes else (cuts[-1], None)
    # a chat grows until it no longer fits
    since = [line.text for line in lines if line.number > cuts[0].number]
    posted = [text for text in since if _POSTED in text and " | 200 | " in text]
    answered, times = sum(bool(re.search(_GENERATED, text)) for text in posted), _times(lines)
    most = times >= _MOST * answered and not any(re.search(_EMBEDDED, text) for text in posted)
    usual = most and min(times, answered) >= _FEW_CUTS
    yield Finding(
        role="cause" if usual and (pod.ready or pod.log_only) else "note",
        severity="warning",
        confidence="certain" if not usual else "likely" if min(times, answered) >= _FEWEST_CUTS else "possible",
        summary=f"{engine.at} cut {count_of(times, 'prompt')} down to its context and answered without what it cut"
        + (f"; the longest had {longest[2]} tokens, of which {longest[1]} fit" if longest else "")
        + (f". It answered {answered} requests since the first." if usual else "."),
        evidence=(log_evidence(line),),
        fix=_enough(engine, int(longest[1]), int(longest[2])) if longest else _longer(engine, None),
    )


def _enough(engine: Engine, limit: int, prompt: int) -> Fix:
    """A context that takes a prompt, a power of two. Releases on llama-server cut it to half of the context, and what they always keep:
    one that would have fitted and was cut all the same takes twice as much, or was sent with a context of its own."""
    own = engine.value("max_model_len")
    fitted = isinstance(own, int) and limit < prompt < own
    halved = fitted and 0 <= limit - own // 2 <= _KEPT
    length = 1 << ((2 if halved else 1) * prompt - 1).bit_length()
    if fitted and not halved:
        return fixes.advice(
            f"Leave num_ctx out of the clients' requests and the Modelfile, or raise it there to {length}: the server has {own}"
        )
    return _longer(engine, length)


def _times(lines: list[Line]) -> int:
    """How many prompts were cut: of one whose last message is too long, too, both the server and the runner say so."""
    times = 0
    for posted, between in itertools.groupby(lines, lambda line: _POSTED in line.text):
        if not posted:
            both = [_CUT_MESSAGES in line.text for line in between]
            times += max(sum(both), len(both) - sum(both))
    return times


def _longer(engine: Engine, length: int | None) -> Fix:
    beyond = "beyond its longest prompt, as far as the GPU's memory allows"
    if engine.at_least("0.5.13") is False:
        to = f" to {length}" if length else ""
        return fixes.advice(f"Raise num_ctx{to} in the Modelfile or in the clients' requests: {beyond}")
    summary = f"Raise Ollama's context {beyond}; a num_ctx of the client or the Modelfile counts before it"
    if length is None:
        return fixes.advice(f"{summary} (OLLAMA_CONTEXT_LENGTH)")
    return fixes.set_env(engine.container, "OLLAMA_CONTEXT_LENGTH", str(length), summary)


def _its_own(engine: Engine, length: int) -> bool:
    """Whether a context is this server's, as far as its settings say; llama-server's is shared by its slots."""
    own = engine.value("max_model_len")
    return engine.name == "llama.cpp" or not isinstance(own, int) or own == length


def _told_to_clients(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs) -> Finding | None:
    """Clients, whose environment names this server, that print why it refused them; its own log has no word of it."""
    answers = told(pod, engine, cluster, logs, _REFUSED, "400")
    said_so = [(line, said) for line, said in answers if _ITEMS in said[0] or _its_own(engine, int(said["max"]))]
    if len(said_so) < _FEW_CUTS:
        return None
    line, said = said_so[-1]
    batch, items = _BATCH in line.text, _ITEMS in said[0]
    log, statuses = logs.current(engine.container.name), ("400", "500") if batch else ("400",)
    count, all_of = refused(log, *statuses)
    # a chat grows until each further turn is refused
    since = refused(log, *statuses, since_first=True)
    recent = not batch and max(_FEWEST_CUTS, _MOST * since[1]) <= since[0] and since != (count, all_of)
    if recent:
        count, all_of = since
    most = bool(count) and (not astray(len(said_so), count, all_of) if batch else count >= _MOST * all_of)
    return Finding(
        role="cause" if most else "note",
        severity="warning",
        summary=f"{line.log.pod} asks {engine.container.name} for more than "
        + (
            f"the {said['max']} tokens of its physical batch"
            if batch
            else f"{said['max']} {said['what']}s in one request"
            if items
            else f"its context of {said['max']} tokens, prompt and answer together"
        )
        + f", and is refused, {often(len(said_so))} in its log"
        + (f"; of {'the last ' if recent else ''}{all_of} requests {count} failed." if most else "."),
        evidence=(log_evidence(line, said[0]),),
        fixes=tuple(_of_client(engine, log, line, said, batch=batch, items=items)),
        order=line.order,
    )


def _not_embedded(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """Clients that print why Ollama did not embed a text; its own log has no word of it."""
    answers = told(pod, engine, cluster, logs, _EMBEDDING, "400")
    if len(answers) < _FEW_CUTS:
        return
    line, said = answers[-1]
    log = logs.current(engine.container.name)
    posted = [one.text for one in log.find(_POSTED) if re.search(_TO_EMBED, one.text)] if log else []
    failed = sum(bool(re.search(_FAILED, text)) for text in posted)
    yield Finding(
        role="note" if astray(len(answers), failed, len(posted)) else "cause",
        severity="warning",
        summary=f"{line.log.pod} has {engine.container.name} embed texts that are longer than the context of the model for it, and is "
        f"refused, {often(len(answers))} in its log"
        + (f"; of {len(posted)} requests to embed {failed} failed." if failed else "."),
        evidence=(log_evidence(line, said[0]),),
        fix=fixes.advice(
            f"Have {line.log.pod} embed smaller pieces (many such models take 512 tokens or fewer: mxbai-embed-large, all-minilm), or "
            "a model with a longer context (bge-m3, nomic-embed-text)"
        ),
        order=line.order,
    )


def _parts(engine: Engine, part: int) -> int:
    """Among how many slots llama-server divides its context, where one has so many tokens; 1 for all of it, 0 where that is not known."""
    whole, slots = engine.value("max_model_len"), engine.value("max_num_seqs")
    if engine.name != "llama.cpp" or not isinstance(whole, int) or whole <= part:
        return 1
    # it rounds a part up
    return slots if isinstance(slots, int) and slots > 1 and 0 <= part - whole // slots < _ROUNDED else 0


def _of_client(
    engine: Engine, log: Log | None, line: Line, said: re.Match[str], *, batch: bool, items: bool
) -> Iterator[Fix]:
    """What makes room for a client's requests, by which limit they meet: the physical batch, the items, else the context."""
    server, client = fixes.edited(engine.container.pod), line.log.pod
    asked = {name: match[1] for name, form in _ASKED_FOR if (match := re.search(form, line.text[:4000])) is not None}
    if batch:
        enough = 1 << max(int(asked.get("have", said["max"])), int(said["max"]) + 1).bit_length()
        text = f"Raise --ubatch-size and --batch-size of {server} to {enough}; at most to the model's own context"
        options = [
            ("max_num_batched_tokens", "--batch-size", str(enough)),
            ("ubatch_size", "--ubatch-size", str(enough)),
        ]
        yield fixes.set_flags(engine, options, text)
        yield fixes.advice(f"Have {client} cut its inputs to {said['max']} tokens")
        return
    if items:
        yield fixes.advice(
            f"Raise --limit-mm-per-prompt of {server} for {said['what']} above {said['max']}, to what a whole chat has: those of earlier "
            "turns count (each more takes memory beside the KV cache)"
        )
        yield fixes.advice(f"Have {client} send at most {said['max']} {said['what']}s in one request")
        return
    length = length_of(engine, log, {"max": said["max"], **asked})
    option, parts = OPTIONS.get(engine.name, ""), _parts(engine, int(said["max"]))
    if length.longer and option and parts:
        now, longer = (
            (engine.value("max_model_len"), length.longer * parts) if parts > 1 else (said["max"], length.longer)
        )
        each = f", of which each of {parts} slots has a part" if parts > 1 else ""
        summary = f"Raise {option} of {server} from {now} to {longer}{each}{length.bound}"
        yield fixes.set_flag(engine, "max_model_len", option, str(longer), summary)
    have = int(asked.get("have", "0"))
    left = int(said["max"]) - have
    yield fixes.advice(
        f"Have {client} ask for at most {left} tokens after such a prompt (max_tokens)"
        if "new" in asked and left > 0
        else f"Have {client} keep prompt and answer (max_tokens) together within {said['max']} tokens"
    )


def _body_too_large(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs) -> Finding | None:
    """Clients of a server that takes bodies of some size only, and does not say so itself."""
    log = logs.current(engine.container.name)
    if engine.name not in ("tei", "tgi") or (log is not None and log.holds(_BATCH_OF_TEXTS)):
        return None
    answers = told(pod, engine, cluster, logs, _BODIES, "413")
    times = max((sum(words in line.text for line, _ in answers) for words, _ in _BODIES), default=0)
    if not times:
        return None
    line, said = answers[-1]
    old = engine.name == "tei" and engine.at_least("1.3") is False
    return Finding(
        role="note" if astray(times, times, times + answered(log)) else "cause",
        severity="warning",
        summary=f"{line.log.pod} sends {engine.container.name} requests whose body is larger than it takes (413), {often(times)} in its "
        f"log; that of {engine.title} has no word of it.",
        evidence=(log_evidence(line, said[0]),),
        fix=fixes.advice(
            f"Have {line.log.pod} send fewer texts at a time: a body may have 2000000 bytes, and only releases from 1.3 on heed "
            "--payload-limit"
            if old
            else f"Raise --payload-limit in {fixes.edited(pod)} to 20000000 (2000000 bytes where nothing is set)"
        ),
        order=line.order,
    )


def _counted(pod: Pod, engine: Engine, metrics: Metrics) -> Iterator[Finding]:
    """Refused requests of a server whose prompts come near its context."""
    length, limit = metrics.histogram("prompt_length"), engine.value("max_model_len")
    if length is None or not isinstance(limit, int) or limit < 1 or not pod.ready:
        return
    refused, all_of, text = _refused(metrics)
    near = length.above(_LONG * limit)
    if refused < max(_LEAST, _SHARE * all_of) or near < _OFTEN:
        return
    yield Finding(
        role="note",
        confidence="possible",
        summary=f"{engine.container.name} refused {refused:.0f} of {all_of:.0f} requests ({refused / all_of:.0%}) in "
        f"{say_seconds(length.seconds)} as faulty; {near:.1%} of the prompts that it took are longer than half of its context of "
        f"{limit}, so that many were probably too long.",
        evidence=(
            Evidence(source="metric", ref=length.source, text=text),
            length.evidence(f"{near:.1%} more than {_LONG * limit:.0f} tokens"),
        ),
        fix=fixes.advice(
            f"Look into the log of {pod.name} for what was refused, and raise the context as far as model and KV cache allow",
            f"kubectl -n {pod.namespace} logs {pod.name} -c {engine.container.name}",
        ),
    )


def _refused(metrics: Metrics) -> tuple[float, float, str]:
    """How many requests were refused as faulty, of how many, and how the metric says it."""
    by_status, arrived = metrics.by("http", "status"), metrics.increase("arrived")
    if by_status := {status: count for status, count in by_status.items() if status in _STATUSES}:
        text = ", ".join(f"{status} {count:.0f}" for status, count in sorted(by_status.items()))
        return by_status.get("4xx", 0.0), sum(by_status.values()), f"{metrics.name_of('http')} by status: {text}"
    refused = metrics.by("errors", "err").get("validation", 0.0)
    return (
        refused,
        arrived.amount if arrived else 0.0,
        f"{metrics.name_of('errors')} with err=validation: +{refused:.0f}",
    )

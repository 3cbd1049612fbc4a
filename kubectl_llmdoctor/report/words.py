"""What every format says in the same words: names of targets, places of evidence, times, the command of a patch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.report.document import Capacity, EngineInfo, Evidence, Fix, Target, Verdict, Verification
from kubectl_llmdoctor.report.text_layout import clean, shorten

VERDICTS: dict[Verdict, str] = {
    "cause-found": "cause found",
    "undetermined": "cause not determined",
    "at-risk": "at risk",
    "healthy": "healthy",
}
_ENGINES = {
    "huggingfaceserver": "KServe Hugging Face server",
    "lmdeploy": "LMDeploy",
    "nim": "NIM",
    "ollama": "Ollama",
    "sglang": "SGLang",
    "tei": "TEI",
    "tensorrt-llm": "TensorRT-LLM",
    "tgi": "TGI",
    "triton": "Triton",
    "vllm": "vLLM",
}
OWNERS = {"model": "by the model's owner", "platform": "by the platform team"}
SOURCES = {"agent": "node agent", "prometheus": "Prometheus"}


def sentence(text: str) -> str:
    """A text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def name(target: Target) -> str:
    """`serving/llama-0` for a pod, `Deployment serving/llama` for anything else; `eu: …` where there are several clusters."""
    path = "/".join(filter(None, (clean(target.namespace), clean(target.name))))
    kind = "" if target.kind in ("Pod", target.name.capitalize()) else clean(target.kind)
    return within(target.context, f"{kind} {path}".strip() or "unnamed")


def is_under_way(target: Target) -> bool:
    """Whether it does not serve yet, or no more, by its state."""
    return target.status.startswith(("Pending", "Running, not ready", "Terminating"))


def verdict(target: Target) -> str:
    """`cause found`, or how many; of what is on its way only that nothing is wrong with it so far."""
    causes = len(target.having("cause"))
    if target.verdict == "healthy" and is_under_way(target):
        return "no fault so far"
    return f"{causes} causes found" if causes > 1 else VERDICTS[target.verdict]


def path(target: Target) -> str:
    """`serving/llama`: its workload, else itself, without the kind."""
    return "/".join(filter(None, (clean(target.namespace), clean((target.workload or target.name).rpartition("/")[2]))))


def within(context: str, text: str) -> str:
    """A text about one of several clusters, which its context names: `eu: gpu-1`."""
    return f"{clean(context)}: {text}" if context else text


def about(target: Target) -> str:
    """The engines, the workload and the size of the group, as far as they say something new."""
    names = " + ".join(f"{engine(e.name)} {e.version or ''}".strip() for e in engines(target))
    workload = "" if target.workload == f"{target.kind}/{target.name}" else target.workload
    pods = f"{len(target.pods)} pods" if len(target.pods) > 1 else ""
    return ", ".join(filter(None, (names, workload, pods)))


def engine(name: str) -> str:
    """An engine as its makers write it, in short: `vLLM`, `TGI`."""
    return _ENGINES.get(name, name)


def engines(target: Target) -> Sequence[EngineInfo]:
    """All inference servers of the target."""
    return target.engines or ((target.engine,) if target.engine else ())


def number(count: int, noun: str) -> str:
    """`1 workload`, `2 workloads`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def nodes(count: int) -> str:
    """`1 node`, `2 nodes`."""
    return number(count, "node")


def capacity(row: Capacity) -> str:
    """`H100: 2 nodes, 16 GPUs, 13 used, 3 free (1 node with 1, 1 node with 2), 1 stranded: cordoned`."""
    chunks = ", ".join(f"{nodes(count)} with {size}" for size, count in row.chunks.items())
    parts = [
        nodes(row.nodes),
        f"{row.total} GPUs",
        f"{row.allocated} used",
        f"{row.free} free" + f" ({chunks})" * bool(chunks),
    ]
    if row.total != row.allocatable:
        parts.insert(2, f"{row.allocatable} offered")
    if row.idle:
        parts.append(f"{row.idle} held but idle")
    parts += [f"{count} stranded: {clean(why)}" for why, count in row.stranded.items()]
    return within(row.context, f"{clean(row.product)}: {', '.join(parts)}")


def kind(evidence: Evidence) -> str:
    """The kind of a quotation in one word: `log`, `event`, `spec`, `status`, …"""
    if evidence.source in ("pod", "workload"):
        root = evidence.ref.rpartition(" ")[2].partition(".")[0]
        return {"status": "status", "metadata": "meta"}.get(root, "spec")
    return {"manifest": "file", "kernel-log": "kernel"}.get(evidence.source, evidence.source)


def place(evidence: Evidence, target: Target) -> str:
    """Where the quotation stands, without what the header or the kind says already."""
    ref = clean(evidence.ref).strip()
    own = (f"{target.namespace}/{target.name}", f"{target.kind}/{target.name}")
    ref = "" if ref in (*own, kind(evidence)) or (evidence.source, ref) == ("log", target.name) else ref
    for name in (*own, target.name):
        if ref.startswith(f"{name} "):
            ref = ref[len(name) + 1 :]
            break
    if target.namespace:
        ref = ref.removeprefix(f"{target.namespace}/")
    if evidence.source == "log":
        ref = ref.replace("initContainers[", "init [").replace("containers[", "[").replace("[", "").replace("]", "")
    for said in ("Node/", "spec.template.spec.", "spec.", "status."):
        ref = " ".join(word.removeprefix(said) for word in ref.split())
    line, age, count = evidence.line, evidence.age_seconds, evidence.count or 0
    parts = [
        clean(evidence.file or "") + (f":{line}" if line and evidence.file else ""),
        ref,
        f"line {line}" if line and not evidence.file else "",
        f"{span(age)} ago" if age is not None else "",
        f"{count}×" if count > 1 else "",
    ]
    return ", ".join(filter(None, parts))


def verified(result: Verification) -> str:
    """What a dry run showed, as a sentence."""
    if not result.accepted:
        return f"The API server refuses it (dry run): {result.said}"
    gone = {True: "the finding is gone then", False: "the finding stays", None: "only a restarted pod shows the rest"}
    return f"The API server accepts it (dry run), and {gone[result.gone]}."


def commands(fix: Fix, target: Target) -> tuple[str, ...]:
    """What to run: the fix's own commands, or the one that applies its patch; of a pod that exists little can change."""
    if fix.commands:
        return fix.commands
    if not fix.patch or fix.patch.target.startswith("v1 Pod/"):
        return ()
    import json
    from shlex import quote

    kind, _, name = fix.patch.target.rpartition(" ")[2].partition("/")
    of = fix.patch.namespace or target.namespace
    namespace = f"-n {quote(of)} " if of else ""
    body = quote(json.dumps(fix.patch.body, ensure_ascii=False, default=str))
    return (f"kubectl {namespace}patch {quote(f'{kind.lower()}/{name}')} --type={fix.patch.type} -p {body}",)


def owned(text: str, owner: str) -> str:
    """A fix with who makes it: `… (by the model's owner)`, `… (free or add nodes) – by …`, `… (in Pod/llama-0; by …)`."""
    _, opened, last = text.rpartition(" (")
    if opened and last.endswith(")") and not _WHERE.search(last):
        return f"{text} – {OWNERS[owner]}"
    return remarked(text, OWNERS[owner])


#: A remark that says in which object a fix is made, which has room for who makes it.
_WHERE = expression(r"(?:^|; )in [A-Z]\w+/")


def remarked(text: str, remark: str) -> str:
    """A text with a remark behind it, in the parentheses that it ends in already, if it does: `… (mind its memory; in …)`."""
    _, opened, last = text.rpartition(" (")
    if opened and last.endswith(")") and ")" not in last[:-1] and "(" not in last:
        return f"{text[:-1]}; {remark})"
    return f"{text} ({remark})"


def when(at: str | None, taken_at: str | None) -> str:
    """`21 min ago` if both times are known, else the time itself."""
    if not at:
        return "time unknown"
    from datetime import UTC, datetime

    def parse(text: str) -> datetime:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    try:
        if taken_at:
            return f"{span(int((parse(taken_at) - parse(at)).total_seconds()))} ago"
        return f"{parse(at).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError):
        return shorten(at, 20)


def span(seconds: int) -> str:
    """A duration in the largest unit of which there are at least two."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def inside(sentence: str) -> str:
    """A sentence as it reads inside another: `The pod …` -> `the pod …`, but `NCCL …` as it is."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() or sentence[1:2] == " " else sentence


def titles(target: Target) -> dict[str, str]:
    """What its findings are called inside a sentence, by their ids."""
    return {f.id: inside(f.title) for f in reversed(target.findings) if f.title}


def counted(items: Sequence[str]) -> str:
    """Each word once, the commonest first, with how often it occurs: `logs (3), events`."""
    counts: dict[str, int] = {}
    for word in items:
        counts[word] = counts.get(word, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{word} ({count})" if count > 1 else word for word, count in ordered)


def forbidden(reason: str) -> bool:
    """Whether a source was not read for want of a right."""
    said = reason.lower()
    statuses = {word.strip(".,:;()") for word in said.split()}
    return "forbidden" in said or "unauthorized" in said or not statuses.isdisjoint({"401", "403"})


def not_run(unjudged: Iterable[tuple[str, str]]) -> list[str]:
    """Checks that could not judge, by what they lacked: `node gpu-1 was not read (2 checks): driver-missing, …`."""
    lacking: dict[str, dict[str, None]] = {}
    for check, reason in unjudged:
        lacking.setdefault(reason, {})[check] = None
    return [f"{reason} ({number(len(ids), 'check')}): {', '.join(ids)}" for reason, ids in lacking.items()]


def gist(reason: str) -> str:
    """A reason up to its details: `forbidden: User "x" cannot list …` -> `forbidden`."""
    reason = reason.strip()
    for mark in ("\n", ": ", " (", "; "):
        reason = reason.partition(mark)[0]
    return shorten(reason, 60) or "no reason given"


#: Reasons that differ only in a name, and the same of several.
_OF_SEVERAL = (
    (("node ", " was not read"), "{} nodes were not read"),
    (("no log of ", " was read"), "no log of {} pods was read"),
)


def gists(reasons: Sequence[str]) -> str:
    """Reasons in short, those that differ only in a name as one, each with how often it is given."""
    said = list(reasons)
    for (start, end), several in _OF_SEVERAL:
        alike = {reason for reason in said if reason.startswith(start) and reason.endswith(end)}
        if len(alike) > 1:
            said = [several.format(len(alike)) if reason in alike else reason for reason in said]
    short = sorted(map(gist, said))
    return short[0] if len(set(short)) == 1 else counted(short)

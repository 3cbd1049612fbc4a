"""Arguments that the engine's own parser refuses."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Ending,
    Engine,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    Problem,
    Subject,
    check,
    ending_of,
    expression,
    fixes,
    log_evidence,
    log_of,
    phase_of,
    pod_evidence,
    problem_evidence,
    setting_evidence,
    stating,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.start._arguments_mended import from_config_map, listed, mended, misspelt
from llmdoctor_checks.start._first_word import first_word_alone
from llmdoctor_checks.start._llama_arguments import (
    ASSERTION,
    NO_OPTION,
    NOT_BOUND,
    aborts,
    before_its_server,
    left_over,
    no_option,
    tls_refused,
    unspoken,
)
from llmdoctor_checks.start._marks import in_marks
from llmdoctor_checks.start._warmup_by_proxy import WARMUP, warmup_by_proxy

#: Kinds of problems at which the engine ends; the others are only remarkable.
_FATAL = frozenset(
    {"unknown-flag", "removed-flag", "missing-value", "bad-value", "glued", "duplicate-serve", "conflict"}
)

#: Into how many parts a model is split, or how often it stands beside itself.
_SIZES = (
    "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "decode_context_parallel_size",
    "prefill_context_parallel_size",
)  # fmt: skip

#: What vLLM prints (v1/engine/core.py) when all of its configuration stands: "Initializing a V1 LLM engine (v0.9.1) with config: …".
_CONFIGURED = " LLM engine (v"

#: A variable as a shell spells it.
_SHELL_VARIABLE = r"\$(?:\{(\w{1,100})\}|(\w{1,100}))"

#: Where the number of a node or a rank is from.
_INDEX = (
    "is the index of a StatefulSet's pod (label apps.kubernetes.io/pod-index) or LWS_WORKER_INDEX, each one less than now "
    "where it counts from 1"
)
#: torchrun with its options up to what it starts, and those of them that say which node of how many this is.
_TORCHRUN = expression(
    r"(?:\btorchrun|\btorch\.distributed\.(?:run|launch))(?![\w.-])(?:(?!\.py\b|\s(?:-m|--module)\s)[^;&|\n]){0,2000}"
)
_GROUP = expression(r"(?<![\w-])--(?P<name>nnodes|node[-_]rank|rdzv[-_]backend)[= ](?P<value>[\w-]{1,40})(?![\w.:-])")
#: By what PyTorch's `env://` knows the same of a process; engines for models do not go by it.
_RANK_OF = ("RANK", "WORLD_SIZE")

#: Images whose entrypoint is the program that takes the arguments, each by the Dockerfile of its project.
_ENTRYPOINTS = (
    (r"(?:^|/)ollama/ollama(?:$|[:@])", "ollama"),
    (r"(?:^|/)(?:ggml-org|ggerganov)/llama\.cpp:server\b", "llama-server"),
    # the image of its backend for llama.cpp has an entrypoint of its own (Dockerfile_llamacpp)
    (r"(?:^|/)huggingface/text-generation-inference(?:$|[:@])(?!\S{0,60}-llamacpp)", "text-generation-launcher"),
    (r"(?:^|/)huggingface/text-embeddings-inference(?:$|[:@])", "text-embeddings-router"),
)


@check("engine-args-invalid", since="0.1", literals=(NOT_BOUND, ASSERTION, _CONFIGURED, NO_OPTION, WARMUP))
def engine_args_invalid(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The program refuses its arguments or settings.

    An argument is unknown to this version of the engine, was removed, lacks its value, has one of the wrong type, or
    stands in one list element together with its value. The program prints its usage and ends with exit code 2 (1
    where a configuration class refuses the value) within seconds, before it loads anything.

    A parallel size of 0 passes the parser of most releases; the division by it then ends the server (ZeroDivisionError).
    So does a --node-rank that is not below --nnodes, also of torchrun, and a RANK that is not below WORLD_SIZE; its pod then waits
    forever, and the others for it.
    llama-server takes a negative context and a batch of 0, and aborts on an assertion (exit code 134).

    A variable that a program reads without a default (`os.environ["NAME"]`, a script with `set -u`) and that nobody set ends
    it in the same way; programs say so in words of their own, and so they do of a login that their database or store refuses.

    SGLang asks itself for its first answer, at the address of --host, and obeys `http_proxy`: where `no_proxy` does not name that
    address, a proxy answers in its place, and SGLang kills itself (exit code 137, and no lack of memory). httpx, with which
    huggingface_hub, LiteLLM and OpenAI's client ask, takes the end of an IPv6 address in `no_proxy` for a port, and fails.

    An image whose entrypoint is the server hands it all of `args`: a server that is named at their head again refuses its own name.

    A start script of Ollama that calls its client first (`ollama create … && ollama serve`) never comes to the server that the
    client asks.

    The kubelet replaces `$(NAME)` in arguments by the value of a variable, and nothing else: without a shell `$NAME` and `${NAME}` reach
    the program as they stand.

    Of several words after `sh -c` the shell takes the first alone for its script: `command: [sh, -c]` with
    `args: [vllm, serve, MODEL]` runs `vllm`, which prints its usage and ends; `python3` without arguments ends with exit code 0.

    Of an image whose release is not known (`latest`) only slips of the pen, other engines' names, and beginnings of several
    options (`--enable-metric`) are told: no release that was read has such an option, and one that is spelt almost like it,
    or does the same, is there.

    ## Fix

    Correct the argument that the message names. Each list element of `args` is one word: `--flag=value`, or the flag
    and its value as two elements. `--help` of the very image tells what it knows:

        kubectl run args --rm -it --restart=Never --image=IMAGE -- --help

    ## References

    - https://docs.vllm.ai/en/latest/configuration/engine_args/
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
    yield from in_marks(pod, logs)
    yield from first_word_alone(pod)
    yield from _no_such_rank(pod, subject)
    for engine in subject.engines(pod):
        yield from _refused(pod, engine, logs)


def _refused(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """What an engine refuses."""
    if logs:
        yield from tls_refused(pod, engine, logs)
        yield from unspoken(pod, engine, logs)
        yield from left_over(pod, engine, logs)
        yield from warmup_by_proxy(pod, engine, logs)
    yield from _unexpanded(pod, engine)
    yield from _no_size(pod, engine)
    yield from _no_such_node(pod, engine)
    yield from aborts(pod, engine, logs)
    if engine.name == "ollama" and not pod.exists:
        yield from before_its_server(pod, engine)
    if not pod.exists:
        yield from _program_twice(engine)
    fatal = [p for p in engine.problems if p.kind in _FATAL]
    if not fatal:
        return
    ended, crashed = ending_of(engine.container), engine.container.crashed
    if crashed and _took_its_arguments(ended, logs):
        return
    if crashed and (ended is None or ended.code in (1, 2)):
        yield _ended_over_them(pod, engine, fatal, ended, logs)
    elif not pod.exists and (sure := _sure(fatal) or misspelt(engine, fatal)):
        yield Finding(
            role="risk",
            severity="critical",
            confidence="certain" if _sure(sure) else "likely",
            summary=f"{engine.label} does not understand its arguments as they are meant: {listed(sure)}.",
            evidence=tuple(problem_evidence(pod, p) for p in sure),
            fixes=tuple(mended(engine, sure)),
        )


def _ended_over_them(
    pod: Pod, engine: Engine, fatal: list[Problem], ended: Ending | None, logs: Logs | None
) -> Finding:
    """An engine that ended as one does that refuses its arguments; certain where its parser's code or words say so."""
    said = no_option(engine, logs)
    named = said is not None and any(p.text == said[0] for p in fatal)
    quick = ended and (ended.code == 2 or named)
    sure = _sure(fatal)
    shown = sure or fatal
    return Finding(
        confidence="certain" if quick and sure else "likely" if quick or sure or not ended else "possible",
        summary=f"Container {engine.container.name} ends over its arguments: {listed(shown)}.",
        evidence=(
            *(problem_evidence(pod, p) for p in shown),
            *(shared[1] for p in shown if (shared := from_config_map(engine, p))),
            *((log_evidence(said[1]),) if said and named else ()),
            *((pod_evidence(pod, ended.path, ended.text),) if ended else ()),
        ),
        explains=FAILED_START,
        fixes=tuple(mended(engine, shown)),
    )


def _took_its_arguments(ending: Ending | None, logs: Logs | None) -> bool:
    """Whether the instance that ended came further than to its arguments, by its log."""
    log = log_of(ending, logs) if ending is not None and logs is not None else None
    phase = phase_of(log) if log is not None else None
    if phase is not None and phase.name not in ("", "downloading the model"):
        return True
    return log is not None and any("Initializing a" in line.text for line in log.find(_CONFIGURED))


def _program_twice(engine: Engine) -> Iterator[Finding]:
    """The program at the head of the arguments, where it is the image's entrypoint already: it gets its own name, and refuses it."""
    container = engine.container
    program = next((name for image, name in _ENTRYPOINTS if re.search(image, container.spec.image)), None)
    word = next(((path, text) for path, text in container.words), None)
    if program is None or word is None or container.spec.command or word[1].rpartition("/")[2] != program:
        return
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"The entrypoint of {container.spec.image} is {program} already: it gets `{word[1]}` of {container.name} as an argument, "
        "which it refuses.",
        evidence=(pod_evidence(container, *word),),
        fix=fixes.remove_word(container, word[0], f"Leave {word[1]} out of args"),
    )


def _unexpanded(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A variable of the container in a shell's spelling, in an argument that no shell reads: the kubelet knows `$(NAME)` alone."""
    container = engine.container
    for setting in () if pod.exists else engine.found.settings.values():
        found = re.search(_SHELL_VARIABLE, setting.text)
        name = (found[1] or found[2]) if found else ""
        variable = container.env.get(name)
        # in a script a shell may read it
        words = (word for _, word in container.words if word in engine.found.argv)
        word = next((word for word in words if found and found[0] in word), None)
        if found is None or word is None or variable is None or "$" in str(variable.value or ""):
            continue  # a tool that fills in the file may fill in both
        meant = re.sub(
            _SHELL_VARIABLE, lambda m: f"$({m[1] or m[2]})" if (m[1] or m[2]) in container.env else m[0], word
        )
        told = f"Write {meant}, which the kubelet replaces by the variable's value"
        yield Finding(
            role="risk",
            severity="critical",
            # a script of somebody's own may read them as a shell does
            confidence="likely" if engine.found.argv_known else "possible",
            summary=f"{engine.title} is given {found[0]} as it stands: no shell reads the arguments of {container.name}, and the "
            f"kubelet replaces $({name}) only.",
            evidence=(
                setting_evidence(container, setting),
                pod_evidence(container, f"env[{name}]", str(variable.value or variable.origin)),
            ),
            fix=stating.word(container, word, meant, told) or fixes.advice(f"{told}, in {fixes.edited(pod)}"),
        )
        return


def _no_size(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A parallel size below one, which the parsers of most releases take; the model is then shared out by dividing by it."""
    settings = [s for name in _SIZES if (s := engine.explicit(name)) and isinstance(s.value, int) and s.value < 1]
    crashed = engine.container.crashed
    if not settings or engine.name not in ("vllm", "sglang") or (pod.exists and not crashed):
        return
    yield Finding(
        role="cause" if pod.exists else "risk",
        severity="critical",
        summary=f"{engine.title} shares the model out by {settings[0].text}: a size below 1 is none.",
        evidence=tuple(setting_evidence(engine.container, s) for s in settings),
        explains=("gpu-runtime-missing", "tp-not-divisible", *FAILED_START) if pod.exists else (),
        fixes=tuple(_counted(engine, s.flag) for s in settings),
    )


def _counted(engine: Engine, flag: str) -> Fix:
    """A parallel size that the container has the GPUs for: all of them for tensor parallelism, one part for any other."""
    size = max(engine.container.gpus, 1) if flag in ("-tp", "--tp", "--tp-size", "--tensor-parallel-size") else 1
    return stating.put(engine.container, engine, flag, str(size), f"Set {flag} to {size}")


def _no_such_node(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A node whose number is not among those of its group, which count from 0: the others never meet it."""
    nodes, number, container = engine.explicit("nnodes"), engine.explicit("node_rank"), engine.container
    if nodes is None or number is None or (pod.exists and (pod.ready or pod.status.phase == "Succeeded")):
        return
    if not isinstance(nodes.value, int) or not isinstance(number.value, int) or not 0 < nodes.value <= number.value:
        return
    yield _beyond(
        pod,
        container,
        f"{number.text} names none of the nodes of {nodes.text}: they count from 0 to {nodes.value - 1}.",
        (setting_evidence(container, number), setting_evidence(container, nodes)),
        f"Number the nodes from 0 to {nodes.value - 1}, in {fixes.edited(pod)}: {number.flag} {_INDEX}",
    )


def _beyond(pod: Pod, container: Container, summary: str, evidence: tuple[Evidence, ...], fix: str) -> Finding:
    """The finding of a number that is not among those of its group."""
    # one that was never started fails of something else, and so does one that the kernel ended
    ended = ending_of(container)
    meets = pod.exists and (container.running or container.crashed) and not (ended and ended.oom_killed)
    return Finding(
        role="cause" if meets else "risk",
        severity="critical",
        summary=summary,
        evidence=evidence,
        explains=("multinode-discovery", "gang-incomplete", "nccl-timeout", "nccl-other", *FAILED_START)
        if meets
        else (),
        fix=fixes.advice(fix),
    )


def _no_such_rank(pod: Pod, subject: Subject) -> Iterator[Finding]:
    """The same of programs that torchrun starts as nodes, and of those that are told their rank themselves."""
    if pod.exists and (pod.ready or pod.status.phase == "Succeeded"):
        return
    serving = {engine.container.name for engine in subject.engines(pod)}  # these number their processes themselves
    for container in pod.containers:
        launch = _TORCHRUN.search(" ".join(word for _, word in container.words)[:20_000])
        if launch is not None:
            told = {found["name"].replace("_", "-"): found["value"] for found in _GROUP.finditer(launch[0])}
            texts = [f"--{name}={told.get(name, '')}" for name in ("node-rank", "nnodes")]
            # only the static rendezvous numbers the nodes by what they are told
            if told.get("rdzv-backend", "static") != "static" or re.search(r"\s--standalone\b", launch[0]):
                continue
            evidence: tuple[Evidence, ...] = (pod_evidence(container, "args", launch[0][:200]),)
            flag = "--node-rank"
        elif container.name in serving:
            continue
        else:
            env = {name: (one.value or "") for name in _RANK_OF if (one := container.env.get(name)) is not None}
            texts = [f"{name}={env.get(name, '')}" for name in _RANK_OF]
            evidence, flag = (
                tuple(pod_evidence(container, f"env[{name}]", value) for name, value in env.items()),
                "RANK",
            )
        number, count = (text.partition("=")[2] for text in texts)
        if not (number.isdecimal() and count.isdecimal() and 0 < int(count) <= int(number)):
            continue
        yield _beyond(
            pod,
            container,
            f"{texts[0]} is none of the numbers that {texts[1]} leaves: they count from 0 to {int(count) - 1}.",
            evidence,
            f"Count from 0 to {int(count) - 1}, in {fixes.edited(pod)}: {flag} {_INDEX}",
        )


def _sure(problems: list[Problem]) -> list[Problem]:
    """Those that surely go wrong; a flag glued to its value is refused or swallowed, never obeyed."""
    return [p for p in problems if p.certain or p.kind == "glued"]

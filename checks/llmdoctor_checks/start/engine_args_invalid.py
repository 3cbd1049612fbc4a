"""Arguments that the engine's own parser refuses."""

import re
import shlex
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from kubectl_llmdoctor.api import (
    MASK,
    Container,
    Ending,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Problem,
    Subject,
    check,
    ending_of,
    endings,
    expression,
    fixes,
    log_evidence,
    log_of,
    phase_of,
    pod_evidence,
    problem_evidence,
    setting_evidence,
    settling,
    stating,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.start._first_word import first_word_alone
from llmdoctor_checks.start._marks import in_marks
from llmdoctor_checks.start._scripts import quoted
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

#: Sizes of llama.cpp, and the least that one may be: its parser takes any number, and makes a huge one of a negative one.
_LEAST = {"max_model_len": 0, "max_num_batched_tokens": 1}

#: How an assertion of llama.cpp that failed begins (ggml.h).
_ASSERTION = "GGML_ASSERT("

#: What llama.cpp prints (tools/server/server-http.cpp) when it cannot listen, whatever the reason.
_NOT_BOUND = "couldn't bind HTTP server socket"

#: What vLLM prints (v1/engine/core.py) when all of its configuration stands: "Initializing a V1 LLM engine (v0.9.1) with config: …".
_CONFIGURED = " LLM engine (v"

#: What llama.cpp (common/arg.cpp) says of a word that stands where an option should.
_NO_OPTION = "error: invalid argument: "

#: A variable as a shell spells it.
_SHELL_VARIABLE = r"\$(?:\{(\w{1,100})\}|(\w{1,100}))"

#: Shells that a container's arguments may begin with.
_SHELLS = frozenset({"sh", "bash", "ash", "dash", "/bin/sh", "/bin/bash", "/bin/ash", "/usr/bin/bash", "/usr/bin/sh"})

#: Seconds within which llama-server has parsed its arguments and bound its socket.
_AT_ONCE = 30

#: How llama-server says that something failed, or that it came further.
_SAID_WHY = (
    r"\bE\s|(?i:error|fail|exception|invalid|terminat|denied|loading model|listening"
    r"|no such|not found|missing|cannot|can't|could ?n[o']t|unable|unknown|unsupported|usage:|abort|giving up|exit|out of memory)"
)

#: A client of Ollama whose success its own server waits for.
_EARLY = (
    r"\bollama\s{1,9}(?P<what>pull|run|create|list|show|cp)\b[^\n;&|]{0,300}&&[\s\\]{0,40}"
    r"(?:exec\s{1,9})?(?:/[\w/]{1,40}/)?ollama\s{1,9}serve\b"
)

#: Options of `docker run` that guides show before the image, and manifests then have behind it.
_OF_DOCKER = frozenset((
    "--runtime", "--gpus", "-p", "--publish", "--ipc", "--shm-size", "-v", "--volume", "--mount", "--network", "--net", "--name",
    "--rm", "-it", "-d", "--detach", "-e", "--env", "--env-file", "--ulimit", "--privileged", "--cap-add", "--device", "--group-add",
    "--security-opt", "--restart", "--entrypoint", "--platform", "--pull",
))  # fmt: skip
#: Those of them that take no value: a word behind is something else, such as the model.
_ALONE = frozenset(("--rm", "-it", "-d", "--detach", "--privileged"))
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

#: The images of the projects themselves.
_PUBLISHED = r"(?:^|/)(?:vllm/vllm-openai|lmsysorg/sglang|huggingface/text-generation-inference)(?:$|[:@])"

#: Images whose entrypoint is the program that takes the arguments, each by the Dockerfile of its project.
_ENTRYPOINTS = (
    (r"(?:^|/)ollama/ollama(?:$|[:@])", "ollama"),
    (r"(?:^|/)(?:ggml-org|ggerganov)/llama\.cpp:server\b", "llama-server"),
    # the image of its backend for llama.cpp has an entrypoint of its own (Dockerfile_llamacpp)
    (r"(?:^|/)huggingface/text-generation-inference(?:$|[:@])(?!\S{0,60}-llamacpp)", "text-generation-launcher"),
    (r"(?:^|/)huggingface/text-embeddings-inference(?:$|[:@])", "text-embeddings-router"),
)


@check("engine-args-invalid", since="0.1", literals=(_NOT_BOUND, _ASSERTION, _CONFIGURED, _NO_OPTION, WARMUP))
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
        yield from _tls_refused(pod, engine, logs)
        yield from _unspoken(pod, engine, logs)
        yield from _left_over(pod, engine, logs)
        yield from warmup_by_proxy(pod, engine, logs)
    yield from _unexpanded(pod, engine)
    yield from _no_size(pod, engine)
    yield from _no_such_node(pod, engine)
    yield from _aborts(pod, engine, logs)
    if engine.name == "ollama" and not pod.exists:
        yield from _before_its_server(pod, engine)
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
    elif not pod.exists and (sure := _sure(fatal) or _misspelt(engine, fatal)):
        yield Finding(
            role="risk",
            severity="critical",
            confidence="certain" if _sure(sure) else "likely",
            summary=f"{engine.label} does not understand its arguments as they are meant: {_list(sure)}.",
            evidence=tuple(problem_evidence(pod, p) for p in sure),
            fixes=tuple(_fixes(engine, sure)),
        )


def _ended_over_them(
    pod: Pod, engine: Engine, fatal: list[Problem], ended: Ending | None, logs: Logs | None
) -> Finding:
    """An engine that ended as one does that refuses its arguments; certain where its parser's code or words say so."""
    said = _no_option(engine, logs)
    named = said is not None and any(p.text == said[0] for p in fatal)
    quick = ended and (ended.code == 2 or named)
    sure = _sure(fatal)
    shown = sure or fatal
    return Finding(
        confidence="certain" if quick and sure else "likely" if quick or sure or not ended else "possible",
        summary=f"Container {engine.container.name} ends over its arguments: {_list(shown)}.",
        evidence=(
            *(problem_evidence(pod, p) for p in shown),
            *(shared[1] for p in shown if (shared := _from_config_map(engine, p))),
            *((log_evidence(said[1]),) if said and named else ()),
            *((pod_evidence(pod, ended.path, ended.text),) if ended else ()),
        ),
        explains=FAILED_START,
        fixes=tuple(_fixes(engine, shown)),
    )


def _took_its_arguments(ending: Ending | None, logs: Logs | None) -> bool:
    """Whether the instance that ended came further than to its arguments, by its log."""
    log = log_of(ending, logs) if ending is not None and logs is not None else None
    phase = phase_of(log) if log is not None else None
    if phase is not None and phase.name not in ("", "downloading the model"):
        return True
    return log is not None and any("Initializing a" in line.text for line in log.find(_CONFIGURED))


def _tls_refused(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """llama-server whose certificate or key cannot be used: it says no more than that it could not bind its socket."""
    key, cert = engine.explicit("ssl_key_file"), engine.explicit("ssl_cert_file")
    container = engine.container
    crashed = container.crashed
    if engine.name != "llama.cpp" or not key or not cert or not crashed:
        return
    for line in (found for log in logs.of(container.name) for found in log.find(_NOT_BOUND)):
        yield Finding(
            summary=f"llama-server cannot use the TLS key and certificate that it was given ({key.text} {cert.text}): "
            "they are not in the container, unreadable, or do not belong together. It says only that it could not bind.",
            evidence=(log_evidence(line), setting_evidence(container, key), setting_evidence(container, cert)),
            explains=("port-in-use", "permission-denied", *FAILED_START),
            fix=fixes.advice(
                "Mount the Secret with tls.crt and tls.key where --ssl-cert-file and --ssl-key-file look for them, "
                f"correct the paths in {fixes.edited(pod)}, or leave TLS to the ingress"
            ),
            order=line.order,
        )
        return


def _unspoken(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """llama-server that ended before it listened, and whose log keeps no error: it may lose its last lines when it ends.

    What is left are the settings over which it ends so early: where it is to listen, and its TLS.
    """
    container = engine.container
    ended = next((e for e in endings(pod) if e.container is container and e.code == 1), None)
    kept = logs.of(container.name, previous=True)
    if engine.name != "llama.cpp" or ended is None or not kept or (ended.seconds or 0) > _AT_ONCE:
        return
    if any(re.search(_SAID_WHY, line.text) for log in kept for line in log.lines()):
        return
    host, key, cert = (engine.explicit(name) for name in ("host", "ssl_key_file", "ssl_cert_file"))
    if host is not None and _foreign(pod, str(host.value)):
        settings = [host]
        what = f"it is told to listen on {host.value}, which is no address of this pod"
        fix = fixes.advice(f"Set --host 0.0.0.0 in {fixes.edited(pod)}; only clients name the Service")
    elif key is not None and cert is not None:
        settings = [key, cert]
        what = (
            f"it is told to use TLS ({key.text} {cert.text}), and these files are missing, or this build has no TLS ("
            'it then says "built without SSL support")'
        )
        fix = fixes.advice(
            f"Mount the Secret with both files where {fixes.edited(pod)} looks for them, take an image whose llama.cpp is built with "
            "OpenSSL, or leave TLS to the ingress"
        )
    else:
        return
    yield Finding(
        confidence="likely" if settings == [host] else "possible",
        summary=f"llama-server ended before it listened, and its log keeps no reason: {what}.",
        evidence=(
            *(setting_evidence(container, setting) for setting in settings),
            pod_evidence(pod, ended.path, ended.text),
        ),
        explains=FAILED_START,
        fix=fix,
    )


def _no_option(engine: Engine, logs: Logs | None) -> tuple[str, Line] | None:
    """The word that llama-server refused as no option, and the line that says so."""
    log = log_of(ending_of(engine.container), logs) if engine.name == "llama.cpp" else None
    line = log.last(_NO_OPTION) if log is not None else None
    return (line.text.partition(_NO_OPTION)[2].strip(), line) if line is not None else None


def _left_over(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A word that llama-server refused: the value of an option that an earlier one took for its own, or a shell."""
    said = _no_option(engine, logs)
    if said is None or not engine.container.crashed:
        return
    (word, line), container = said, engine.container
    spec = container.spec
    if word in _SHELLS and not spec.command and spec.args and spec.args[0] == word:
        at = container.pointer
        why = f"args of {container.name} begin with {word}, and the image's ENTRYPOINT is llama-server, which takes them for its own"
        shown = pod_evidence(container, "args", quoted(" ".join(str(one) for one in spec.args)))
        moved: list[dict[str, Any]] = [
            {"op": "add", "path": f"{at}/command", "value": spec.words("args")},
            {"op": "remove", "path": f"{at}/args"},
        ]
        fix = fixes.patch(
            pod,
            "Put the shell and its script into command, which takes the place of the ENTRYPOINT; the script calls the server by its "
            "whole path (/app/llama-server in llama.cpp's images)",
            moved,
        )
    elif taken := _taken(container, engine.found.argv, word):
        option, other, name, shown = taken
        why = f"{name} is empty, so that {option} takes {other} for its value and {word} is left over"
        fix = fixes.advice(
            f"Set {name} in env of {container.name} to the value of {option}{' (the GGUF file)' * (option in ('-m', '--model'))}, in"
            f' {fixes.edited(pod)}, and quote it in the script ("${name}")'
        )
    else:
        return
    yield Finding(
        confidence="certain",
        summary=f"llama-server got {word} where an option should stand: {why}.",
        evidence=(log_evidence(line), shown),
        explains=FAILED_START,
        fix=fix,
    )


def _taken(container: Container, argv: tuple[str, ...], word: str) -> tuple[str, str, str, Evidence] | None:
    """An option whose value is an empty variable, the option that it takes for it, the variable, and where both stand."""
    before = next((argv[max(i - 3, 0) : i] for i, one in enumerate(argv) if one == word and i > 1), ())
    if not before or not before[-1].startswith("-"):
        return None
    for path, text in container.words:
        for option in reversed(before[:-1]):
            found = re.search(rf"(?<!\S){re.escape(option)}[ =]\$\{{?(\w{{1,80}})\}}?(?=\s)", text)
            if found is None or re.search(rf"(?<!\w){found[1]}=|\b(?:for|read) {found[1]}\b", text):
                continue  # the script itself sets it
            variable = container.env.get(found[1])
            if option.startswith("-") and (variable is None or variable.value == ""):
                return option, before[-1], found[1], pod_evidence(container, path, quoted(found[0]))
    return None


def _foreign(pod: Pod, host: str) -> bool:
    """Whether no interface of the pod has this address or name, as far as is known."""
    if pod.spec.host_network or host.startswith("/") or host.lower() in ("localhost", pod.name.lower()):
        return False
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        # the name of a Service; a name without a domain may be the pod's own
        return "." in host and not host.startswith(f"{pod.name}.")
    own = pod.status.pod_ip
    return (
        not (address.is_unspecified or address.is_loopback)
        and bool(own)
        and str(address) != own
        and (":" in own) == (":" in host)  # a pod may have an address of each kind, and only the first is known
    )


def _before_its_server(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """`ollama create … && ollama serve`: the first asks the server that is started only when it has succeeded."""
    container = engine.container
    for path, text in container.words:
        found = re.search(_EARLY, text)
        # a server that runs by then, or another one
        if found is None or re.search(r"\bollama\s{1,9}serve\b|\bOLLAMA_HOST=", text[: found.start()]):
            continue
        yield Finding(
            role="risk",
            severity="critical",
            summary=f"`ollama {found['what']}` of {container.name} asks a server, and the script starts it only after that: it "
            'ends with "could not connect to ollama server".',
            evidence=(pod_evidence(container, path, quoted(" ".join(found[0].split()))),),
            fix=fixes.advice(
                "Start `ollama serve` in the background, wait with `until ollama list`, and end with `wait`, in "
                f"{fixes.edited(pod)}"
            ),
        )
        return


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


def _aborts(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """llama-server that aborted, and has a size that is none."""
    container = engine.container
    ended = ending_of(container)
    if engine.name != "llama.cpp" or ended is None or ended.code != 134:
        return
    log = log_of(ended, logs)
    asserted = next(log.find(_ASSERTION), None) if log is not None else None
    for name, least in _LEAST.items():
        setting = engine.explicit(name)
        if setting is None or not isinstance(setting.value, int) or setting.value >= least:
            continue
        # a huge context ends in whatever takes memory, an empty batch in an assertion alone
        if name != "max_model_len" and log is not None and asserted is None:
            continue
        yield Finding(
            summary=f"llama-server aborts over {setting.text}: {least} is the least that it may be.",
            evidence=(
                setting_evidence(container, setting),
                pod_evidence(pod, ended.path, ended.text),
                *((log_evidence(asserted),) if asserted else ()),
            ),
            explains=FAILED_START,
            fix=stating.dropped(container, engine, [setting.text.split()[0].partition("=")[0]])
            or fixes.advice(f"Remove {setting.text} in {fixes.edited(pod)}"),
        )


def _sure(problems: list[Problem]) -> list[Problem]:
    """Those that surely go wrong; a flag glued to its value is refused or swallowed, never obeyed."""
    return [p for p in problems if p.certain or p.kind == "glued"]


def _misspelt(engine: Engine, problems: list[Problem]) -> list[Problem]:
    """Slips of the pen, other engines' names and shortened options, in the arguments of an image of an unknown release.

    A build of somebody's own may have options that no release has.
    """
    return [p for p in problems if p.meant] if re.search(_PUBLISHED, engine.container.spec.image) else []


def _list(problems: list[Problem]) -> str:
    return "; ".join(p.detail.rstrip(".") for p in problems[:3])


def _fixes(engine: Engine, problems: list[Problem]) -> Iterator[Fix]:
    if gone := _to_be_removed(problems):
        yield _all_removed(engine, gone)
    for problem in [one for one in problems if one not in gone][:2]:
        where = _where(engine, problem)
        if problem.kind == "duplicate-serve":
            if problem.text == "serve":
                summary = "Remove `serve` from args: the image's entrypoint is the server already"
                yield fixes.remove_word(engine.container, problem.path, summary)
            else:
                yield fixes.advice(
                    f"Put what stands in args of {where} into command, or leave only the server's own options in args"
                )
        elif problem.kind == "glued":
            yield _split(engine, problem, where)
        else:
            yield _correction(engine, problem, where)


def _to_be_removed(problems: list[Problem]) -> list[Problem]:
    """Several options that the engine has not, nor anything like them: the container starts once all of them are gone."""
    docker = [p for p in problems if p.kind == "unknown-flag" and _option(p) in _OF_DOCKER]
    alike = docker if len(docker) > 1 else []  # `-p` by itself may be a slip of the pen
    gone = [p for p in problems if p in alike or re.search(rf" has no option {re.escape(_option(p))}$", p.detail)]
    return gone if len(gone) > 1 else []


def _option(problem: Problem) -> str:
    return problem.flag or re.split(r"[ =]", problem.text, maxsplit=1)[0]


def _all_removed(engine: Engine, gone: list[Problem]) -> Fix:
    """Several options taken out at once; those that `docker run` takes say the same in other fields of a pod."""
    container, names = engine.container, [*dict.fromkeys(map(_option, gone))]
    text = f"Remove {', '.join(names[:-1])} and {names[-1]}"
    if ours := [name for name in names if name in _OF_DOCKER]:
        text += ", which are for docker run" if ours == names else f" ({', '.join(ours)}: for docker run)"
        text += "; GPUs, ports, volumes and shared memory have fields of their own in a pod"
    places = [stating.stated(container, name) for name in names]
    vectors = {place.vector for place in places if place and place.index is not None}
    if container.told or len(vectors) != 1 or any(place is None or place.index is None for place in places):
        return fixes.advice(f"{text} in {fixes.edited(engine.pod)}")
    vector = vectors.pop()
    words = container.spec.words(vector)
    kept = {n for n, word in enumerate(words) if words[n - 1] in _ALONE and not re.search(rf"^-|{_PUBLISHED}", word)}
    elements = sorted({index for place in places if place for index in place.elements} - kept, reverse=True)
    at = f"{container.pointer}/{vector}"
    return fixes.patch(engine.pod, text, [{"op": "remove", "path": f"{at}/{index}"} for index in elements])


def _where(engine: Engine, problem: Problem) -> str:
    """What a person edits: the ConfigMap where the value is one of its keys, which many workloads may share, else the workload."""
    shared = _from_config_map(engine, problem)
    return shared[0] if shared else fixes.edited(engine.pod)


def _from_config_map(engine: Engine, problem: Problem) -> tuple[str, Evidence] | None:
    """The key of a ConfigMap that a refused value comes from, and what stands there."""
    if problem.kind == "bad-value":
        for name in re.findall(r"\$[({]?(\w{1,100})", problem.text):
            variable = engine.container.env.get(name)
            if variable and variable.value and variable.origin.startswith("ConfigMap "):
                text = f"{name}={variable.value} ({variable.origin})"
                return variable.origin, Evidence(source="pod", ref=variable.path, text=text)
    return None


def _correction(engine: Engine, problem: Problem, where: str) -> Fix:
    """What to write instead, where the detail names it; else what to take away, or which release has it."""
    name, container = problem.flag or problem.text, engine.container
    # by the name that stands there, which may be a short one
    own = {name, problem.text.partition(" ")[0]} - {""} if where == fixes.edited(engine.pod) else set()
    place = next((found for one in sorted(own) if (found := stating.stated(container, one))), None)
    return (
        _other_name(container, problem, name, where)
        or _other_value(container, problem, name, where, place)
        or _left_out(container, problem, name, where, place)
        or _as_plain_json(container, problem, name, place)
        or fixes.advice(f"Correct or remove {name} in {where}: {problem.detail}")
    )


#: The end of a detail that names what is nearest.
_NEAREST = r"; the nearest is (\S{1,80})$"


def _other_name(container: Container, problem: Problem, name: str, where: str) -> Fix | None:
    """The flag that is meant, where there is none of that name."""
    if problem.kind != "unknown-flag":
        return None
    if several := re.search(r" could be (-[^:]{1,400}): ", problem.detail):
        return fixes.advice(f"Write in {where} the one of {several[1]} that is meant, instead of {name}")
    near = re.search(_NEAREST, problem.detail)
    right = near[1] if near else problem.meant
    text = f"Write {right} instead of {name}"
    return fixes.rename_word(container, problem.path, name, right, text) if right else None


def _other_value(
    container: Container, problem: Problem, name: str, where: str, place: "stating.Stated | None"
) -> Fix | None:
    """The value that is meant, or those that there are."""
    detail = problem.detail
    if place and (share := settling.as_share(container, place)):
        return share
    if re.search(r"not a whole number| reads '", detail) and place and (digits := settling.in_digits(container, place)):
        return digits
    near, listed = re.search(_NEAREST, detail), re.search(r": not (one of (.{1,600}))$", detail)
    right = near[1] if near else _meant(detail, listed[2].split(", ") if listed else [])
    if problem.kind == "bad-value" and right:
        text = f"Set {name} to {right}"
        known = place is not None and place.value is not None
        return stating.given(container, place, right, text) if place and known else fixes.advice(f"{text} in {where}")
    return fixes.advice(f"Set {name} in {where} to {listed[1]}, or remove it") if listed else None


def _left_out(
    container: Container, problem: Problem, name: str, where: str, place: "stating.Stated | None"
) -> Fix | None:
    """What goes, as this release has no such option, or what goes elsewhere; or the value that it lacks."""
    detail = problem.detail
    if first := re.search(r" came with ([^;]{1,60}); ", detail):
        return _removed(container, place, f"Remove {name}", where, f"; {first[1]} is the first release with it")
    if problem.kind == "removed-flag":
        instead = re.search(r" \(([^()]{1,200})\)$", detail)
        return _removed(container, place, f"Remove {name}", where, f": {instead[1]}" if instead else "")
    if name == "--model" and " as its first argument " in detail:
        model = problem.text.removeprefix(name).strip()
        return fixes.advice(f"Write the model behind serve (vllm serve {model}) and leave {name} out, in {where}")
    if problem.kind == "missing-value":
        return fixes.advice(f"Give {name} its value in {where}, or remove it")
    if re.search(rf"has no option {re.escape(name)}(?:, which is [^,;]{{1,60}})?$", detail):
        return _removed(container, place, f"Remove {name}", where, "")
    return None


def _as_plain_json(container: Container, problem: Problem, name: str, place: "stating.Stated | None") -> Fix | None:
    right = settling.as_json(place.value) if place and place.value else None
    if not right or not place or not problem.detail.endswith(": not valid JSON"):
        return None
    return stating.given(container, place, right, f"Write the value of {name} as plain JSON: {right}")


def _meant(detail: str, choices: list[str]) -> str:
    """The value that was meant by one that the parser does not take; empty where that is open."""
    value = re.search(r" is '([^']{1,80})': ", f"{detail}")
    if only := re.search(r"\(it has ([\w.-]{1,60})\)$", detail):
        return only[1]
    return settling.nearest(value[1], choices) if value and choices else ""


def _removed(container: Container, place: "stating.Stated | None", text: str, where: str, why: str) -> Fix:
    """An option taken out of the arguments that state it."""
    return stating.without(container, place, text + why) if place else fixes.advice(f"{text} in {where}{why}")


def _split(engine: Engine, problem: Problem, where: str) -> Fix:
    """Each word as an element of its own; `--flag=value` is one word, except for llama.cpp, which does not split it."""
    text = problem.text.strip()
    try:
        words = shlex.split(text if " " in text else text.replace("=", " ", 1))
    except ValueError:
        words = text.split()
    summary = f"Write `{words[0]}` and what follows as {len(words)} elements of the list"
    fix = fixes.split_word(engine.container, problem.path, words, summary) if MASK not in text else None
    return fix or fixes.advice(f"{summary} in {where}")

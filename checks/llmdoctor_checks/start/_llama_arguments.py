"""What llama-server ends over and hardly says: words that are no options, sizes that are none, TLS files, an address of another."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Line,
    Logs,
    Pod,
    ending_of,
    endings,
    fixes,
    log_evidence,
    log_of,
    pod_evidence,
    setting_evidence,
    stating,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.start._scripts import quoted

#: Sizes of llama.cpp, and the least that one may be: its parser takes any number, and makes a huge one of a negative one.
_LEAST = {"max_model_len": 0, "max_num_batched_tokens": 1}

#: How an assertion of llama.cpp that failed begins (ggml.h).
ASSERTION = "GGML_ASSERT("

#: What llama.cpp prints (tools/server/server-http.cpp) when it cannot listen, whatever the reason.
NOT_BOUND = "couldn't bind HTTP server socket"

#: What llama.cpp (common/arg.cpp) says of a word that stands where an option should.
NO_OPTION = "error: invalid argument: "

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


def tls_refused(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """llama-server whose certificate or key cannot be used: it says no more than that it could not bind its socket."""
    key, cert = engine.explicit("ssl_key_file"), engine.explicit("ssl_cert_file")
    container = engine.container
    crashed = container.crashed
    if engine.name != "llama.cpp" or not key or not cert or not crashed:
        return
    for line in (found for log in logs.of(container.name) for found in log.find(NOT_BOUND)):
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


def unspoken(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
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


def no_option(engine: Engine, logs: Logs | None) -> tuple[str, Line] | None:
    """The word that llama-server refused as no option, and the line that says so."""
    log = log_of(ending_of(engine.container), logs) if engine.name == "llama.cpp" else None
    line = log.last(NO_OPTION) if log is not None else None
    return (line.text.partition(NO_OPTION)[2].strip(), line) if line is not None else None


def left_over(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A word that llama-server refused: the value of an option that an earlier one took for its own, or a shell."""
    said = no_option(engine, logs)
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


def before_its_server(pod: Pod, engine: Engine) -> Iterator[Finding]:
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


def aborts(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """llama-server that aborted, and has a size that is none."""
    container = engine.container
    ended = ending_of(container)
    if engine.name != "llama.cpp" or ended is None or ended.code != 134:
        return
    log = log_of(ended, logs)
    asserted = next(log.find(ASSERTION), None) if log is not None else None
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

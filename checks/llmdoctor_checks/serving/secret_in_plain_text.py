"""A key or token that stands in the pod's own text."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import Container, Engine, Finding, Fix, Pod, Subject, check, count_of, fixes, pod_evidence

#: What masking left of a secret: its kind. Blanks and placeholders hide nothing.
_MASK = r"<masked:(?P<kind>[\w-]+)(?:\+(?!placeholder|blank)[\w-]+)*>"

#: An option or a variable of a script, with what it is given.
_GIVEN = r"(?P<name>--[\w-]{0,60}(?:key|token|password)|\b[A-Z][A-Z0-9_]{0,60}(?:KEY|TOKEN|PASSWORD))[ =]+['\"]?(?P<value><masked:\S+)"

#: What only signs the sessions of an OAuth proxy beside the server: operators that add one write it there, often a constant.
_SESSIONS = "--cookie-secret"

#: Variables under which engines read the key that a flag would state.
_KEY_FLAGS = {"--api-key": "VLLM_API_KEY", "--api_key": "VLLM_API_KEY"}

#: Engines that answer `/health` to whoever asks, key or not: vLLM guards `/v1` alone (entrypoints/openai/api_server.py),
#: SGLang and llama.cpp name the path as an exception (srt/utils, tools/server).
_OPEN_HEALTH = frozenset({"vllm", "sglang", "llama.cpp"})


@check("secret-in-plain-text", since="0.2", severity="warning")
def secret_in_plain_text(pod: Pod, subject: Subject) -> Iterator[Finding]:
    """A key or token stands in plain text in the manifest.

    Who may read pods or Deployments (`view` allows that, and not to read Secrets) reads it, so does everybody with access
    to the repository, to `kubectl describe`, and to backups and audit logs; a value in the arguments shows in the
    process list of the node as well. Changing it means a rollout.

    A value that only stands for none (`EMPTY`, `dummy`) and a placeholder are not meant. A header of a probe cannot come from a
    Secret: vLLM, SGLang and llama.cpp answer `/health` without a key.

    ## Fix

    Put the value into a Secret, refer to it, and replace the value itself, which has been seen:

        env: [{name: HF_TOKEN, valueFrom: {secretKeyRef: {name: llm-secrets, key: HF_TOKEN}}}]

    ## References

    - https://kubernetes.io/docs/concepts/security/secrets-good-practices/
    """
    if pod.log_only or not subject.engines(pod):
        return
    for container in pod.containers:
        engine = subject.engine_of(container)
        literal, headers = list(_literals(container)), list(_headers(container, engine))
        found = literal + headers
        if not found:
            continue
        names = ", ".join(dict.fromkeys(name for name, _, _, _ in found))
        yield Finding(
            role="risk",
            summary=f"{container.name} has {count_of(len(found), 'secret')} in plain text ({names}): "
            f"whoever may read {fixes.edited(pod)} knows {'it' if len(found) == 1 else 'them'}.",
            evidence=tuple(pod_evidence(container, path, text) for _, path, text, _ in found),
            fixes=(*_fixes(pod, container, literal), *_open_probes(pod, headers)),
        )


_Operation = dict[str, Any]
#: Name, place, what stands there, and the patch that refers to a Secret instead, where one does.
_Literal = tuple[str, str, str, list[_Operation]]


def _literals(container: Container) -> Iterator[_Literal]:
    at, secret = container.pointer, _secret(container)
    for index, variable in enumerate(container.spec.env):
        if isinstance(variable.value, str) and re.fullmatch(_MASK, variable.value):
            operation = {"op": "replace", "path": f"{at}/env/{index}", "value": _reference(variable.name, secret)}
            yield variable.name, f"env[{variable.name}]", variable.value, [operation]
    for group in ("command", "args"):
        words = container.spec.words(group)
        for index, word in enumerate(words):
            if "\n" in word:
                yield from _in_script(f"{group}[{index}]", word)
                continue
            if not re.search(_MASK, word):
                continue
            flag, equals, tail = word.partition("=")
            name = flag if equals else words[index - 1] if index else ""
            if name == _SESSIONS:
                continue
            key = _KEY_FLAGS.get(name, "")
            operations: list[_Operation] = []
            if key and key not in container.env and re.fullmatch(_MASK, tail if equals else word):
                new: Any = _reference(key, secret)
                has = bool(container.spec.env)
                value = f"{flag}=$({key})" if equals else f"$({key})"
                operations = [
                    {"op": "add", "path": f"{at}/env/-" if has else f"{at}/env", "value": new if has else [new]},
                    {"op": "replace", "path": f"{at}/{group}/{index}", "value": value},
                ]
            yield name if name.startswith("-") else "an argument", f"{group}[{index}]", word, operations


def _in_script(path: str, script: str) -> Iterator[_Literal]:
    """Secrets that a script gives to an option or a variable."""
    for line in script.splitlines():
        found = None if line.lstrip().startswith("#") else re.search(_GIVEN, line)
        if found and re.match(_MASK, found["value"]):
            yield found["name"], path, line.strip(), []


def _headers(container: Container, engine: Engine | None) -> Iterator[_Literal]:
    """Secrets that a probe sends, and the patch by which it asks without one, where the engine allows that."""
    for kind, probe in container.spec.probes.items():
        for index, header in enumerate(probe.http_get.http_headers if probe.http_get else ()):
            name, value = str(header.get("name")), str(header.get("value"))
            if not re.search(_MASK, value):
                continue
            at = f"{container.pointer}/{kind}Probe/httpGet"
            operations: list[_Operation] = []
            if engine is not None and engine.name in _OPEN_HEALTH:
                operations = [
                    {"op": "replace", "path": f"{at}/path", "value": "/health"},
                    {"op": "remove", "path": f"{at}/httpHeaders/{index}"},
                ]
            yield f"{name} of the {kind}Probe", f"{kind}Probe.httpGet.httpHeaders[{name}]", value, operations


def _open_probes(pod: Pod, headers: list[_Literal]) -> Iterator[Fix]:
    """What to do about keys that probes send."""
    operations = [operation for _, _, _, part in headers for operation in part]
    if operations:
        yield fixes.patch(pod, "Have the probes ask /health, which needs no key; then make a new key", operations)
    elif headers:
        yield fixes.advice(
            f"Have the probes in {fixes.edited(pod)} ask a path that needs no key, or a command that reads it from a variable; "
            "then make a new key"
        )


def _reference(variable: str, secret: str) -> _Operation:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": variable}}}


def _secret(container: Container) -> str:
    """The Secret to put it into: named after what a person edits."""
    return f"{fixes.edited(container.pod).rpartition('/')[2]}-secrets"


def _fixes(pod: Pod, container: Container, literal: list[_Literal]) -> Iterator[Fix]:
    operations = [operation for _, _, _, part in literal for operation in part]
    if operations and all(part for _, _, _, part in literal):
        secret = _secret(container)
        made = fixes.patch(
            pod, f"Read it from the Secret {secret}, which must be created first, with a new value", operations
        )
        values = [op.get("value") for op in operations]
        entries = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
        names = dict.fromkeys(entry["name"] for entry in entries if isinstance(entry, dict) and "valueFrom" in entry)
        keys = " ".join(f'--from-literal={name}="${name}"' for name in names)
        create = f"kubectl -n {pod.namespace} create secret generic {secret} {keys}"
        yield msgspec.structs.replace(made, commands=(create, *made.commands)) if made.commands and keys else made
        return
    if literal:
        yield fixes.advice(f"Put the values into a Secret, and refer to it in {fixes.edited(pod)}; then replace them")

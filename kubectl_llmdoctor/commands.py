"""Which commands of a fix the cluster would take as it is now, and what those say that it would not.

kubectl changes few objects by its short verbs: `set env` knows the built-in kinds only, the API server refuses most
changes of a bare pod and of a Job's template, and nothing can be run in a container that does not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kubectl_llmdoctor.facts.pod import Container, Pod
from kubectl_llmdoctor.facts.workload import Workload, dig

_CHANGES = re.compile(r" (edit|set|patch|rollout) ")
#: `NAME=value` of a `kubectl set env`, as it is quoted for a shell.
_SETTING = re.compile(r"(?<= )[A-Z_][A-Z0-9_]*=\S+")


def applicable(
    commands: Iterable[str], pod: Pod | None, container: Container | None, workload: Workload | None
) -> Iterator[str]:
    """The commands that can be run: on the object that a person edits, and in a container that runs."""
    for command in commands:
        change = _CHANGES.search(command)
        own = " Pod/" in command or (workload is not None and f" {workload.ref}" in command)
        if change and own and not _takes(change[1], command, pod, container, workload):
            continue
        if " exec " in command and not _runs(pod, container):
            continue
        # an instance before the first one has no log
        yield command.replace(" --previous", "") if container and not container.restarts else command


def settings(commands: Iterable[str]) -> str:
    """The variables that `kubectl set env` would set: `A=b C=d`."""
    return " ".join(word for command in commands if " set env " in command for word in _SETTING.findall(command))


def _takes(verb: str, command: str, pod: Pod | None, container: Container | None, workload: Workload | None) -> bool:
    """Whether the workload takes a change of its pods by this command."""
    if workload is None:
        return False
    template = pod.template if pod else None
    if template and template.immutable and template.raw is workload.raw:
        return False
    if verb == "edit":
        return True
    if not workload.built_in:
        return verb == "patch" and "template" not in command
    if verb == "set" and template and container:
        # what a webhook adds to the pod stands in no template
        return any(
            c.get("name") == container.name
            for key in ("containers", "initContainers")
            for c in dig(template.pod, f"spec.{key}") or ()
            if isinstance(c, dict)
        )
    return True


def _runs(pod: Pod | None, container: Container | None) -> bool:
    """Whether there is something to run a command in: the container, or any of the pod's where none is named."""
    return container.running if container else any(c.running for c in pod.containers) if pod else False

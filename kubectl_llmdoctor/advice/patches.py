"""The patch of a fix: what it changes of the object that a person edits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.advice.declared import FixText
from kubectl_llmdoctor.advice.occurrence import Occurrence, Seen
from kubectl_llmdoctor.advice.templates import Values, fill
from kubectl_llmdoctor.engines.names import OPTIONS, option
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.named import renamed
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.fixes import (
    FromField,
    FromSecret,
    annotate,
    larger,
    mount_authority,
    mount_claim,
    mount_scratch,
    mount_shm,
    patch,
    remove_flag,
    request_rdma,
    set_flags,
    set_image,
    set_pull_secret,
    set_resource,
    set_sysctl,
    set_variables,
    together,
    variable_operations,
)
from kubectl_llmdoctor.report.document import Fix


class Patches(Seen):
    """What fixes change where a signature was found."""

    def __init__(self, here: Occurrence, values: Values) -> None:
        super().__init__(here)
        self.values = values

    def change(self, text: FixText, pod: Pod, summary: str) -> Fix | None:
        """What the fix changes of the object that a person edits; None where it is not known what that would be."""
        if text.spec:
            return patch(pod, summary, [*self._fields(text), *self._set(text)])
        if text.sysctl:
            ((parameter, to),) = text.sysctl.items()
            return set_sysctl(pod, parameter, to, summary)
        if text.image:
            of_image = [c for c in pod.containers if c.spec.image == self.captured.get("image")]
            one = next(iter([*of_image, *filter(None, [self.container])]), None)
            return set_image(one, fill(text.image, self.values), summary) if one else None
        if text.renames:
            return patch(pod, summary, renamed(pod, self.here.kind, self.values["name"], self.values["other_name"]))
        if text.annotation:
            ((name, given),) = text.annotation.items()
            return annotate(pod, {fill(name, self.values): fill(given, self.values)}, summary)
        if text.pull_secret:
            return set_pull_secret(pod, fill(text.pull_secret, self.values), summary)
        if text.option or text.gpus:
            set_there = self._set_options(text, summary)
            if set_there is None or not text.env or self.container is None:
                return set_there
            return together(set_there, self._env(text, self.container, summary))
        return self._of_container(text, self.container, summary) if self.container else None

    def _of_container(self, text: FixText, container: Container, summary: str) -> Fix | None:
        """What the fix changes of the container, or gives it."""
        if given := text.memory or text.request:
            kind = "limits" if text.memory else "requests"
            return set_resource(container, kind, "memory", fill(given, self.values), summary)
        if text.rdma:
            return request_rdma(container, summary)
        if text.claims and self.values["folder"] and (size := larger(None, self.here.model_bytes)):
            return mount_claim(container, self.values["folder"], size, summary)
        if text.scratch and self.values["folder"]:
            names = ("folder", *(name for name in text.needs if name.endswith("_folder")))
            return mount_scratch(container, [self.values[name] for name in names], summary)
        if text.authority:
            return mount_authority(container, summary)
        if text.shm:
            return mount_shm(container, self.values["shm"], summary)
        if not text.env:
            return None
        return self._env(text, container, summary)

    def _fields(self, text: FixText) -> Iterator[dict[str, Any]]:
        """The operations that set fields of the pod's spec."""
        for name, value in text.spec.items():
            filled = fill(value, self.values) if isinstance(value, str) else value
            number = int(filled) if isinstance(filled, str) and filled.isdecimal() else filled
            yield {"op": "add", "path": f"/{fill(name, self.values)}", "value": number}

    def _set(self, text: FixText) -> list[dict[str, Any]]:
        """The operations that set the variables of a fix that changes the spec as well."""
        values = self._variables(text)
        return variable_operations(self.container, values)[0] if self.container and values else []

    def _set_options(self, text: FixText, summary: str) -> Fix | None:
        """The options of the engine that a fix sets, and the GPUs that go with them."""
        if self.engine is None:
            return None
        chosen: list[tuple[str, str, str]] = []
        for setting, value in text.option.items():
            if value is None:
                return remove_flag(self.engine, setting, summary)
            if not (named := self.engine.flag(setting)):
                return None
            chosen.append((setting, named, fill(value, self.values)))
        gpus = fill(text.gpus, self.values) or self._fewer_gpus(self.engine, chosen)
        return set_flags(self.engine, chosen, summary, gpus=gpus)

    @staticmethod
    def _fewer_gpus(engine: Engine, chosen: list[tuple[str, str, str]]) -> str:
        """As many GPUs as a smaller tensor parallel size uses, where that is all that the container has them for."""
        size = next((value for name, _, value in chosen if name == "tensor_parallel_size"), "")
        others = (engine.value(name, 1) for name in ("pipeline_parallel_size", "data_parallel_size", "nnodes"))
        whole = engine.container.gpus == engine.value("tensor_parallel_size") and all(n in (None, 1) for n in others)
        return size if whole and size.isdecimal() and int(size) < engine.container.gpus else ""

    def _env(self, text: FixText, container: Container, summary: str) -> Fix:
        values = self._variables(text)
        below = any(isinstance(value, str) and f"{value}/".startswith("/tmp/") for value in values.values())
        mounted = any(mount.mount_path.rstrip("/") == "/tmp" for mount in container.spec.volume_mounts)
        if not below or mounted or not container.spec.security_context.read_only_root_filesystem:
            return set_variables(container, values, summary)
        summary += f"; at /tmp an emptyDir, as the root of {container.name} is read-only"
        return together(set_variables(container, values, summary), mount_scratch(container, ["/tmp"], summary))

    def _variables(self, text: FixText) -> dict[str, str | FromSecret | FromField | None]:
        """The variables that a fix sets or removes; a name may be one of the values of the case."""
        return {fill(name, self.values): self._value(value) for name, value in text.env.items()}

    def _value(self, text: str | None) -> str | FromSecret | FromField | None:
        """The value of a variable as `fixes.set_variables` takes it."""
        if text is None:
            return None
        kind, _, name = text.partition(":")
        if kind == "field":
            return FromField(name)
        return FromSecret(name) if kind == "secret" else fill(text, self.values)

    def variables(self, text: FixText, summary: str) -> str:
        """The variables that a fix sets and does not name, for where no patch says them: `: A=b C=d`."""
        given = {name: value for name, value in self._variables(text).items() if name not in summary}
        told = [f"{name}={value}" for name, value in given.items() if isinstance(value, str)]
        return f": {' '.join(told)}" if told else ""

    def setting(self, text: FixText) -> str:
        """The option that a fix sets, for where nothing is known of the container's arguments."""
        given = [(name, value) for name, value in text.option.items() if value is not None]
        engine = self.engine.name if self.engine else None
        values = [f" {fill(value, self.values)}" if engine else "" for _, value in given]
        told = [option(engine, name) + value for (name, _), value in zip(given, values, strict=True) if name in OPTIONS]
        return f" ({', '.join(told)})" if told else ""

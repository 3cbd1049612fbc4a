"""Where a signature was found, and the form of a topic: what templates may name of it, and which conditions hold there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

from kubectl_llmdoctor.advice.declared import Condition
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import Subject, workload_of
from kubectl_llmdoctor.template_values import values_of


class Occurrence:
    """Of which pod and container a signature was found, and what it captured."""

    def __init__(
        self, subject: Subject, pod: Pod | None, container: Container | None, captured: dict[str, str], told: str
    ) -> None:
        self.subject = subject
        self.pod = pod
        self.container = container
        self.captured = captured
        #: the lines that prove it
        self.told = told
        self.workload = (workload_of(pod) if pod else None) or subject.workload
        self.log_only = pod is not None and pod.log_only

    @cached_property
    def engine(self) -> Engine | None:
        """The engine of the container."""
        engines = self.subject.engines(self.pod) if self.pod else ()
        return next((e for e in engines if self.container is None or e.container is self.container), None)

    @cached_property
    def model_bytes(self) -> int | None:
        """The least bytes of the model's files, where they are known."""
        return self.subject.sizing(self.engine).file_bytes if self.engine else None

    @property
    def kind(self) -> str:
        """The kind of the object that the line names, as Kubernetes writes it."""
        return {"secret": "Secret", "configmap": "ConfigMap"}.get(self.captured.get("kind", "").lower(), "")


class Seen:
    """An occurrence and its parts, by their own names."""

    def __init__(self, here: Occurrence) -> None:
        self.here = here
        self.subject = here.subject
        self.pod = here.pod
        self.container = here.container
        self.captured = here.captured
        self.workload = here.workload
        self.log_only = here.log_only

    @property
    def engine(self) -> Engine | None:
        """The engine of the container."""
        return self.here.engine

    @property
    def node_name(self) -> str:
        """The node of the pod; empty where it has none."""
        return self.pod.spec.node_name if self.pod else ""

    @property
    def account(self) -> str:
        """The service account of the pod."""
        return (self.pod.spec.service_account_name if self.pod else "") or "default"


class Topic(Seen, ABC):
    """What is known of one thing where a signature was found. Nothing is found out before somebody asks for it."""

    #: the conditions that it decides
    decides: ClassVar[tuple[str, ...]]

    @cached_property
    def held(self) -> frozenset[Condition]:
        """The same, found out once."""
        return frozenset(self._holds())

    def values(self) -> dict[str, Value]:
        """What templates may name of it."""
        return {**values_of(self)}

    @abstractmethod
    def _holds(self) -> Iterator[Condition]:
        """Those of its conditions that hold."""

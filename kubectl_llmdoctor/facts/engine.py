"""The inference engine of a container, with the configuration that it really runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

import msgspec

from kubectl_llmdoctor import engines, platforms
from kubectl_llmdoctor.engines.config import Problem, Setting
from kubectl_llmdoctor.engines.names import PARALLEL_SIZES, flag, option
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.answers import Answers
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.platforms.labels import RAY_NODE_TYPE
from kubectl_llmdoctor.tree import dig, table

#: What vLLM and TensorRT-LLM call the ranks that share the tokens of one prompt: more workers, as those of decoding are not.
_CONTEXT_SIZES = ("prefill_context_parallel_size", "context_parallel_size")

#: Engines that start others inside, of whose log the head may be gone.
_START_OTHERS = ("nim", "ollama", "triton", "huggingfaceserver", "localai")

#: Engines that print their whole configuration, or all of it that somebody set.
_PRINTS_ALL = ("vllm", "sglang", "tgi")

#: How Dynamo's workers are told their side, whatever the engine, and the labels by which operators tell it (llm-d, Dynamo).
_OF_DYNAMO = expression(
    r"\s--is-(?P<side>prefill|decode)-worker\b|\s--disaggregation-mode[= ](?P<mode>prefill|decode)\b"
)
_SIDES = ("llm-d.ai/role", "nvidia.com/dynamo-sub-component-type", "nvidia.com/dynamo-component-type")


class Engine:
    """An inference server in a container: what the container was told, completed by what its log says of itself."""

    def __init__(self, container: Container, found: engines.Engine, *, announced: bool = False) -> None:
        self.container = container
        self.found = found
        #: only its log tells of it: the container starts it by a program that cannot be seen into, which may do more
        self.announced = announced

    @property
    def pod(self) -> Pod:
        """The pod that it runs in."""
        return self.container.pod

    @property
    def name(self) -> str:
        """`vllm`, `sglang`, …"""
        return self.found.name

    @property
    def at(self) -> str:
        """`vLLM in server`; of a log alone, whose container nobody named, `vLLM`."""
        return f"{self.title} in {self.container.name}" if self.container.name else self.title

    @property
    def title(self) -> str:
        """The name as its makers write it."""
        return self.found.title

    @cached_property
    def checkpoint(self) -> str:
        """The model by its name: what the engine was told, or the Hub's id that KServe fetches to the path it was told."""
        told = str(self.value("model") or "")
        return told if told and not told.startswith("/") else self._fetched(told) or told

    def _fetched(self, path: str) -> str:
        """The Hub's id in the address from which KServe fetches what stands at a path, by its object or its init container."""
        pod = self.pod
        raw = pod.template.raw if pod.template and not pod.exists else {}
        found: list[tuple[str, str]] = []
        if str(raw.get("apiVersion", "")).startswith("serving.kserve.io/"):
            found += [(str(dig(raw, where)), "") for where in ("spec.predictor.model.storageUri", "spec.model.uri")]
        for container in pod.obj.spec.init_containers:
            found += pairwise([*map(str, (*container.command, *container.args)), ""])
        for uri, target in found:
            # its initializer takes pairs of an address and a folder
            elsewhere = path and target.startswith("/") and not f"{path}/".startswith(target.rstrip("/") + "/")
            if uri.startswith("hf://") and not elsewhere:
                return uri.removeprefix("hf://").partition(":")[0]
        return ""

    @property
    def side(self) -> str:
        """Which side of disaggregated serving it is, `prefill` or `decode`, by its settings or its pod's labels; empty where none says."""
        mode = self.value("disaggregation_mode")
        role = table(self.value("kv_transfer_config")).get("kv_role")
        words = _OF_DYNAMO.search(" ".join(self.container.spec.argv))
        told = [str(mode), {"kv_producer": "prefill", "kv_consumer": "decode"}.get(str(role), "")]
        told += [words["side"] or words["mode"]] if words else []
        told += [str(self.container.pod.labels.get(name)) for name in _SIDES]
        return next((side for side in told if side in ("prefill", "decode")), "")

    @property
    def version(self) -> str | None:
        """The engine's version; None when nothing states it."""
        return self.found.version

    @property
    def label(self) -> str:
        """`vLLM 0.9.1`, or `vLLM` when the version is unknown."""
        return f"{self.title} {self.version}" if self.version else self.title

    def flag(self, name: str) -> str:
        """The option or variable that it has for a setting; empty where it has none."""
        return flag(self.name, name)

    def called(self, name: str) -> str:
        """The same, or words where it has none."""
        return option(self.name, name)

    def at_least(self, version: str) -> bool | None:
        """Whether the version is at least this; None when it is not known."""
        return self.found.at_least(version)

    def get(self, name: str) -> Setting | None:
        """A setting: what was set, else the default of this version, else None for unknown."""
        return self.found.get(name)

    def explicit(self, name: str) -> Setting | None:
        """A setting that was set."""
        return self.found.explicit(name)

    def value(self, name: str, fallback: Any = None) -> Any:
        """The value of a setting, or `fallback` when it is unknown."""
        return self.found.value(name, fallback)

    @property
    def own_image(self) -> bool:
        """Whether the image is the engine's by its name: not a bare system, nor a name that something else fills in."""
        repository = self.container.spec.image.partition("@")[0]
        filled = "$" not in repository and repository.rpartition("/")[2].partition(":")[0].islower()
        return filled and engines.of_image(repository) == self.name

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the engine's own argument parser would refuse, or ignore."""
        return self.found.problems

    @property
    def answers(self) -> Answers:
        """What its port said when it was asked."""
        return self.container.answers

    @cached_property
    def workers(self) -> int | None:
        """Worker processes that one instance starts in this container (tensor × pipeline × data); None when unknown."""
        product = 1
        for name in PARALLEL_SIZES:
            size = self.get(name)
            if size is None and (name in self.found.unresolved or not self.found.argv_known):
                return None
            if size is not None:
                if not isinstance(size.value, int) or size.value < 1:
                    return None  # a size below 1 is refused
                product *= size.value
        if any(name in self.found.unresolved for name in _CONTEXT_SIZES):
            return None
        return product * self._sharing_a_context

    @property
    def workers_at_least(self) -> int:
        """The workers that are known of: what is unknown counts as one."""
        return self.product_of(PARALLEL_SIZES) * self._sharing_a_context

    @property
    def _sharing_a_context(self) -> int:
        """By how many the ranks are multiplied that divide the tokens of one prompt among them."""
        return self.product_of(_CONTEXT_SIZES)

    def product_of(self, sizes: Iterable[str]) -> int:
        """The product of settings that are sizes; what is unknown, or no size, counts as one."""
        values = [self.value(name, 1) for name in sizes]
        return math.prod(size for size in values if isinstance(size, int) and size > 0)


def _told(container: Container, told: platforms.Told) -> Engine | None:
    """An engine that an operator starts by itself, its settings quoted from where the object says them.

    Its arguments are not judged: the operator hands them to the engine in another way than a command line.
    """
    image = told.image or (container.spec.image if engines.of_image(container.spec.image) else "")
    command, args = (told.argv[: told.skip], told.argv[told.skip :])
    launch = msgspec.structs.replace(container.launch, image=image, command=command, args=args, path=told.path)
    found = engines.read(launch)
    if found is None:
        return None
    if told.package:
        found = engines.with_version(found, told.package.partition("==")[2], f"pip: {told.package}")
    settings = {}
    for name, setting in found.settings.items():
        at = re.search(r"\.args\[(\d+)\]$", setting.path)
        if at and setting.path.startswith(f"{told.path}.args[") and int(at[1]) < len(told.texts):
            setting = msgspec.structs.replace(setting, text=told.texts[int(at[1])], path=told.places[int(at[1])])
        settings[name] = setting
    return Engine(container, msgspec.structs.replace(found, settings=settings, problems=()))


def _stated(container: Container, found: engines.Engine | None) -> engines.Engine | None:
    """The engine with what its object states in fields of its own."""
    template = container.pod.template if container.pod.by_operator else None
    if found is None or template is None or not template.stated:
        return found
    more = {
        s.name: Setting(name=s.name, value=s.value, source="file", text=s.text, path=s.path, flag=s.name)
        for s in template.stated
        if s.name not in found.settings
    }
    return msgspec.structs.replace(found, settings={**found.settings, **more})


def _announced(pod: Pod, logs: Logs) -> Iterator[Engine]:
    """The engines that containers start by programs which cannot be seen into, by what they print of themselves.

    Not those of a Ray cluster, whose nodes print what the actors on all of them say, nor what a batch loads into an engine.
    """
    if pod.log_only or not logs or RAY_NODE_TYPE in pod.labels or pod.spec.restart_policy not in ("", "Always"):
        return
    for container in pod.containers:
        for log in logs.of(container.name) if container.role == "main" and not container.told else ():
            found = engines.announced(container.launch, log.text) if log.text else None
            said = engines.from_log(log.text) if found else None
            if found is None or said is None:
                continue
            # what it prints is what its program made of all that it was told
            found = msgspec.structs.replace(found, settings={**found.settings, **said.settings})
            found = _by_answer(container, engines.enrich(found, log.text) or found)
            # of one that prints all its arguments, what is not there was left alone
            stated = said.defaults if said.settings and said.name in _PRINTS_ALL else found.defaults
            yield Engine(container, msgspec.structs.replace(found, defaults=stated, problems=()), announced=True)
            break


def _starts_another(container: Container, found: engines.Engine, text: str) -> bool:
    """Whether the script in an image that is called after one engine starts another, by the banner in its log."""
    if found.argv_known or found.name in _START_OTHERS:
        return False
    said = engines.announced(container.launch, text)
    return said is not None and said.name != found.name


def engines_of(pod: Pod, logs: Logs) -> list[Engine]:
    """The engines of a pod's containers, in order; for a log that came alone, the engine that wrote it."""
    found: list[Engine] = []
    for container in pod.containers:
        if container.role == "init":
            continue
        read = engines.read(container.launch)
        # a pod that exists has what its operator made of the object, also where the runtime it took is not here
        if container.told and not (pod.exists and read and read.settings):
            found += [told for row in container.told if (told := _told(container, row))]
            continue
        engine = _stated(container, read)
        text = next((log.text for log in logs.of(container.name) if log.text), "")
        if engine and text and _starts_another(container, engine, text):
            continue
        if text:
            engine = engines.enrich(engine, text) if engine else engines.from_log(text) if pod.log_only else None
        if engine:
            found.append(Engine(container, _by_answer(container, engine)))
    # beside an engine that is known, what prints the banner of one may collect its log
    return found or list(_announced(pod, logs))


def _by_answer(container: Container, found: engines.Engine) -> engines.Engine:
    """The engine with the version that its port states, where nothing else states one."""
    if found.version is None and container.pod.cluster.snapshot.answers:
        version, place = container.answers.version(found.name)
        return engines.with_version(found, version, place) if version else found
    return found

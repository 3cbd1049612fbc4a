"""The fixes of a signature that apply where it was found.

A command stays only where the cluster would take it: the API server refuses most changes of a bare pod and of a Job's
template, and nothing can be run in a container that does not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cached_property, partial

import msgspec

from kubectl_llmdoctor.advice.context import Context
from kubectl_llmdoctor.advice.credentials import Credentials
from kubectl_llmdoctor.advice.declared import Condition, FixText
from kubectl_llmdoctor.advice.files import Files
from kubectl_llmdoctor.advice.group import Group
from kubectl_llmdoctor.advice.hub import Hub
from kubectl_llmdoctor.advice.images import Images
from kubectl_llmdoctor.advice.objects import Objects
from kubectl_llmdoctor.advice.occurrence import Occurrence, Seen, Topic
from kubectl_llmdoctor.advice.patches import Patches
from kubectl_llmdoctor.advice.placement import Placement
from kubectl_llmdoctor.advice.ports import Ports
from kubectl_llmdoctor.advice.process import Process
from kubectl_llmdoctor.advice.templates import NO_MODEL, UNNAMED, Values, fill
from kubectl_llmdoctor.brought import RESTARTED, brings, edits, field, gives
from kubectl_llmdoctor.facts import model_store
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.endings import last_round
from kubectl_llmdoctor.fixes import Privilege, grow, lone, permitted, run_after, run_by, unread
from kubectl_llmdoctor.reach import of_pod, other_side, reach, server_of, told
from kubectl_llmdoctor.releases import for_chats, linked, newer, packaged, reads_tools, serve
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.room import enough
from kubectl_llmdoctor.room.case import Case
from kubectl_llmdoctor.settling import named, settled
from kubectl_llmdoctor.stating import dropped, put, serving_as

#: Of `reach`: what the line itself names, and nothing else.
_AS_NAMED = "-"

#: A command that kubectl takes for some kinds of workloads only.
_RESTART = " rollout restart "

#: What is done to a file with which a message finds fault.
_CORRECT = "Correct what the message names"


class Situation(Seen):
    """Where a signature was found: what templates may name there, which conditions hold, and the fixes."""

    def __init__(self, here: Occurrence) -> None:
        super().__init__(here)
        self._objects = Objects(here)
        self._files = Files(here)
        self._group = Group(here)
        others = Hub(here), Credentials(here), Images(here), Context(here), Process(here), Ports(here), Placement(here)
        self._topics: tuple[Topic, ...] = (self._objects, self._files, self._group, *others)
        #: what templates may name, by name
        self.values = Values({k: v for topic in self._topics for k, v in topic.values().items()} | here.captured)
        self._patches = Patches(here, self.values)

    def fixes(self, texts: tuple[FixText, ...]) -> tuple[Fix, ...]:
        """The fixes that apply here, those last that the namespace's Pod Security level refuses."""
        engine = self.engine.name if self.engine else ""
        told = {name for text in texts for name in (*text.needs, *text.unless)}
        if not told <= self.values.keys():  # dear: the model's memory is computed for it
            self.values.add(enough(self._case))
        fitting = (text for text in texts if not text.engines or engine in text.engines)
        held = (text for text in fitting if all(map(self._holds, text.when)))
        offered: dict[tuple[str, tuple[str, ...]], tuple[Fix, Privilege]] = {}
        known = [self._read(text) for text in held if self._known(text)]
        # what is so already is no fix, where there is another one
        for text in [text for text in known if not self._stated(text)] or known:
            words = msgspec.structs.replace(text, summary=text.after) if offered and text.after else text
            for fix in self._settled(words) or (self._fix(words),):
                if fix is not None:
                    offered.setdefault((fix.summary, fix.commands), (fix, text.asks))
        return permitted(self.subject.cluster, self.subject.namespace, offered.values())

    def _known(self, text: FixText) -> bool:
        """Whether what a fix needs is known, and nothing of that for which another one takes its place."""
        return all(map(self.values.get, text.needs)) and not any(map(self.values.get, text.unless))

    def _read(self, text: FixText) -> FixText:
        """A fix without the variables that this release of the engine does not read yet."""
        engine = self.engine
        if not text.env or engine is None or engine.name != "vllm":
            return text
        from kubectl_llmdoctor.engines.vllm import first_with

        env = {n: v for n, v in text.env.items() if not (first := first_with(n)) or engine.at_least(first) is not False}
        return text if len(env) == len(text.env) else msgspec.structs.replace(text, env=env)

    def _stated(self, text: FixText) -> bool:
        """Whether the container states already all that a fix would set: variables and options of the same values."""
        container, engine = self.container, self.engine
        if container is None or not (text.env or text.option) or text.spec or text.gpus or text.memory or text.request:
            return False
        pairs = []
        for name, value in text.env.items():
            there = container.env.get(fill(name, self.values))
            pairs.append((value, there.value if there else None))
        for name, value in text.option.items():
            told = engine.explicit(name) if engine else None
            pairs.append((value, None if told is None or isinstance(told.value, bool) else str(told.value)))
        return all(value and there is not None and fill(value, self.values) == there for value, there in pairs)

    def _holds(self, condition: Condition) -> bool:
        """Whether a condition holds, by the topic that decides it."""
        return any(condition in topic.held for topic in self._topics if condition in topic.decides)

    def _settled(self, text: FixText) -> tuple[Fix, ...]:
        """The fixes that follow from what the container states of that which a text is about."""
        container, engine = None if self.log_only else self.container, self.engine
        said = partial(fill, values=self.values)
        message, lacked, wrong = said(text.settles), said(text.brings), said(text.edits)
        module, _, name = said(text.package).partition(" ")
        missing = module, name.replace("?", "")
        kinds = tuple(re.findall(r"[A-Za-z][\w.-]*", said(text.newer)))
        if message and (found := settled(container, engine, message)):
            return found
        if container is None:
            known = newer(None, engine, kinds) if kinds else packaged(None, engine, *missing) if module else None
            return (known,) if known else ()
        values = {said(name): said(value) for name, value in text.put.items()}
        # a client quotes what the server that it asks has refused
        asks = text.serves or text.for_chats or text.reads_tools
        server = engine or (server_of(container) if asks else None)
        made = (
            dropped(container, engine, text.drop) if text.drop else None,
            *(put(container, engine, n, v, said(text.summary)) for n, v in values.items() if "?" not in v),
            linked(container, engine, said(text.library)) if text.library else None,
            serving_as(server, said(text.serves)) if text.serves and server else None,
            for_chats(server) if text.for_chats and server else None,
            serve(engine, said(text.model), said(text.summary), said("{hub_model}")) if text.model and engine else None,
            reads_tools(server) if text.reads_tools and server else None,
            newer(container, engine, kinds) if kinds else None,
            packaged(container, engine, *missing) if module else None,
            field(container, named(message), "Correct or remove {name}") if message else None,
            brings(container, lacked) if lacked else None,
            edits(container, wrong, _CORRECT) if wrong else None,
            gives(container, said(text.variable)) if text.variable else None,
        )
        return tuple(fix for fix in made if fix)

    def _fix(self, text: FixText) -> Fix | None:
        if text.runs or text.before or text.grows:
            return None if self.container is None or self.log_only else self._where_known(text, self.container)
        if (text.reach or text.group or text.other_side) and (mended := self._reached(text)) is not None:
            return mended
        summary = fill(text.summary, self.values)
        if self.pod and any(self._deletes(command) for command in text.commands):
            summary += lone(self.pod)
        commands = () if self.log_only else self._commands(text)
        told = summary + self._patches.variables(text, summary)
        change = None
        if self.pod is not None and not self.log_only:
            change = self._patches.change(text, self.pod, summary)
            if change and change.patch is None and told != summary:
                change = self._patches.change(text, self.pod, told)
        if change is None:
            return Fix(summary=told + self._patches.setting(text), owner=text.owner, commands=commands)
        return msgspec.structs.replace(change, owner=text.owner, commands=(*commands, *change.commands))

    def _deletes(self, command: str) -> bool:
        """Whether what a command comes to deletes the pod."""
        return " delete pod {pod}" in command or (_RESTART in command and not self._restarts)

    @property
    def _restarts(self) -> bool:
        """Whether kubectl makes the pods of the workload anew: it knows three kinds, and what is made for another object is put back."""
        owned = self.pod is not None and bool(unread(self.pod))
        return self.workload is not None and self.workload.kind in RESTARTED and not owned

    def _reached(self, text: FixText) -> Fix | None:
        """What mends whom the line or the container's settings name, where the objects say what is wrong there."""
        pod, container = self.pod, self.container
        if pod is None or self.log_only:
            return None
        if text.other_side and self.engine is not None and (mended := other_side(self.engine)) is not None:
            return mended
        named = self.captured.get("host", "")
        port = self.captured.get("port", "")
        asked = [
            f"{named}:{port}" if named and port.isdecimal() else named,
            *map(self.captured.get, ("peer", "address", "url")),
        ]
        if text.reach not in ("", _AS_NAMED) and container is not None and not any(asked):
            asked = [*told(text.reach, container)]
        found = (reach(address, pod, container) for address in dict.fromkeys(asked) if address)
        mended = next((fix for fix in found if fix), None)
        if mended is not None or not text.group:
            return mended
        first = [ending.container.pod for ending in last_round(self.subject.pods)[:1]] if text.group == "ended" else []
        idle = [one for one in self.subject.pods if not one.begun]
        others = (one for one in (*first, *idle) if one is not pod)
        return next((fix for one in others if (fix := of_pod(one, f"of the same group as {pod.name}"))), None)

    @property
    def _own(self) -> str:
        """The engine, where the image is its makers' own."""
        return self.engine.name if self.engine and self.engine.own_image else ""

    def _where_known(self, text: FixText, container: Container) -> Fix | None:
        """A fix that is none where the container does not tell what would be changed."""
        if text.runs:
            program = self.captured.get("program") or self.captured.get("line") or ""
            return run_by(container, program, self.engine.name if self.engine else "")
        if text.before:
            return run_after(container, text.before, fill(text.summary, self.values), self._own)
        return grow(container, mount, self.here.model_bytes, text.summary) if (mount := self._files.mount) else None

    def _commands(self, text: FixText) -> tuple[str, ...]:
        """The commands that can be run: on the object that a person edits, and in a container that runs."""
        quoted = Values({name: partial(self._quoted, name) for name in self.values})
        commands = text.commands
        if self.values["container"] == UNNAMED:  # kubectl then takes the first one
            commands = tuple(command.replace(" -c {container}", "") for command in commands)
        known = {"{node}": self.values["node"], "{leader}": self._group.leader}
        unknown = [name for name, value in known.items() if not value]
        commands = tuple(command for command in commands if not any(name in command for name in unknown))
        stored = model_store.listing(self.container) if self.container else ""
        listed = (self._files.place.lists if self._files.place else "") or stored
        own = [listed if text.lists else "", self._objects.made[0] if text.creates else ""]
        filled = (fill(command, quoted) for command in commands)
        # what somebody has to fill in is no command
        return (*filter(None, own), *self._applicable(command for command in filled if NO_MODEL not in command))

    def _applicable(self, commands: Iterator[str]) -> Iterator[str]:
        pod, container, workload = self.pod, self.container, self.workload
        template = pod.template if pod else None
        fixed = workload is None or (template and template.immutable and template.raw is workload.raw)
        fixed = fixed or (pod is not None and bool(unread(pod)))
        running = container.running if container else any(c.running for c in pod.containers) if pod else False
        edits_it = f" edit {self._quoted('workload')}"
        # of these there is no object, and messages name them like those that have one
        described = (
            {v.name for v in pod.spec.volumes if not (v.persistent_volume_claim or v.ephemeral)} if pod else set()
        )
        for command in commands:
            if _RESTART in command and not self._restarts:
                if pod is not None and pod.exists:
                    names = " ".join(shlex.quote(one.name) for one in self.subject.pods)
                    yield f"kubectl -n {shlex.quote(pod.namespace)} delete pod {names}"
                continue
            if (named := re.match(r"kubectl get pv (\S{1,253})", command)) and named[1] in described:
                continue
            if " scale " in command and (fixed or workload is None or not self._objects.scales_by_hand(workload)):
                continue
            if (command.endswith(edits_it) and fixed) or (" exec " in command and not running):
                continue
            # an instance before the first one has no log
            yield command.replace(" --previous", "") if container and not container.restarts else command

    @cached_property
    def _case(self) -> Case:
        """What the message and the specification say of what is enough."""
        engine = self.engine
        container = self.container or (engine.container if engine else None)
        sizing = self.subject.sizing(engine) if engine else None
        gpu = partial(self.subject.accelerator, container) if container else lambda: None
        return Case(engine, container, self.captured, self.here.told, sizing, gpu)

    def _quoted(self, name: str) -> str:
        """A value as a shell takes it."""
        value = self.values[name]
        return shlex.quote(value) if value else ""

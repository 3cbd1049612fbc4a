"""Where a container is told of an address or of a time, and how a person writes another there."""

import re
import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    MASK,
    Cluster,
    Container,
    Destination,
    Engine,
    Fix,
    Item,
    Pod,
    engines_in,
    expression,
    fixes,
    is_headless,
    rows,
)

_LONGEST = 20_000

#: A time that somebody may wait, in a variable, an argument or a file: the rest of its name, the number, its unit; and what its name
#: begins with.
_TIMES = expression(
    r"(?i)time[_-]?out(?P<rest>[a-z_.-]{0,40}(?: (?:server|queue|tunnel))?)[\"']?[ \t]{0,4}(?:[:=]>?)?[ \t]{0,4}[\"']?"
    r"(?P<number>\d{1,9})(?:\.0{1,3})?(?P<unit>ms|s|m)?(?![\w.])"
)
_BEGINS = expression(r"[\w.-]{1,60}$")
#: Times for something else than an answer.
_OF_OTHERS = expression(
    r"(?i)connect|idle|keep|send|health|probe|check|shutdown|drain|grace|startup|lock|db|redis|session|cooldown"
)
#: So many names help a reader.
_FEW = 4

#: What a server of models is called, or by which address it is asked.
_A_MODEL = expression(r"(?i)llm|model|openai|ollama|infer|generat|/v\d\b|:11434\b")

#: A number without a unit that is so large has milliseconds.
_MILLISECONDS = 10_000
#: What a time is called that is surely for answers, where nobody says how long it was.
_OF_ANSWERS = expression(
    r"(?i)read|request|response|server|upstream|proxy|backend|llm|openai|ollama|generat|inference|model|client|^timeout$"
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
#: The unit at the end of its name.
_NAMED = ((r"(?i:[_.-]ms|millis(?:econds)?)$|[a-z]Ms$", "ms"), (r"(?i:[_.-]mins?|minutes?)$", "m"))


class Place(msgspec.Struct, frozen=True):
    """A text that a container is told, and what makes it another one: `variable`, `argument` or the key of a ConfigMap."""

    container: Container
    kind: str
    name: str
    text: str

    def written(self, text: str, summary: str) -> Fix:
        """The fix that writes another text there, of a file in words."""
        where = fixes.edited(self.container.pod)
        if self.kind == "variable":
            return fixes.set_env(self.container, self.name, text, f"{summary} in {where}")
        if self.kind == "argument":
            at = f"{self.container.pointer}/args/{self.name}"
            operation = {"op": "replace", "path": at, "value": text}
            return fixes.patch(self.container.pod, f"{summary} in the arguments of {where}", [operation])
        again = restart(self.container)
        read = f", and restart {where}, which reads it when it starts" if again else ""
        space = shlex.quote(self.container.pod.namespace)
        return fixes.advice(
            f"{summary} in {self.name}{read}", f"kubectl -n {space} edit {self.name.split()[-1].lower()}", *again
        )


class _Told(msgspec.Struct, frozen=True):
    """A time where a container is told of it: its name, the number with its unit, and how many seconds one of its unit are."""

    place: Place
    name: str
    number: str
    #: where the number stands
    at: int
    unit: str
    scale: float


def restart(container: Container) -> tuple[str, ...]:
    """The command that starts all pods of a workload anew."""
    where, space = fixes.edited(container.pod), shlex.quote(container.pod.namespace)
    kind, _, name = where.partition("/")
    if kind not in ("Deployment", "StatefulSet", "DaemonSet"):
        return ()
    return (f"kubectl -n {space} rollout restart {kind.lower()}/{name}",)


def places(container: Container) -> Iterator[Place]:
    """All that a container is told: its variables, its arguments one by one, and the ConfigMaps that are mounted."""
    for name, variable in container.env.items():
        # what is kept from a proxy is not asked by that
        if variable.value and MASK not in variable.value and name.upper() != "NO_PROXY":
            yield Place(container, "variable", name, variable.value[:_LONGEST])
    for index, word in enumerate(map(str, container.spec.args)):
        if MASK not in word and "\n" not in word:
            yield Place(container, "argument", str(index), word[:_LONGEST])
    for name, texts in container.config_maps:
        for key, text in texts.items():
            yield Place(container, "file", f"{key} of ConfigMap/{name}", text[:_LONGEST])


def moved(text: str, host: str, port: int | None, authority: str) -> tuple[str, str, str] | None:
    """What stands for a host and a port in a text, what `llama:8000` becomes there, and the text with it.

    A host alone, without a scheme and a port, may as well be a model's name; and who is asked with TLS under one name is not known to
    speak it under another.
    """
    name, _, at = authority.partition(":")
    shape = rf"(?P<scheme>https?://)?(?<![\w.-]){re.escape(host)}(?P<port>:\d{{1,5}})?(?![\w.-]|:\d)"
    found: list[tuple[int, int, str]] = []
    for said in re.finditer(shape, text):
        usual = {"http://": "80", "https://": "443"}.get(said["scheme"] or "", "")
        told = (said["port"] or "").removeprefix(":") or usual
        if not told or (port is not None and int(told) != port) or (said["scheme"] == "https://" and name != host):
            continue
        start = said.end("scheme") if said["scheme"] else said.start()
        found.append((start, said.end(), name if at == usual and not said["port"] else authority))
    whole = text
    for start, end, new in reversed(found):
        whole = whole[:start] + new + whole[end:]
    return (text[found[0][0] : found[0][1]], found[0][2], whole) if found else None


def readdressed(container: Container, to: Destination, authority: str, otherwise: str) -> Fix:
    """Another host and port (`llama:8000`) where a container is told of an address; a sentence where nothing that was read says it."""
    for place in places(container):
        if (said := moved(place.text, to.host, to.port, authority)) is not None:
            old, new, whole = said
            what = f"{place.name}: " if place.kind == "variable" else ""
            return place.written(whole, f"Write {new} in place of {old} ({what}whom {container.name} asks)")
    return fixes.advice(otherwise)


def of_models(container: Container, host: str, cluster: Cluster) -> str:
    """`llm:8000`: the only Service that leads to a server of models, for a container that takes a host for one; else empty."""
    told = (f"{one.name} {part}" for one in places(container) for part in one.text.split() if host in part)
    if not any(_A_MODEL.search(text) for text in told):
        return ""
    every: set[tuple[str, str, int]] = cluster.once("services of models", lambda: set(_of_models(cluster)))
    here = container.pod.namespace
    found = [one for one in every if one[0] == here] or list(every)
    if len(found) != 1:
        return ""
    space, name, port = found[0]
    return f"{name}:{port}" if space == here else f"{name}.{space}:{port}"


def nearest(container: Container, host: str, cluster: Cluster) -> str:
    """` (there are llm:8000, webui:80)`: the Services of a container's namespace that it could mean, those of a like name alone."""
    every = [item for item in cluster.items("Service", container.pod.namespace) if not is_headless(item)]
    first = host.partition(".")[0]
    like = [item for item in every if item.name in first or first in item.name] or every
    ports = {item.name: [row.get("port") for row in rows(item.raw, "spec.ports")] for item in like}
    shown = ", ".join(f"{name}:{have[0]}" if have else name for name, have in ports.items())
    return f" ({'there are' if len(like) > 1 else 'there is'} {shown})" if 0 < len(like) <= _FEW else ""


def _of_models(cluster: Cluster) -> Iterator[tuple[str, str, int]]:
    for item in cluster.items("Pod"):
        pod = Pod.of(item, cluster)
        for service in pod.services if not pod.leaving else ():
            if not is_headless(service) and (port := leading(service, engines_in(pod))) is not None:
                yield service.namespace, service.name, port


def leading(service: Item, engines: list[Engine]) -> int | None:
    """The port of a Service that leads to where one of these engines listens, else its only one."""
    listed = [row for row in rows(service.raw, "spec.ports") if isinstance(row.get("port"), int)]
    for row in listed:
        target = row.get("targetPort") or row["port"]
        ports = [(engine.container.port_number(target), engine.value("port")) for engine in engines]
        if any(asked is not None and asked == own for asked, own in ports):
            return int(row["port"])
    return int(listed[0]["port"]) if len(listed) == 1 and engines else None


def times(container: Container, seconds: float | None, enough: int) -> Iterator[_Told]:
    """Where a container is told to wait so long, or less than enough, for something that may be an answer."""
    for place in places(container):
        text = f"{place.name}={place.text}" if place.kind == "variable" else place.text
        for said in _TIMES.finditer(text):
            number, unit = int(said["number"]), said["unit"] or ""
            at = said.start("number") - (len(text) - len(place.text))
            begins = _BEGINS.search(text[max(said.start() - 60, 0) : said.start()])
            first = begins[0] if begins else ""
            name = first + text[said.start() : said.start("rest")] + said["rest"]
            scales = _scales(name, unit, number, met=seconds is not None)
            if _OF_OTHERS.search(name) or not number or at < 0 or (seconds is None and not _OF_ANSWERS.search(name)):
                continue
            met = (one for one in scales if seconds and abs(number * one - seconds) <= max(0.5, seconds / 50))
            scale = next(met, None) if seconds else next((one for one in scales if number * one < enough), None)
            if scale is not None:
                yield _Told(place, name, said["number"], at, unit, scale)


def _scales(name: str, unit: str, number: int, *, met: bool) -> list[float]:
    """How many seconds one of its unit are: where none is told as many as fit the time that was met, else the likely one."""
    unit = unit or next((one for form, one in _NAMED if re.search(form, name)), "")
    if unit:
        return [_UNITS[unit]]
    return [1.0, 0.001] if met else [1.0 if number < _MILLISECONDS else 0.001]


def prolonged(container: Container | None, seconds: float | None, enough: int) -> Fix | None:
    """A longer time where a container is told of the one that was met; None where it is told of none, or of several."""
    found = list(times(container, seconds, enough)) if container is not None else []
    if len({(one.place.kind, one.place.name, one.name, one.number) for one in found}) != 1:
        return None
    told, place = found[0], found[0].place
    more = str(round(enough / told.scale))
    summary = f"Raise {told.name} from {told.number}{told.unit} to {more}{told.unit}"
    return place.written(place.text[: told.at] + more + place.text[told.at + len(told.number) :], summary)

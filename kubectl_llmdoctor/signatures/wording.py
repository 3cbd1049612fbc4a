"""One wording of a cause against one text: what it captures, whose it is, and the finding that it makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from kubectl_llmdoctor.advice.templates import fill
from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.driver import driver_cuda, image_cuda, said_cuda, suffices
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.logs import Line
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.processes import raised_at, said
from kubectl_llmdoctor.facts.quoted import carried
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.report.document import Evidence
from kubectl_llmdoctor.signatures.declared import Pattern, Signature

#: Processes that write to one log in turn, at most: so many times further apart two lines of one of them may stand.
_SIDE_BY_SIDE = 16

#: The name of a field has fewer characters.
_MOST_BETWEEN = 120

#: By expression, texts of which every match has one, as the indexes of packs have them: few expressions are compiled then.
REQUIRED: dict[str, tuple[str, ...]] = {}

#: A named group of `match`, where `speaks_of` has it.
_CAPTURED = expression(r"\{([a-z]\w*)\}")


def matching(signature: Signature, text: str) -> bool:
    """Whether a line is one that the signature looks for, whatever must stand around it."""
    return any(capture(pattern, text) is not None for pattern in signature.patterns)


def capture(pattern: Pattern, text: str) -> dict[str, str] | None:
    """What the pattern captures of a text that it matches."""
    if pattern.literal not in text:
        return None
    if not pattern.match:
        return {}
    found = _search(pattern.match, text)
    return _names(found) if found else None


def captured(pattern: Pattern, line: Line) -> dict[str, str] | None:
    """What the pattern captures of a line, or of what its process said."""
    for text in (line.text, said(line.text).text):
        if (found := capture(pattern, text)) is not None:
            return None if all(carried(text, at) for at in _places(pattern, text)) else found
    return None


def _places(pattern: Pattern, text: str) -> set[int]:
    """Where in a text that matches what the pattern looks for begins, and where its literal stands from there on.

    A match may begin in another field than that which tells of the cause: in the `"level": "error"` before it.
    """
    found = _search(pattern.match, text) if pattern.match else None
    begin = found.start() if found else 0
    literal = text.find(pattern.literal, begin)
    return {place for place in (begin if found else -1, literal) if place >= 0} or {text.find(pattern.literal)}


def refused_at(pattern: Pattern, line: Line) -> Line | None:
    """The frame that raised the error which the line ends, where it is one that the pattern asks for."""
    frame = raised_at(line)
    return frame.line if frame and frame.refuses and _search(pattern.raised_in, frame.line.text) else None


def beside(pattern: Pattern, line: Line) -> tuple[Line, dict[str, str]] | None:
    """The second line that must stand around this one, and what is captured of it."""
    for other in line.log.marks(pattern.near):
        away = abs(other.number - line.number)
        if away > pattern.within * _SIDE_BY_SIDE or line.log.torn(line.number, other.number):
            continue
        if (away <= pattern.within or _close(line, other, pattern.within)) and (
            found := _search(pattern.near_match, other.text)
        ):
            return other, _names(found) | _between(line, other)
    return None


def _between(line: Line, other: Line) -> dict[str, str]:
    """The one line between two, in which pydantic names the field that the second is of."""
    if other.number != line.number + 2:
        return {}
    text = said(line.log.line(line.number + 1).text).text.strip()
    return {"between": text} if 0 < len(text) < _MOST_BETWEEN else {}


def _close(line: Line, other: Line, within: int) -> bool:
    """Whether two lines of one process stand so near each other among the lines of that process."""
    who = said(line.text).process
    if not who or said(other.text).process != who:
        return False
    first, last = sorted((line.number, other.number))
    return sum(said(one.text).process == who for one in line.log.lines(first + 1, last)) <= within


def _search(expression: str, text: str) -> re.Match[str] | None:
    texts = REQUIRED.get(expression)
    if texts and not any(one in text for one in texts):
        return None
    return _regex(expression).search(text)


@cache
def _regex(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


def _names(found: re.Match[str]) -> dict[str, str]:
    # a sentence that ends after a name or a number leaves its full stop with it
    return {k: v.rstrip(".,;: ") or v for k, v in found.groupdict().items() if v is not None}


def fits(
    pattern: Pattern, subject: Subject, pod: Pod, container: Container | None, captures: Mapping[str, str]
) -> bool:
    """Whether the pattern is of an engine that runs there, of what it does, and the node's driver does not disprove it."""
    if pattern.without_nvidia and not (container and container.without_nvidia):
        return False
    if pattern.asks and container is not None and not _asks(pod, container):
        return False
    if pattern.locks is not None and pattern.locks != _may_lock(container):
        return False
    if pattern.without_cuda:
        if container is not None and container.without_nvidia:
            return False
        key = f"has CUDA {pattern.without_cuda} {pod.namespace}/{pod.name}/{container.name if container else ''}"
        if pod.cluster.once(key, lambda: _has_cuda(pattern.without_cuda, subject, pod, container)):
            return False
    if pattern.speaks_of and not _speaks_of(pattern.speaks_of, subject, pod, container, captures):
        return False
    if not pattern.engines:
        return True
    names = [e.name for e in subject.engines(pod) if container is None or e.container is container]
    return (not names and not pattern.bare) or any(name in pattern.engines for name in names)


def _asks(pod: Pod, container: Container) -> bool:
    """Whether a container is to have an accelerator: by its resources or claims, or by the runtime that the pod names for it."""
    return bool(container.accelerators or container.spec.resources.claims or pod.spec.runtime_class_name)


def _may_lock(container: Container | None) -> bool:
    """Whether no limit of locked memory holds for a container: the kernel asks for the capability of the node's own (`ib_umem_get`)."""
    if container is None or not container.may("IPC_LOCK") or not container.may_be_root:
        return False
    return container.pod.spec.host_users is not False  # in a user namespace it has the capability for that one only


def _speaks_of(
    expression: str, subject: Subject, pod: Pod, container: Container | None, captures: Mapping[str, str]
) -> bool:
    """Whether what a container is told, or what it prints, matches an expression; with a captured `{name}` what it is told."""
    if _CAPTURED.search(expression):
        asked = re.compile(_CAPTURED.sub(lambda name: re.escape(captures.get(name[1], "?")), expression))
        return container is not None and any(asked.search(text) for text in _told(container))
    key = f"speaks of {expression} {pod.namespace}/{pod.name}/{container.name if container else ''}"
    return pod.cluster.once(key, lambda: any(_search(expression, text) for text in _texts(subject, pod, container)))


def _told(container: Container) -> Iterator[str]:
    """The image and the command of a container, and its variables."""
    spec = container.spec
    yield "\n".join((spec.image, *spec.argv))
    yield "\n".join(f"{name}={variable.value or ''}" for name, variable in container.env.items())


def _texts(subject: Subject, pod: Pod, container: Container | None) -> Iterator[str]:
    if container is not None:
        yield from _told(container)
    for log in subject.logs(pod):
        if container is None or log.container == container.name:
            yield log.text


def _has_cuda(wanted: str, subject: Subject, pod: Pod, container: Container | None) -> bool:
    """Whether the node's driver is known to have a CUDA: a release, or the one that the image was built for (of the newest: any)."""
    node = subject.nodes.get(pod.spec.node_name) if pod.spec.node_name else None
    told = driver_cuda(pod, node)
    driver = told[0] if told else said_cuda(container, subject.logs(pod)) if container else None
    if driver is None:
        return False
    if wanted != "image":
        major, minor = map(int, wanted.split("."))
        return suffices(driver, (major, minor)) is True
    if container is None:
        return False
    built = image_cuda(container, subject.logs(pod))
    return suffices(driver, built[0] if built else None) is True


def finding(
    signature: Signature,
    pattern: Pattern,
    captured: dict[str, str],
    subject: Subject,
    pod: Pod | None,
    container: Container | None,
    evidence: Iterable[Evidence],
    order: float | None = None,
) -> Finding:
    """The cause, in the words of the pattern and with the fixes for this case."""
    from kubectl_llmdoctor.advice.occurrence import Occurrence
    from kubectl_llmdoctor.advice.situation import Situation  # 15 ms, for what is found alone

    evidence = tuple(evidence)
    told = "\n".join(one.text for one in evidence)
    here = Situation(Occurrence(subject, pod, container, captured, told))
    return Finding(
        role="cause",
        summary=fill(_summary(signature, pattern, here.values), here.values),
        confidence=pattern.confidence or signature.confidence,
        evidence=evidence,
        explains=_explained(signature, subject, pod, container) if pattern.explains is None else pattern.explains,
        fixes=here.fixes(pattern.fixes or signature.fixes),
        order=order,
        pods=(pod.name,) if pod else (),
    )


def _explained(signature: Signature, subject: Subject, pod: Pod | None, container: Container | None) -> tuple[str, ...]:
    """What a signature's fault explains there: what a server says is not why something failed that came before it."""
    serves = pod and container and subject.engine_of(container)
    return signature.explains if serves else (*signature.explains, *signature.explains_before)


def _summary(signature: Signature, pattern: Pattern, values: Mapping[str, str]) -> str:
    """The pattern's summary where all that it names was captured."""
    import string  # 1 ms, and few runs find a line

    names = {name for _, name, _, _ in string.Formatter().parse(pattern.summary) if name}
    return pattern.summary if pattern.summary and names <= values.keys() else signature.summary

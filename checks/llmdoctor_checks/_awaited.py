"""Init containers that wait for a server which nobody runs, and say no more than that they wait.

What they ask stands in their script; one that prints why it gets no answer is read by its log.
"""

import itertools
import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import Cluster, Container, Destination, Pod, expression, follow
from llmdoctor_checks._connections import BARE, HOST, URL, port_in
from llmdoctor_checks.start._init_containers import not_ended, script_of

#: What asks again until it is answered: all of a loop, or a line.
_AGAIN = expression(r"\b(?P<loop>until|while)\b|--retry\b|\bwait-for-it\b|\bdockerize\b")
_DONE = expression(r"\bdone\b")
#: Programs that take the host and the port apart, and those that ask only for the name.
_APART = expression(
    rf"\b(?:nc|ncat|netcat)(?:[ \t]+-[\w]{{1,6}}(?:[ \t]+\d{{1,4}})?){{0,6}}[ \t]+(?P<host>{HOST})[ \t]+(?P<port>\d{{2,5}})\b"
)
_NAME = expression(
    rf"\b(?:nslookup|getent[ \t]+(?:ahosts|hosts))[ \t]+(?:-[\w=]{{1,20}}[ \t]+){{0,3}}(?P<host>{HOST})(?=[\s;\"'&|)]|$)"
)
_PATTERNS = (expression(URL), expression(BARE), _APART, _NAME)
_VARIABLE = expression(r"\$\{?([A-Za-z_]\w{0,60})\}?")
_ASSIGNED = expression(r"(?m)(?:^|[;\s])([A-Za-z_]\w{0,60})=[\"']?([\w.:/-]{1,300})")
#: So much of a script is read, and so many of its loops.
_LONGEST, _MOST = 20_000, 20


class Awaited(msgspec.Struct, frozen=True):
    """An init container that runs, and whom it asks."""

    container: Container
    to: Destination
    #: the words in which it does, and where they stand
    words: str
    at: str


def awaited(pod: Pod, cluster: Cluster) -> Iterator[Awaited]:
    """Whom the init container asks that the pod waits for."""
    for container, _ in not_ended(pod):
        script = _filled(script_of(container)[:_LONGEST], container)
        for pattern, piece in itertools.product(_PATTERNS, _again(script)):
            for said in pattern.finditer(piece):
                found = said.groupdict()
                to = follow(found["host"], port_in(found), pod, cluster)
                if to is not None and not to.itself and to.name:
                    at = (place.partition("[")[0] for place, text in container.words if found["host"] in text)
                    yield Awaited(container, to, said[0], next(at, "command"))


def _again(script: str) -> Iterator[str]:
    """The parts of a script that ask again: what stands outside of them is asked once, or later."""
    for said in itertools.islice(_AGAIN.finditer(script), _MOST):
        start, end = script.rfind("\n", 0, said.start()) + 1, script.find("\n", said.end())
        if said["loop"]:
            done = _DONE.search(script, said.end())
            if done is None:  # no shell's
                yield script
                return
            start, end = said.start(), done.start()
        yield script[start : end if end >= 0 else None]


def _filled(script: str, container: Container) -> str:
    """A script with the values of the container's variables, and of those that it sets itself."""
    own = {said[1]: said[2] for said in _ASSIGNED.finditer(script)}

    def value(said: re.Match[str]) -> str:
        variable = container.env.get(said[1])
        return own.get(said[1]) or (variable.value if variable is not None and variable.value else said[0])

    return _VARIABLE.sub(value, script)[:_LONGEST]

"""Which container the kubelet gave each device to, from its pod-resources socket.

The socket's service is `v1.PodResourcesLister` (k8s.io/kubelet, `pkg/apis/podresources/v1/api.proto`), whose messages
only ever get new fields. Six strings of it are needed, so its answer is walked here: the protobuf runtime would cost
3 MB of memory, and generated code that has to fit the installed runtime's version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmdoctor_agent.report import Error, User
from llmdoctor_agent.unary import UNIMPLEMENTED, CallError, call

_METHOD = "/v1.PodResourcesLister/List"
#: 500 pods with eight devices and all CPUs of a large node each take 0.5 MB; the agent itself has 64 MB
_MAX_ANSWER = 4 << 20

#: NVIDIA's plugin appends `::N` to what it shares, by time or by MPS. Others that share (HAMi's `GPU-…-3`, `GPU-…-_-3`
#: of gpushare) let the kubelet pick any id and decide themselves which GPU it means, so theirs are not understood.
_UUID = re.compile(
    r"(?P<uuid>(?:GPU|MIG)-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|MIG-GPU-[0-9a-fA-F-]{36}/\d+/\d+)(?:::\d+)?"
)
#: GKE's plugin: `nvidia0`, `nvidia0/gi1`, each also with `/vgpu2` behind it where it is shared; the number is /dev/nvidia0's
_MINOR = re.compile(r"nvidia(?P<minor>\d+)(?:/gi(?P<instance>\d+))?(?:/vgpu\d+)?")
#: NVIDIA's DRA driver names a whole GPU by that number as well; the names of its MIG devices do not lead to one that exists
_CLAIMED = re.compile(r"gpu\.nvidia\.com/gpu-(?P<minor>\d+)")


class PodResources:
    """The kubelet's account of who has which device, asked for anew each time: a kubelet that restarts makes a new socket."""

    def __init__(self, socket: Path, deadline_s: float = 5.0) -> None:
        self.socket, self.deadline_s = socket, deadline_s

    def read(self) -> tuple[dict[str, tuple[User, ...]], Error | None]:
        """The containers of each device by its id as the kubelet has it, `DRIVER/DEVICE` for one of a claim.

        A claimed device whose CDI name holds the UUID has that as id. Kubelets before 1.34 also list pods that have
        ended and are not removed yet.
        """
        answer = self._ask()
        if isinstance(answer, str):
            return {}, Error(source="pod-resources", reason=answer, fields=("pods",))
        try:
            return _users(answer), None
        except ValueError as e:
            return {}, Error(
                source="pod-resources", reason=f"the kubelet's answer is not understood: {e}", fields=("pods",)
            )

    def _ask(self) -> bytes | str:
        """The answer, or why there is none."""
        try:
            if not self.socket.is_socket():
                return f"no socket at {self.socket}: not mounted, or the kubelet does not run"
            return call(self.socket, _METHOD, deadline_s=self.deadline_s, max_bytes=_MAX_ANSWER)
        except TimeoutError:
            return f"the kubelet did not answer within {self.deadline_s:g} s"
        except OSError as e:
            return f"{self.socket}: {e.strerror or e}"
        except CallError as e:
            old = (
                ": it does not know this service (v1 is there since Kubernetes 1.20)"
                if e.status == UNIMPLEMENTED
                else ""
            )
            return f"{e}{old}"


def users_of(
    found: Mapping[str, tuple[User, ...]],
    *,
    uuid: str | None = None,
    minor: int | None = None,
    instance: int | None = None,
) -> tuple[User, ...]:
    """The containers that a GPU or a MIG device was given to.

    `minor` is the number of the device file of the GPU (`/dev/nvidia0`), or of the one that the MIG device is part of;
    `instance` the MIG device's GPU instance, None for a whole GPU. A user has it once, however many shares of it.
    """
    users: dict[tuple[str, str, str], User] = {}
    for device, those in found.items():
        if match := _UUID.fullmatch(device):
            mine = match["uuid"] == uuid
        elif match := _MINOR.fullmatch(device):
            mine = (
                minor == int(match["minor"])
                and (None if match["instance"] is None else int(match["instance"])) == instance
            )
        elif match := _CLAIMED.fullmatch(device):
            mine = minor == int(match["minor"]) and instance is None
        else:
            mine = False
        if mine:
            users |= {(user.namespace, user.name, user.container): user for user in those}
    return tuple(users.values())


# -- the message ------------------------------------------------------------------------------------------------------

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _users(answer: bytes) -> dict[str, tuple[User, ...]]:
    found: dict[str, dict[tuple[str, str, str], User]] = {}
    for pod in _parts(answer, 1):
        for container in _parts(pod, 3):
            user = User(namespace=_text(pod, 2), name=_text(pod, 1), container=_text(container, 1))
            for device in _devices(container):
                found.setdefault(device, {})[user.namespace, user.name, user.container] = user
    return {device: tuple(users.values()) for device, users in found.items()}


def _devices(container: memoryview) -> Iterator[str]:
    for devices in _parts(container, 2):
        yield from (_decode(device) for device in _parts(devices, 2))
    for claim in _parts(container, 5):
        for resource in _parts(claim, 4):
            names = (_text(cdi, 1) for cdi in _parts(resource, 1))
            uuids = {match["uuid"] for name in names if (match := _UUID.fullmatch(name.rpartition("=")[2]))}
            yield from sorted(uuids) or (f"{_text(resource, 2)}/{_text(resource, 4)}",)


def _text(message: memoryview, number: int) -> str:
    """A string field; empty where it is not set. The last one counts, as in any protobuf decoder."""
    value = ""
    for part in _parts(message, number):
        value = _decode(part)
    return value


def _decode(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def _parts(message: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """The values of a field that are strings or messages themselves; all other fields are passed over."""
    view, at = memoryview(message), 0
    while at < len(view):
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(view, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        elif kind == _BYTES:
            size, at = _varint(view, at)
            if tag >> 3 == number and at + size <= len(view):
                yield view[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(view):
            raise ValueError("it ends inside a field")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("it ends inside a number" if at >= len(view) else "a number of more than ten bytes")

"""Gives the network namespace it runs in an address, then becomes pytest: ``python -m tests.e2e.network …``.

The ports of the control plane are fixed; in a namespace of their own they collide with nothing. The address stands on
``lo`` but is no loopback address, because the API server refuses to proxy to loopback addresses. The ``ip`` command is
not everywhere, so the kernel is asked directly.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

ADDRESS = "10.77.0.1"

SIOCADDRT, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8913, 0x8914, 0x8916, 0x891C
CLONE_NEWNET = 0x40000000
IFF_UP, RTF_UP, RTF_GATEWAY = 0x1, 0x1, 0x2


def set_up() -> None:
    """Raises ``lo``, puts ``ADDRESS``/24 beside its loopback address and sends everything else there, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.pack("16sH14x", b"lo", 0)
        (current,) = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, flags), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", current | IFF_UP))
        fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s", b"lo:1", _address(ADDRESS)))
        fcntl.ioctl(control, SIOCSIFNETMASK, struct.pack("16s16s", b"lo:1", _address("255.255.255.0")))
        # struct rtentry: padding, destination, gateway, netmask, flags, and fields that stay empty.
        anywhere = _address("0.0.0.0")
        route = struct.pack("@L16s16s16sH", 0, anywhere, _address(ADDRESS), anywhere, RTF_UP | RTF_GATEWAY)
        fcntl.ioctl(control, SIOCADDRT, route.ljust(120, b"\0"))


def leave() -> None:
    """Takes this thread, and all that it starts from now on, into a namespace of its own, set up like the first."""
    library = ctypes.CDLL(None, use_errno=True)  # os.unshare came with Python 3.12
    if library.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace for a process of the tests")
    set_up()


def _address(dotted: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(dotted))


if __name__ == "__main__":
    set_up()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])

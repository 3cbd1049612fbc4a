"""What PyTorch says of a GPU that is full: how much of it is somebody else's."""

import re

import msgspec

from kubectl_llmdoctor.api import GIB

#: PyTorch's account of a GPU that is full (c10/cuda/CUDACachingAllocator.cpp), since 2.1 and before. What the process has
#: besides PyTorch's memory only the newer one counts, and not in every container.
_AMOUNT = r"\d{1,9}(?:\.\d{1,9})? (?:[KMG]iB|bytes)"
_FULL = rf"GPU \d+ has a total capacity (?:of )?(?P<total>{_AMOUNT}) of which (?P<free>{_AMOUNT}) is free\. "
_OWN = rf"Including non-PyTorch memory, this process has (?P<own>{_AMOUNT}) memory in use\."
_ACCOUNTS = (
    rf"{_FULL}{_OWN}",
    (
        rf"{_FULL}Of the allocated memory (?P<used>{_AMOUNT}) is allocated by PyTorch.{{0,160}}? and "
        rf"(?P<kept>{_AMOUNT}) is reserved by PyTorch but unallocated"
    ),
    (
        rf"[GN]PU \d+; (?P<total>{_AMOUNT}) total capacity; {_AMOUNT} already allocated; (?:{_AMOUNT} current active; )?"
        rf"(?P<free>{_AMOUNT}) free; (?P<used>{_AMOUNT}) reserved in total by PyTorch"
    ),
)
_BYTES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB}

#: What a process takes of a GPU past PyTorch (context, NCCL, cuBLAS, graphs) is less than the greater of these, save where an
#: engine has an allocator of its own.
PAST_PYTORCH = 4 * GIB
_PAST_PYTORCH_SHARE = 0.3


class Account(msgspec.Struct, frozen=True):
    """A GPU in bytes: all of it, what is free, and what the process has as far as PyTorch tells."""

    total: float
    free: float
    own: float

    @property
    def others(self) -> float:
        """What others hold; 0 where it may be this process's own beside PyTorch."""
        rest = self.total - self.free - self.own
        return rest if rest > max(PAST_PYTORCH, _PAST_PYTORCH_SHARE * self.total) else 0


def account(text: str) -> Account | None:
    """The account that a line gives."""
    said = next((found for form in _ACCOUNTS if (found := re.search(form, text[:4000]))), None)
    if said is None:
        return None
    parts = {name: _bytes(amount) for name, amount in said.groupdict().items() if amount}
    own = parts["own"] if "own" in parts else parts["used"] + parts.get("kept", 0)
    return Account(parts["total"], parts["free"], own)


def _bytes(amount: str) -> float:
    number, _, unit = amount.partition(" ")
    return float(number) * _BYTES[unit]

"""What exit codes and signals say of how a process ended."""

#: By signal, for a sentence.
SIGNALS = {
    4: "SIGILL: the CPU lacks an instruction",
    6: "SIGABRT: an assertion in native code, printed earlier",
    7: "SIGBUS: usually a /dev/shm that is too small, or a mapped file that cannot be read",
    9: "SIGKILL: by the kernel (out of memory), the kubelet or a person",
    11: "SIGSEGV: a crash in native code",
    15: "SIGTERM: it was told to stop",
}


def meaning(code: int) -> str:
    """What an exit code says by itself; empty for one that a program chooses freely."""
    if code == 126:
        return "the command cannot be executed"
    if code == 127:
        return "the command is not in the image"
    return SIGNALS.get(code - 128, "") if code > 128 else ""

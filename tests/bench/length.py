"""A log of 200 MB with one cause in it: time against ripgrep with 100 fixed literals over the same file, and memory.

`python -m tests.bench.length`; ripgrep must be on the PATH (`cargo install ripgrep`).
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LITERALS = Path(__file__).parent / "literals.txt"
SIZE = 200_000_000
RUNS = 5
MOST_TIMES, MOST_MIB = 10.0, 150
CAUSE = (
    "(EngineCore_DP0 pid=141) ERROR 06-02 07:57:02 [core.py:708] ValueError: To serve at least one request with the models's "
    "max seq len (65536), (9.00 GiB KV cache is needed, which is larger than the available KV cache memory (4.57 GiB). Based "
    "on the available memory, the estimated maximum model length is 33264. Try increasing `gpu_memory_utilization` or "
    "decreasing `max_model_len` when initializing the engine.\n"
)


def write(path: Path, seed: int) -> None:
    """Noise without answers, which would show that the server got over it, and the cause at a random place in it."""
    chance = random.Random(seed)
    place, size, number = chance.random() * SIZE, 0, 0
    with path.open("w", encoding="utf-8") as file:
        file.write("(APIServer pid=1) INFO 06-02 07:56:00 [api_server.py:1896] vLLM API server version 0.11.0\n")
        while size < SIZE:
            number += 1
            text = (
                f"(APIServer pid=1) INFO 06-02 08:{number // 60 % 60:02}:{number % 60:02} [loggers.py:118] Engine 000: Avg "
                f"prompt throughput: {chance.random() * 3000:.1f} tokens/s, Running: {number % 40} reqs, Waiting: 0 reqs, GPU "
                f"KV cache usage: {chance.random() * 90:.1f}%, Prefix cache hit rate: 45.6%\n"
                f'(APIServer pid=1) INFO:     10.244.1.{number % 250}:40100 - "GET /metrics HTTP/1.1" 200 OK\n'
            )
            if size <= place < size + len(text):
                file.write(CAUSE)
            file.write(text)
            size += len(text)


def _run(program: list[str]) -> tuple[bytes, int]:
    """What a program prints, and the most memory that it held, in kilobytes."""
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    return printed, usage.ru_maxrss


def main() -> int:
    """Print one line; 1 when a bound is broken."""
    rg = shutil.which("rg")
    if rg is None:
        print("length: no rg to compare with")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "engine.log"
        write(log, seed=int(os.environ.get("SEED", "1")))
        program = [sys.executable, "-m", "kubectl_llmdoctor", "diagnose", "--logs", str(log), "-o", "json"]
        theirs, ours, peak = [], [], 0
        for _ in range(RUNS + 1):
            start = time.perf_counter()
            subprocess.run([rg, "-c", "-F", "-f", str(LITERALS), str(log)], stdout=subprocess.DEVNULL, check=True)
            middle = time.perf_counter()
            found, kilobytes = _run(program)
            theirs.append(middle - start)
            ours.append(time.perf_counter() - middle)
            peak = max(peak, kilobytes // 1024)
            assert b'"kv-cache-below-max-len"' in found
    base, mine = statistics.median(theirs[1:]), statistics.median(ours[1:])
    good = mine <= MOST_TIMES * base and peak <= MOST_MIB
    print(
        f"length: {mine:.2f} s = {mine / base:.1f} x rg ({base:.3f} s), at most {MOST_TIMES:g} x; peak {peak} MiB, at most "
        f"{MOST_MIB} MiB: {'ok' if good else 'BROKEN'}"
    )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())

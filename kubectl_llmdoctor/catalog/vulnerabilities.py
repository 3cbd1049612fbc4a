"""Published vulnerabilities of inference servers whose precondition a configuration shows.

Sources: the GitHub advisories of the projects and OSV (PyPI, Go), as of 2026-11. `first` and `fixed` bound what is
affected: from `first` (empty: from the start) to before `fixed`. `needs` names the precondition; what every server of a
version has, whatever its configuration, is left out, since a scanner of images finds that better. Vulnerabilities
without a version that fixes them, or whose range the advisories dispute, are left out too.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Need = Literal[
    "mooncake",
    "pynccl",
    "multi-node",
    "qwen3-coder-parser",
    "pythonic-parser",
    "api-key",
    "prompt-embeds",
    "video",
    "media",
    "media-domains",
    "idefics",
    "optimize",
    "revision",
    "public",
]


class Vulnerability(msgspec.Struct, frozen=True):
    """One advisory. `score` is its CVSS base score."""

    id: str
    engine: str
    first: str
    fixed: str
    score: float
    needs: Need
    what: str


VULNERABILITIES: tuple[Vulnerability, ...] = (
    Vulnerability(
        "CVE-2025-29783", "vllm", "0.6.5", "0.8.0", 9.1, "mooncake",
        "whoever reaches the ports of the KV transfer (Mooncake) runs code in the server",
    ),
    Vulnerability(
        "CVE-2025-32444", "vllm", "0.6.5", "0.8.5", 10.0, "mooncake",
        "whoever reaches the ports of the KV transfer (Mooncake) runs code in the server",
    ),
    Vulnerability(
        "CVE-2025-47277", "vllm", "0.6.5", "0.8.5", 9.8, "pynccl",
        "whoever reaches the ports of the KV transfer (PyNcclPipe) runs code in the server",
    ),
    Vulnerability(
        "CVE-2025-30202", "vllm", "0.5.2", "0.8.5", 7.5, "multi-node",
        "the first node of several sends its data to whoever connects, and can be stopped",
    ),
    Vulnerability(
        "CVE-2025-48887", "vllm", "0.6.4", "0.9.0", 6.5, "pythonic-parser",
        "one output of the model can stop the server (regular expression of the pythonic tool parser)",
    ),
    Vulnerability(
        "CVE-2025-9141", "vllm", "0.10.0", "0.10.1.1", 8.8, "qwen3-coder-parser",
        "the arguments of tool calls are evaluated as code",
    ),
    Vulnerability(
        "CVE-2025-59425", "vllm", "", "0.11.0", 7.5, "api-key",
        "the API key can be found out by measuring how long its comparison takes",
    ),
    Vulnerability(
        "CVE-2025-6242", "vllm", "0.5.0", "0.11.0", 7.1, "media",
        "requests make the server fetch addresses inside the cluster (media URLs)",
    ),
    Vulnerability(
        "CVE-2025-62164", "vllm", "0.10.2", "0.11.1", 8.8, "prompt-embeds",
        "prompt embeddings of a request corrupt memory",
    ),
    Vulnerability(
        "CVE-2026-22773", "vllm", "0.6.4", "0.12.0", 6.5, "idefics",
        "an image of one pixel ends the engine",
    ),
    Vulnerability(
        "CVE-2026-56340", "vllm", "0.10.2", "0.13.0", 8.8, "prompt-embeds",
        "prompt embeddings of a request end the engine",
    ),
    Vulnerability(
        "CVE-2026-22778", "vllm", "0.8.3", "0.14.1", 9.8, "video",
        "a crafted image and video let whoever reaches the API run code in the server",
    ),
    Vulnerability(
        "CVE-2026-24779", "vllm", "", "0.14.1", 7.1, "media-domains",
        "the list of allowed media domains can be bypassed",
    ),
    Vulnerability(
        "CVE-2026-41523", "vllm", "", "0.22.0", 7.5, "optimize",
        "checks that guard the server are assertions, which PYTHONOPTIMIZE removes",
    ),
    Vulnerability(
        "CVE-2026-47155", "vllm", "", "0.22.0", 6.5, "revision",
        "the pinned revision does not hold for all files of the model",
    ),
    Vulnerability(
        "CVE-2026-73557", "vllm", "0.20.2", "0.26.0", 4.3, "prompt-embeds",
        "prompt embeddings of a request end the engine",
    ),
    Vulnerability(
        "CVE-2024-37032", "ollama", "", "0.1.34", 8.8, "public",
        "whoever reaches the API writes files and runs code in the server",
    ),
    Vulnerability(
        "CVE-2026-7482", "ollama", "", "0.17.1", 9.1, "public",
        "whoever reaches the API reads the server's memory, with prompts and variables of others",
    ),
    Vulnerability(
        "CVE-2026-33626", "lmdeploy", "", "0.12.3", 7.5, "media",
        "requests make the server fetch addresses inside the cluster (image URLs)",
    ),
)  # fmt: skip

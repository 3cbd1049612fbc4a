"""What routers and gateways print when none of their servers is left, whatever program they are."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Line, Log, in_order

#: SGLang's router (`all circuits open or unhealthy`), LiteLLM, vLLM's and AIBrix' routers, Envoy, rLLM's and llm-d's gateways.
LITERALS = ("o available ", "o healthy ", "o ready ", "o live upstreams", "all circuits open")
_NOBODY = (
    r"\b[Nn]o (?:available|healthy|ready)(?: \w{1,20})? (?:workers?|backends?|servers?|upstreams?|endpoints?|deployments?|instances?"
    r"|replicas?|hosts?|engines?|pods?)\b|\bno healthy upstream\b|\bno live upstreams\b|\ball circuits open\b"
)


def nobody_left(log: Log) -> Iterator[Line]:
    """Lines of a log that say so, in their order."""
    return (line for line in in_order(log.find(*LITERALS)) if re.search(_NOBODY, line.text[:4000]))

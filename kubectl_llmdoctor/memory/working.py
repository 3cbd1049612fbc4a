"""What an engine keeps beside weights and cache."""

from __future__ import annotations

from kubectl_llmdoctor.catalog.architecture import Architecture
from kubectl_llmdoctor.engines.version import at_least
from kubectl_llmdoctor.memory.amount import GIB, Amount
from kubectl_llmdoctor.memory.serving import Serving, batched_tokens, sequences

#: Bytes that the sampler keeps for one sequence and one entry of the vocabulary: logits in the model's and in full
#: precision, probabilities, and a copy (20 logs of 0.19 give 14.2 to 15.9).
_SAMPLER_BYTES = 14.3


def working_memory(model: Architecture, serving: Serving, gpu_memory: int, gpu_name: str) -> Amount | str:
    """What vLLM keeps for a full batch, NCCL and CUDA graphs: a range, since kernels and versions differ.

    The peak of the profiling run is the sampler's (every sequence times the vocabulary, not divided by tensor
    parallelism) or the MLP's (every batched token). Outside torch, cuBLAS and the like take up to half a GiB, NCCL and
    custom all-reduce about two GiB where GPUs reach each other directly. From 0.20.2 on CUDA graphs count too.
    """
    if not (model.hidden_size and model.vocab_size):
        return "hidden_size"
    tokens, count = batched_tokens(serving, gpu_memory, gpu_name), sequences(serving, gpu_memory, gpu_name)
    hidden = 2 * tokens * 2 * model.hidden_size
    sampler = min(count, tokens) * model.vocab_size * _SAMPLER_BYTES + hidden
    step = hidden + tokens * 2 * 4 * model.intermediate_size / serving.tensor_parallel
    peak = max(sampler, step)
    low, high = 0.85 * peak + GIB / 16, 1.15 * peak + GIB / 2
    if model.experts:
        high += tokens * 8 * model.hidden_size * 5
    if model.multimodal:
        high += GIB
    if serving.tensor_parallel * serving.pipeline_parallel * serving.data_parallel > 1:
        low, high = low + GIB / 8, high + 2 * GIB
    graphs = not serving.enforce_eager and at_least(serving.version, "0.20.2") is not False
    if graphs:
        low, high = low + GIB / 16, high + 3 * GIB / 2
    if at_least(serving.version, "0.8.0") is False:  # the first engine profiled another way, and kept more beside torch
        high += 2 * GIB
    names = f"a batch of {tokens} tokens and {count} sequences" + (", CUDA graphs" if graphs else "")
    return Amount(low=int(low), high=int(high), source=f"estimate for {names}")

"""GPU memory arithmetic: what an engine's weights, working memory and KV cache take, and what fits into the rest.

Pure functions over a model's `Architecture` and the settings of an engine. Every amount is for one GPU, in bytes, with
its lowest and highest likely value: weights and cache follow from the model, working memory does not and is a range.
What is missing is named, never replaced by a guess.

Sources: vLLM `v1/worker/gpu_worker.py`, `v1/core/kv_cache_utils.py`, `v1/kv_cache_interface.py` (0.8 to 0.33) and
`worker/worker.py` before; SGLang `model_executor/model_runner*.py`; the ranges of working memory are those that engines
print in public logs (`tests/memory/`).
"""

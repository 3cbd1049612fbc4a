"""The options of `trtllm-serve` (`tensorrt_llm/commands/serve.py`): all that sources between 0.18 and 1.3 have had.

Which release began or ended an option was not read, so there is one sample that is no release: nothing is certain of
any. click takes the names as they are, underscores included.
"""

from __future__ import annotations

from .dialect import Row

SAMPLES = ("0",)

# Option, first and last sample that has it, kind of its value, other names: see `dialect.Row`.
FLAGS: tuple[Row, ...] = (
    ("--backend", "0", "0", "str", ""),
    ("--chat_template", "0", "0", "str", ""),
    ("--config", "0", "0", "str", "--extra_llm_api_options"),
    ("--context_parallel_size", "0", "0", "int", "--cp_size"),
    ("--custom_module_dirs", "0", "0", "append", ""),
    ("--custom_tokenizer", "0", "0", "str", ""),
    ("--disagg_cluster_uri", "0", "0", "str", ""),
    ("--enable_attention_dp", "0", "0", "flag", ""),
    ("--enable_chunked_prefill", "0", "0", "flag", ""),
    ("--extra_visual_gen_options", "0", "0", "str", ""),
    ("--fail_fast_on_attention_window_too_large", "0", "0", "flag", ""),
    ("--free_gpu_memory_fraction", "0", "0", "float", "--kv_cache_free_gpu_memory_fraction"),
    ("--gpus_per_node", "0", "0", "int", ""),
    ("--grpc", "0", "0", "flag", ""),
    ("--hf_revision", "0", "0", "str", "--revision"),
    ("--host", "0", "0", "str", ""),
    ("--kv_cache_dtype", "0", "0", "str", ""),
    ("--log_level", "0", "0", "str", ""),
    ("--max_batch_size", "0", "0", "int", ""),
    ("--max_beam_width", "0", "0", "int", ""),
    ("--max_num_tokens", "0", "0", "int", ""),
    ("--max_seq_len", "0", "0", "int", ""),
    ("--media_io_kwargs", "0", "0", "str", ""),
    ("--metadata_server_config_file", "0", "0", "str", ""),
    ("--moe_cluster_parallel_size", "0", "0", "int", "--cluster_size"),
    ("--moe_expert_parallel_size", "0", "0", "int", "--ep_size"),
    ("--num_postprocess_workers", "0", "0", "int", ""),
    ("--otlp_traces_endpoint", "0", "0", "str", ""),
    ("--pipeline_parallel_size", "0", "0", "int", "--pp_size"),
    ("--port", "0", "0", "int", ""),
    ("--reasoning_parser", "0", "0", "str", ""),
    ("--served_model_name", "0", "0", "str", ""),
    ("--server_role", "0", "0", "str", ""),
    ("--tensor_parallel_size", "0", "0", "int", "--tp_size"),
    ("--tokenizer", "0", "0", "str", ""),
    ("--tool_parser", "0", "0", "str", ""),
    ("--trust_remote_code", "0", "0", "flag", ""),
    ("--video_pruning_rate", "0", "0", "float", ""),
)

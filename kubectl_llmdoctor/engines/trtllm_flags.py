"""The options of `trtllm-serve` (`tensorrt_llm/commands/serve.py`): all that sources between 0.18 and 1.3 have had.

Which release began or ended an option was not read, so there is one sample that is no release: nothing is certain of
any. click takes the names as they are, underscores included.
"""

from __future__ import annotations

from .dialect import rows

SAMPLES = ("0",)

# The options by their first sample, see `dialect.rows`.
FLAGS = rows(
    SAMPLES,
    """
0 append: --custom_module_dirs
0 flag: --enable_attention_dp --enable_chunked_prefill --fail_fast_on_attention_window_too_large --grpc
  --trust_remote_code
0 float: --free_gpu_memory_fraction=--kv_cache_free_gpu_memory_fraction --video_pruning_rate
0 int: --context_parallel_size=--cp_size --gpus_per_node --max_batch_size --max_beam_width --max_num_tokens
  --max_seq_len --moe_cluster_parallel_size=--cluster_size --moe_expert_parallel_size=--ep_size
  --num_postprocess_workers --pipeline_parallel_size=--pp_size --port --tensor_parallel_size=--tp_size
0 str: --backend --chat_template --config=--extra_llm_api_options --custom_tokenizer --disagg_cluster_uri
  --extra_visual_gen_options --hf_revision=--revision --host --kv_cache_dtype --log_level --media_io_kwargs
  --metadata_server_config_file --otlp_traces_endpoint --reasoning_parser --served_model_name --server_role
  --tokenizer --tool_parser
""",
)

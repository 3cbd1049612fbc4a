"""vLLM's options by release: which exist, since when, until when, and what value they take.

Read from the sources of the releases in `SAMPLES` (`vllm/engine/arg_utils.py`, `vllm/entrypoints/openai/cli_args.py`,
later `entrypoints/launchers/cli_args.py` and `entrypoints/common/cli_args.py`, `vllm/entrypoints/cli/serve.py` and the
dataclasses of `vllm/config`). A range is exact only at the samples: between the last sample with an option and the
first without it, nobody knows. The first sample stands for everything before it as well.
"""

from __future__ import annotations

from .dialect import rows

SAMPLES = (
    "0.5.0", "0.5.5", "0.6.0", "0.6.3.post1", "0.6.6.post1", "0.7.3", "0.8.0", "0.8.5.post1", "0.9.0", "0.9.2",
    "0.10.0", "0.10.2", "0.11.0", "0.12.0", "0.13.0", "0.14.1", "0.16.0", "0.17.1", "0.18.1", "0.19.1", "0.20.2",
    "0.21.0", "0.22.1", "0.23.0", "0.26.0", "0.29.0", "0.31.0", "0.33.0",
)  # fmt: skip

# The options by their first sample, see `dialect.rows`.
FLAGS = rows(
    SAMPLES,
    """
0.5.0 append: --middleware
0.5.0 flag: --disable-log-stats
0.5.0 flag 0.10.0:bool: --allow-credentials
0.5.0 flag 0.5.5:optbool 0.8.5.post1:bool: --enable-chunked-prefill
0.5.0 flag 0.6.6.post1:bool: --enable-prefix-caching
0.5.0 flag 0.8.5.post1:bool: --disable-custom-all-reduce --enable-lora --fully-sharded-loras --ray-workers-use-nsight
0.5.0 flag 0.9.0:bool: --disable-sliding-window --enforce-eager --skip-tokenizer-init --trust-remote-code
0.5.0 float: --gpu-memory-utilization=0.31.0:--device-memory-utilization
0.5.0 int: --max-cpu-loras --max-log-len --max-logprobs --max-lora-rank --max-loras --max-num-seqs
  --max-parallel-loading-workers --num-gpu-blocks-override --pipeline-parallel-size=-pp --port --seed --ssl-cert-reqs
  --tensor-parallel-size=-tp
0.5.0 int 0.10.2:human: --max-num-batched-tokens
0.5.0 int 0.8.5.post1:human: --max-model-len
0.5.0 json: --allowed-headers --allowed-methods --allowed-origins
0.5.0 list: --lora-modules --served-model-name
0.5.0 str: --chat-template --code-revision --distributed-executor-backend --download-dir --dtype --host
  --kv-cache-dtype --load-format --lora-dtype --model --quantization=-q --response-role --revision --root-path
  --ssl-ca-certs --ssl-certfile --ssl-keyfile --tokenizer --tokenizer-mode --tokenizer-revision --uvicorn-log-level
0.5.0 str 0.10.2:list: --api-key
0.5.0 str 0.8.5.post1:int: --block-size
0.5.0 str 0.8.5.post1:json: --model-loader-extra-config
0.5.0..0.17.1 int 0.5.5:float: --swap-space
0.5.0..0.16.0 flag 0.10.2:bool: --disable-log-requests
0.5.0..0.11.0 float: --rope-theta
0.5.0..0.11.0 int: --lora-extra-vocab-size --num-lookahead-slots
0.5.0..0.11.0 json: --rope-scaling
0.5.0..0.11.0 str: --guided-decoding-backend
0.5.0..0.10.2 float: --scheduler-delay-factor
0.5.0..0.10.2 int: --max-seq-len-to-capture
0.5.0..0.10.2 str: --preemption-mode
0.5.0..0.9.2 flag: --use-v2-block-manager
0.5.0..0.9.2 int: --tokenizer-pool-size
0.5.0..0.9.2 str: --device --qlora-adapter-name-or-path --tokenizer-pool-type
0.5.0..0.9.2 str 0.8.5.post1:json: --tokenizer-pool-extra-config
0.5.0..0.9.2 str 0.8.5.post1:list: --long-lora-scaling-factors
0.5.0..0.8.0 int: --ngram-prompt-lookup-max --ngram-prompt-lookup-min --num-speculative-tokens
  --speculative-disable-by-batch-size --speculative-max-model-len
0.5.0..0.8.0 str: --speculative-model
0.5.0..0.6.6.post1 flag: --worker-use-ray
0.5.0..0.6.6.post1 str: --quantization-param-path
0.5.0..0.6.3.post1 int: --max-context-len-to-capture
0.5.0..0.6.0 flag: --engine-use-ray
0.5.0..0.5.0 flag: --disable-image-processor
0.5.0..0.5.0 int: --image-feature-size --image-token-id
0.5.0..0.5.0 str: --image-input-shape --image-input-type --image-processor --image-processor-revision
0.5.5 append 0.9.0:list: --ignore-patterns
0.5.5 flag 0.10.0:bool: --return-tokens-as-token-ids
0.5.5 float: --cpu-offload-gb
0.5.5 pairs 0.8.5.post1:json: --limit-mm-per-prompt
0.5.5 str: --otlp-traces-endpoint
0.5.5 str 0.9.0:list: --collect-detailed-traces
0.5.5..0.18.1 flag 0.10.0:bool: --disable-frontend-multiprocessing
0.5.5..0.10.0 flag 0.8.5.post1:bool 0.10.0:flag: --enable-prompt-adapter
0.5.5..0.10.0 int: --num-scheduler-steps
0.5.5..0.9.2 int: --max-prompt-adapter-token --max-prompt-adapters
0.5.5..0.9.2 list: --prompt-adapters
0.5.5..0.8.0 float: --typical-acceptance-sampler-posterior-alpha --typical-acceptance-sampler-posterior-threshold
0.5.5..0.8.0 int: --speculative-draft-tensor-parallel-size=-spec-draft-tp
0.5.5..0.8.0 optbool: --disable-logprobs-during-spec-decoding
0.5.5..0.8.0 str: --spec-decoding-acceptance-method --speculative-model-quantization
0.6.0 flag 0.10.0:bool: --enable-auto-tool-choice
0.6.0 str: --config --tool-call-parser
0.6.0..0.10.2 flag: --disable-async-output-proc
0.6.0..0.10.0 json: --override-neuron-config
0.6.3.post1 flag 0.10.0:bool: --disable-fastapi-docs
0.6.3.post1 json: --mm-processor-kwargs
0.6.3.post1 str: --config-format --scheduling-policy --tool-parser-plugin
0.6.3.post1..0.10.0 optbool 0.8.5.post1:bool: --multi-step-stream-outputs
0.6.3.post1..0.8.0 flag: --speculative-disable-mqa-scorer
0.6.6.post1 flag 0.10.0:bool: --enable-prompt-tokens-details --enable-request-id-headers
0.6.6.post1 json: --compilation-config=-O;0.12.0:-cc --hf-overrides --kv-transfer-config
0.6.6.post1 str: --allowed-local-media-path --chat-template-content-format --generation-config --worker-cls
0.6.6.post1..0.16.0 str: --logits-processor-pattern
0.6.6.post1..0.12.0 flag 0.9.0:bool 0.10.2:flag: --disable-mm-preprocessor-cache
0.6.6.post1..0.12.0 str: --task
0.6.6.post1..0.11.0 flag 0.8.5.post1:bool: --enable-lora-bias
0.6.6.post1..0.11.0 json: --override-pooler-config
0.7.3 flag 0.9.0:bool: --enable-sleep-mode
0.7.3 float 0.8.5.post1:int: --long-prefill-token-threshold
0.7.3 json: --additional-config --override-generation-config
0.7.3 str: --model-impl --reasoning-parser --scheduler-cls
0.7.3..0.26.0 flag 0.8.5.post1:bool: --calculate-kv-scales
0.7.3..0.26.0 int: --max-long-partial-prefills --max-num-partial-prefills
0.7.3..0.9.2 flag 0.9.0:bool: --enable-reasoning
0.8.0 bool: --use-tqdm-on-load
0.8.0 flag 0.10.0:bool: --enable-server-load-tracking --enable-ssl-refresh
0.8.0 flag 0.8.5.post1:bool: --enable-expert-parallel=0.14.1:-ep
0.8.0 str: --hf-config-path --show-hidden-metrics-for-version --worker-extension-cls
0.8.5.post1 bool: --disable-chunked-mm-input
0.8.5.post1 flag 0.10.0:bool: --disable-uvicorn-access-log
0.8.5.post1 flag 0.9.0:bool: --disable-cascade-attn
0.8.5.post1 int: --data-parallel-size=-dp
0.8.5.post1 json: --speculative-config=0.19.1:-sc
0.8.5.post1 optbool: --hf-token
0.8.5.post1 str: --prefix-caching-hash-algo
0.9.0 bool: --enable-prompt-embeds
0.9.0 flag: --headless
0.9.0 int: --data-parallel-rpc-port=-dpp --data-parallel-size-local=-dpl --data-parallel-start-rank=-dpr
0.9.0 json: --kv-events-config
0.9.0 str: --data-parallel-address=-dpa --pt-load-map-location
0.9.0..0.12.0 list: --cuda-graph-sizes
0.9.0..0.11.0 bool: --guided-decoding-disable-additional-properties --guided-decoding-disable-any-whitespace
  --guided-decoding-disable-fallback
0.9.2 bool: --disable-hybrid-kv-cache-manager --enable-eplb
0.9.2 flag 0.10.0:bool: --enable-force-include-usage
0.9.2 int: --api-server-count=-asc --data-parallel-rank=-dpn
0.9.2 json: --media-io-kwargs
0.9.2 str: --data-parallel-backend=-dpb --log-config-file
0.9.2..0.26.0 str: --override-attention-dtype
0.9.2..0.12.0 bool 0.10.2:flag: --enable-multimodal-encoder-data-parallel
0.9.2..0.11.0 bool: --eplb-log-balancedness
0.9.2..0.11.0 int: --eplb-step-interval --eplb-window-size --num-redundant-experts
0.9.2..0.9.2 flag: --expand-tools-even-if-tool-choice-none
0.10.0 bool: --async-scheduling --data-parallel-hybrid-lb=0.12.0:-dph --enable-tokenizer-info-endpoint
  --interleave-mm-strings
0.10.0 json: --default-mm-loras
0.10.0 str: --logprobs-mode
0.10.2 bool: --enable-log-outputs --enable-log-requests --exclude-tools-when-tool-choice-none
  --kv-sharing-fast-prefill --log-error-stack --skip-mm-profiling
0.10.2 float: --mm-processor-cache-gb
0.10.2 human: --kv-cache-memory-bytes
0.10.2 int: --decode-context-parallel-size=-dcp --h11-max-header-count --h11-max-incomplete-event-size
0.10.2 json: --eplb-config
0.10.2 list: --logits-processors
0.10.2 str: --convert --io-processor-plugin --mamba-cache-dtype --mamba-ssm-cache-dtype --mm-encoder-tp-mode --runner
  --safetensors-load-strategy --tool-server --uds
0.11.0 bool: --enable-dbo --trust-request-chat-template
0.11.0 float: --video-pruning-rate
0.11.0 int: --dbo-decode-token-threshold --dbo-prefill-token-threshold --mm-shm-cache-max-object-size-mb
0.11.0 json: --pooler-config --structured-outputs-config
0.11.0 list: --allowed-media-domains
0.11.0 str: --expert-placement-strategy --mm-processor-cache-type
0.12.0 bool: --data-parallel-external-lb=-dpe --disable-nccl-for-dp-synchronization --enable-mm-embeds
  --kv-cache-metrics --tokens-only
0.12.0 flag: --aggregate-engine-logging
0.12.0 float: --kv-cache-metrics-sample --kv-offloading-size
0.12.0 int: --cp-kv-cache-interleave-size --dcp-kv-cache-interleave-size --mamba-block-size --master-port
  --max-cudagraph-capture-size --nnodes=-n --node-rank=-r --prefill-context-parallel-size=-pcp --stream-interval
0.12.0 json: --ec-transfer-config
0.12.0 list: --cudagraph-capture-sizes
0.12.0 str: --all2all-backend --kv-offloading-backend --master-addr --mm-encoder-attn-backend --optimization-level
  --reasoning-parser-plugin
0.13.0 bool: --cudagraph-metrics --enable-layerwise-nvtx-tracing
0.13.0 json: --attention-config=-ac --profiler-config
0.13.0 str: --attention-backend
0.14.1 bool: --allow-deprecated-quantization --enable-log-deltas --enable-logging-iteration-details
  --enable-mfu-metrics --enable-offline-docs --enable-return-routed-experts --enable-tower-connector-lora
0.14.1 int: --ubatch-size
0.14.1 json: --default-chat-template-kwargs
0.16.0 bool: --enable-flashinfer-autotune --mm-encoder-only --specialize-active-lora
0.16.0 json: --kernel-config --weight-transfer-config
0.16.0 str: --disable-access-log-for-endpoints --mamba-cache-mode --ssl-ciphers
0.17.1 bool: --enable-elastic-ep --fail-on-environ-validation --language-model-only
0.17.1 int: --offload-group-size --offload-num-in-group --offload-prefetch-step
0.17.1 list: --cpu-offload-params --offload-params
0.17.1 str: --moe-backend --offload-backend --performance-mode
0.17.1..0.17.1 bool: --use-gpu-for-pooling-score
0.18.1 bool: --enable-ep-weight-filter
0.18.1 flag: --grpc
0.18.1 int: --distributed-timeout-seconds --shutdown-timeout
0.18.1 str: --dcp-comm-backend --gdn-prefill-backend
0.19.1 bool: --scheduler-reserve-full-isl
0.19.1 int: --renderer-num-workers
0.19.1 json: --reasoning-config
0.19.1 list: --kv-cache-dtype-skip-layers --lora-target-modules
0.19.1 str: --mm-tensor-ipc
0.20.2 bool: --enable-flash-late-interaction --enable-mamba-cache-stochastic-rounding --numa-bind
0.20.2 int: --mamba-cache-philox-rounds
0.20.2 json: --ir-op-priority
0.20.2 list: --numa-bind-cpus --numa-bind-nodes
0.20.2 str: --mamba-backend
0.21.0 float: --mm-encoder-fp8-scale-save-margin
0.21.0 int: --safetensors-prefetch-num-threads
0.21.0 int 0.26.0:human: --safetensors-prefetch-block-size
0.21.0 str: --fingerprint-mode --fingerprint-value --mm-encoder-attn-dtype --mm-encoder-fp8-scale-path
  --mm-encoder-fp8-scale-save-path
0.22.1 bool: --enable-cumem-allocator --enable-mixed-moe-lora-format --use-fp64-gumbel
0.22.1 flag: --data-parallel-multi-port-external-lb=-dpm
0.22.1 float: --dp-supervisor-probe-interval-s --dp-supervisor-probe-timeout-s
0.22.1 int: --cpu-distributed-timeout-seconds --data-parallel-supervisor-port --dp-supervisor-probe-failure-threshold
  --spec-tokens
0.22.1 json: --quantization-config
0.22.1 str: --linear-backend --spec-method --spec-model
0.26.0 bool: --enable-moe-shared-loras --enable-per-request-metrics --jit-monitor-verbose
0.26.0 float: --mm-ipc-gpu-memory-gb --watermark
0.26.0 human: --max-num-scheduled-tokens
0.26.0 int: --prefill-schedule-interval --prefix-match-unit
0.26.0 json: --diffusion-config=-dc --model-class-overrides
0.26.0 list: --device-ids
0.26.0 str: --jit-monitor-mode
0.26.0..0.29.0 bool: --enable-bf16x3-router-gemm
0.29.0 bool: --cohere-is-reasoning-model --dcp-q-replicate --enable-batch-sharded-sampling --enable-fault-tolerance
  --enable-trace-replay --mm-device-do-normalize --return-sampling-mask --use-replayssm
0.29.0 human: --max-num-queued-tokens
0.29.0 int: --max-num-queued-reqs --prefix-cache-retention-interval --replayssm-buffer-len --sse-keep-alive-interval
0.29.0 json: --ec-manager-config --fault-tolerance-config
0.29.0 str: --cohere-format --kda-prefill-backend --mamba-ssu-algorithm --mm-hasher-algorithm --mm-processor-device
  --per-request-spec-decode-metrics --video-pruning-method
0.31.0 bool: --enable-mamba-shared-prefix-checkpoint --enable-nccl-comm-suspend --enable-scale-out
  --long-prefill-token-threshold-adaptive --swa-bounded-replay --trust-request-mm-kwargs
0.31.0 int: --dp-sync-interval --elastic-ep-max-dp-size --max-lora-cls-labels --max-num-active-seqs
0.31.0 json: --aux-output-config --engram-config --watermark-config
0.31.0 list: --sleep-preserve-parameter-names
0.31.0 str: --anthropic-disabled-thinking-effort --kda-decode-backend --log-level --logging-config
  --sparse-indexer-topk-backend --tool-strict-level
0.33.0 bool: --enable-hc-sp --enable-shm-tensor-arena --monokernel --sleep-mode-offload-cudagraph
0.33.0 int: --grpc-port
0.33.0 json: --reasoning-effort-map --watchdog-config
0.33.0 list: --custom-histogram-buckets
0.33.0 str: --sleep-mode-backend
""",
)

# Options whose values the parser itself checks: allowed values from a sample on; empty: no longer checked there.
CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "--dtype": (("0.5.0", "auto,half,float16,bfloat16,float,float32"),),
    "--kv-cache-dtype": (
        ("0.5.0", "auto,fp8,fp8_e5m2,fp8_e4m3"),
        ("0.8.5.post1", "auto,fp8,fp8_e4m3,fp8_e5m2"),
        ("0.10.0", "auto,fp8,fp8_e4m3,fp8_e5m2,fp8_inc"),
        ("0.11.0", "auto,bfloat16,fp8,fp8_e4m3,fp8_e5m2,fp8_inc"),
        ("0.12.0", "auto,bfloat16,fp8,fp8_e4m3,fp8_e5m2,fp8_inc,fp8_ds_mla"),
        ("0.18.1", "auto,float16,bfloat16,fp8,fp8_e4m3,fp8_e5m2,fp8_inc,fp8_ds_mla"),
        (
            "0.20.2",
            "auto,float16,bfloat16,fp8,fp8_e4m3,fp8_e5m2,fp8_inc,fp8_ds_mla,turboquant_k8v4,"
            "turboquant_4bit_nc,turboquant_k3v4_nc,turboquant_3bit_nc,int8_per_token_head,"
            "fp8_per_token_head,nvfp4",
        ),
        (
            "0.26.0",
            "auto,float16,bfloat16,fp8,fp8_e4m3,fp8_e5m2,fp8_inc,fp8_ds_mla,turboquant_k8v4,"
            "turboquant_4bit_nc,turboquant_k3v4_nc,turboquant_3bit_nc,int4_per_token_head,"
            "int8_per_token_head,fp8_per_token_head,nvfp4",
        ),
        (
            "0.29.0",
            "auto,float16,bfloat16,fp8,fp8_e4m3,fp8_e5m2,fp8_inc,fp8_ds_mla,turboquant_k8v4,"
            "turboquant_4bit_nc,turboquant_k3v4_nc,turboquant_3bit_nc,int4_per_token_head,"
            "int8_per_token_head,fp8_per_token_head,nvfp4,nvfp4_4over6",
        ),
        (
            "0.31.0",
            "auto,float16,bfloat16,fp8,fp8_e4m3,fp8_e5m2,fp8_inc,fp8_ds_mla,nvfp4_ds_mla,"
            "turboquant_k8v4,turboquant_4bit_nc,turboquant_k3v4_nc,turboquant_3bit_nc,"
            "int4_per_token_head,int8_per_token_head,fp8_per_token_head,nvfp4,nvfp4_4over6",
        ),
        ("0.33.0", ""),
    ),
    "--distributed-executor-backend": (("0.5.0", "ray,mp"), ("0.7.3", "ray,mp,uni,external_launcher"), ("0.10.2", "")),
    "--device": (
        ("0.5.0", "auto,cuda,neuron,cpu"),
        ("0.5.5", "auto,cuda,neuron,cpu,openvino,tpu,xpu"),
        ("0.6.6.post1", "auto,cuda,neuron,cpu,openvino,tpu,xpu,hpu"),
        ("0.8.5.post1", "auto,cuda,neuron,cpu,tpu,xpu,hpu"),
    ),
    "--uvicorn-log-level": (
        ("0.5.0", "debug,info,warning,error,critical,trace"),
        ("0.14.1", "critical,error,warning,info,debug,trace"),
    ),
}

#: What `--tool-call-parser` took in any of these releases without a plugin (`tool_parsers/__init__.py`).
TOOL_PARSERS = (
    "apertus", "cohere_command3", "cohere_command4", "deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4", "ernie45",
    "functiongemma", "gemma4", "gigachat3", "glm45", "glm47", "granite", "granite-20b-fc", "granite4", "hermes", "hunyuan_a13b",
    "hy_v3", "inkling", "internlm", "jamba", "kimi_k2", "kimi_k3", "lfm2", "llama3_json", "llama4_json", "llama4_pythonic",
    "longcat", "mimo", "minicpm5", "minimax", "minimax_m2", "minimax_m3", "mistral", "olmo3", "openai", "phi4_mini_json",
    "poolside_v1", "pythonic", "qwen3_coder", "qwen3_xml", "seed_oss", "solar_open2", "step3", "step3p5", "step_deepresearch",
    "xlam",
)  # fmt: skip

#: Those that a release may lack which later ones have: all that are there now.
LATER_TOOL_PARSERS = frozenset(TOOL_PARSERS) - {"minimax", "step_deepresearch"}

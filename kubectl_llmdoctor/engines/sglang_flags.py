"""SGLang's options by release, from the parser of each release in `SAMPLES` (`srt/server_args.py`, later `srt/arg_groups/fields`)."""

from __future__ import annotations

from .dialect import rows

SAMPLES = (
    "0.3.6.post3", "0.4.1.post7", "0.4.3.post4", "0.4.6.post5", "0.4.8.post1", "0.4.10.post2", "0.5.2", "0.5.3.post3",
    "0.5.5.post3", "0.5.6.post2", "0.5.7", "0.5.8.post1", "0.5.9", "0.5.10.post1", "0.5.12.post1", "0.5.14", "0.5.16",
    "0.5.19", "0.5.21", "0.5.23",
)  # fmt: skip

# The options by their first sample, see `dialect.rows`.
FLAGS = rows(
    SAMPLES,
    """
0.3.6.post3 flag: --delete-ckpt-after-loading --disable-cuda-graph --disable-cuda-graph-padding
  --disable-custom-all-reduce --disable-overlap-schedule --disable-radix-cache --enable-cache-report
  --enable-dp-attention --enable-metrics --enable-mixed-chunk --enable-p2p-check --enable-torch-compile --is-embedding
  --log-requests --show-time-cost --skip-tokenizer-init --triton-attention-reduce-in-fp32 --trust-remote-code
0.3.6.post3 float: --mem-fraction-static --schedule-conservativeness --watchdog-timeout
0.3.6.post3 int: --base-gpu-id --chunked-prefill-size --cpu-offload-gb --decode-log-interval
  --dp-size=--data-parallel-size --max-loras-per-batch --max-running-requests --nnodes --node-rank
  --num-continuous-decode-steps --port --random-seed --stream-interval --torch-compile-max-bs
  --tp-size=--tensor-parallel-size
0.3.6.post3 int 0.5.10.post1:human: --context-length --max-prefill-tokens --max-total-tokens
0.3.6.post3 list: --lora-paths
0.3.6.post3 str: --api-key --attention-backend --chat-template --constrained-json-whitespace-pattern --device
  --dist-init-addr=--nccl-init-addr --download-dir --dtype --grammar-backend --host --json-model-override-args
  --kv-cache-dtype --load-balance-method --load-format --log-level --log-level-http --model-path=0.4.8.post1:--model
  --quantization --sampling-backend --schedule-policy --served-model-name --tokenizer-mode --tokenizer-path
0.3.6.post3..0.5.19 int: --cuda-graph-max-bs
0.3.6.post3..0.5.16 str: --torchao-config
0.3.6.post3..0.5.12.post1 flag: --enable-nan-detection
0.3.6.post3..0.5.10.post1 flag: --enable-double-sparsity
0.3.6.post3..0.5.10.post1 int: --ds-heavy-channel-num --ds-heavy-token-num --ds-sparse-decode-threshold
0.3.6.post3..0.5.10.post1 str: --ds-channel-config-path --ds-heavy-channel-type
0.3.6.post3..0.4.3.post4 flag: --disable-mla
0.3.6.post3..0.4.1.post7 flag: --disable-jump-forward
0.3.6.post3..0.4.1.post7 str: --file-storage-pth
0.3.6.post3..0.3.6.post3 dead: --disable-flashinfer --disable-flashinfer-sampling --enable-overlap-schedule
0.3.6.post3..0.3.6.post3 flag: --disable-disk-cache --disable-nan-detection
0.4.1.post7 flag: --allow-auto-truncate --disable-outlines-disk-cache --enable-custom-logit-processor
  --enable-memory-saver
0.4.1.post7 int: --ep-size=--expert-parallel-size;0.4.10.post2:--expert-parallel-size,--ep --speculative-eagle-topk
  --speculative-num-draft-tokens --speculative-num-steps --triton-attention-num-kv-splits
0.4.1.post7 str: --quantization-param-path --revision --speculative-algorithm
  --speculative-draft-model-path=0.5.2:--speculative-draft-model
0.4.1.post7..0.5.19 list: --cuda-graph-bs
0.4.1.post7..0.5.3.post3 flag 0.5.3.post3:dead: --enable-ep-moe
0.4.1.post7..0.4.1.post7 str: --prefill-only-one-req
0.4.3.post4 flag: --enable-hierarchical-cache=0.5.23:--enable-hicache --enable-nccl-nvls
  --flashinfer-mla-disable-ragged
0.4.3.post4 float: --speculative-accept-threshold-acc --speculative-accept-threshold-single
0.4.3.post4 int: --dist-timeout --gpu-id-step --log-requests-level
0.4.3.post4 str: --debug-tensor-dump-input-file --debug-tensor-dump-output-folder --file-storage-path --lora-backend
  --reasoning-parser --speculative-token-map --tool-call-parser --warmups
0.4.3.post4..0.5.19 flag: --stream-output
0.4.3.post4..0.5.12.post1 str: --debug-tensor-dump-inject
0.4.3.post4..0.4.6.post5 flag 0.4.6.post5:dead: --enable-flashinfer-mla
0.4.6.post5 flag: --disable-chunked-prefix-cache --disable-fast-image-processor --enable-dp-lm-head --enable-eplb
  --enable-multimodal --enable-request-time-stats-logging --enable-tokenizer-batch-encode
0.4.6.post5 float: --hicache-ratio
0.4.6.post5 int: --disaggregation-bootstrap-port --ep-num-redundant-experts --eplb-rebalance-num-iterations
  --expert-distribution-recorder-buffer-size --hicache-size --moe-dense-tp-size --page-size
  --pp-size=--pipeline-parallel-size
0.4.6.post5 list: --bucket-e2e-request-latency --bucket-inter-token-latency --bucket-time-to-first-token
0.4.6.post5 str: --completion-template --deepep-config --deepep-mode --disaggregation-ib-device --disaggregation-mode
  --disaggregation-transfer-backend --ep-dispatch-algorithm --expert-distribution-recorder-mode --hicache-write-policy
  --init-expert-location --kv-events-config --mm-attention-backend
0.4.6.post5 str 0.5.7:json: --preferred-sampling-params
0.4.6.post5..0.5.19 flag: --collect-tokens-histogram
0.4.6.post5..0.5.19 flag 0.5.19:dead: --enable-expert-distribution-metrics
0.4.6.post5..0.5.3.post3 flag 0.5.3.post3:dead: --enable-deepep-moe
0.4.6.post5..0.5.2 int: --max-micro-batch-size
0.4.6.post5..0.4.10.post2 str: --pdlb-url
0.4.6.post5..0.4.6.post5 dead: --enable-flashmla
0.4.6.post5..0.4.6.post5 int: --n-share-experts-fusion
0.4.8.post1 flag: --disable-shared-experts-fusion --enable-mscclpp --enable-profile-cuda-graph
  --enable-return-hidden-states --enable-two-batch-overlap --sleep-on-idle --weight-loader-disable-mmap
0.4.8.post1 int: --eplb-rebalance-layers-per-chunk --num-reserved-decode-tokens
0.4.8.post1 list: --custom-weight-loader
0.4.8.post1 str: --eplb-algorithm --model-loader-extra-config
0.4.8.post1..0.5.9 int: --disaggregation-decode-dp --disaggregation-decode-tp --disaggregation-prefill-pp
0.4.8.post1..0.5.2 flag: --debug-tensor-dump-prefill-only
0.4.8.post1..0.4.8.post1 flag: --disable-overlap-cg-plan --enable-flashinfer-moe
0.4.8.post1..0.4.8.post1 str: --impl
0.4.10.post2 flag: --disable-hybrid-swa-memory --enable-cudagraph-gc --enable-flashinfer-allreduce-fusion
  --enable-lora --enable-metrics-for-all-schedulers --enable-pdmux --enable-symm-mem --skip-server-warmup
0.4.10.post2 float: --swa-full-tokens-ratio
0.4.10.post2 int: --max-loaded-loras --max-lora-rank --max-queued-requests --nccl-port --sm-group-num
0.4.10.post2 list: --lora-target-modules
0.4.10.post2 str: --crash-dump-folder --decode-attention-backend --hicache-io-backend --hicache-mem-layout
  --hicache-storage-backend --model-impl --moe-a2a-backend --prefill-attention-backend
0.4.10.post2..0.5.12.post1 opt 0.5.8.post1:flag: --hybrid-kvcache-ratio
0.4.10.post2..0.5.3.post3 flag 0.5.3.post3:dead: --enable-flashinfer-cutlass-moe --enable-flashinfer-trtllm-moe
  --enable-triton-kernel-moe
0.5.2 flag: --disable-flashinfer-cutlass-moe-fp4-allgather --enable-lmcache
0.5.2 float: --eplb-min-rebalancing-utilization-threshold --gc-warning-threshold-secs
  --tbo-token-distribution-threshold
0.5.2 int: --max-mamba-cache-size --offload-group-size --offload-num-in-group --offload-prefetch-step
  --scheduler-recv-interval --tokenizer-worker-num
0.5.2 list: --generation-tokens-buckets --numa-node --prompt-tokens-buckets
0.5.2 str: --flashinfer-mxfp4-moe-precision --hicache-storage-backend-extra-config --hicache-storage-prefetch-policy
  --mamba-ssm-dtype --moe-runner-backend --offload-mode --speculative-attention-mode
  --speculative-draft-model-revision --tool-server --weight-version
0.5.2..0.5.19 flag: --prefill-round-robin-balance
0.5.2..0.5.3.post3 flag 0.5.3.post3:dead: --enable-flashinfer-mxfp4-moe
0.5.3.post3 flag: --constrained-json-disable-any-whitespace --disaggregation-decode-enable-offload-kvcache
  --enable-deterministic-inference --enable-dynamic-batch-tokenizer --enable-fp32-lm-head --enable-priority-scheduling
  --enable-single-batch-overlap --enable-torch-symm-mem --enable-trace --enable-weights-cpu-backup --grpc-mode
  --schedule-low-priority-values-first
0.5.3.post3 float: --dynamic-batch-tokenizer-batch-timeout --mamba-full-memory-ratio
0.5.3.post3 int: --disaggregation-decode-polling-interval --dynamic-batch-tokenizer-batch-size --max-lora-chunk-size
  --pp-max-micro-batch-size --priority-scheduling-preemption-threshold
  --remote-instance-weight-loader-seed-instance-service-port --speculative-ngram-capacity
  --speculative-ngram-max-bfs-breadth --speculative-ngram-min-bfs-breadth --triton-attention-split-tile-size
0.5.3.post3 list: --tokenizer-metrics-allowed-custom-labels
0.5.3.post3 str: --config --elastic-ep-backend --lora-eviction-policy --modelopt-checkpoint-restore-path
  --modelopt-checkpoint-save-path --modelopt-quant --mooncake-ib-device --pdmux-config-path --radix-eviction-policy
  --remote-instance-weight-loader-seed-instance-ip --remote-instance-weight-loader-send-weights-group-ports
  --sampling-defaults --speculative-draft-load-format --speculative-ngram-match-type
  --tokenizer-metrics-custom-labels-header
0.5.3.post3..0.5.19 flag: --keep-mm-feature-on-device
0.5.3.post3..0.5.19 int: --piecewise-cuda-graph-max-tokens
0.5.3.post3..0.5.19 str 0.5.8.post1:list: --piecewise-cuda-graph-tokens
0.5.3.post3..0.5.12.post1 flag: --enable-piecewise-cuda-graph
0.5.3.post3..0.5.10.post1 int: --multi-item-scoring-delimiter
0.5.3.post3..0.5.9 int: --speculative-ngram-branch-length --speculative-ngram-max-match-window-size
  --speculative-ngram-min-match-window-size
0.5.3.post3..0.5.6.post2 float: --load-watch-interval
0.5.3.post3..0.5.3.post3 dead: --enable-flashinfer-cutedsl-moe
0.5.3.post3..0.5.3.post3 flag: --enable-beta-spec
0.5.3.post3..0.5.3.post3 str: --crash-on-nan --nsa-decode --nsa-prefill --oltp-traces-endpoint
0.5.5.post3 flag: --abort-on-priority-when-disabled --checkpoint-engine-wait-weights-before-ready
  --disable-tokenizer-batch-decode --enable-attn-tp-input-scattered --enable-broadcast-mm-inputs-process
  --enable-draft-weights-cpu-backup --enable-layerwise-nvtx-marker --export-metrics-to-file --quantize-and-serve
0.5.5.post3 int: --kt-cpuinfer --kt-max-deferred-experts-per-token --kt-num-gpu-experts --kt-threadpool-count
0.5.5.post3 list: --debug-tensor-dump-layers
0.5.5.post3 str: --decrypted-config-file --decrypted-draft-config-file --export-metrics-to-file-dir --kt-method
  --kt-weight-path --modelopt-export-path --otlp-traces-endpoint --rl-on-policy-target
  --speculative-moe-runner-backend
0.5.5.post3..0.5.19 str: --nsa-decode-backend --nsa-prefill-backend --piecewise-cuda-graph-compiler
0.5.5.post3..0.5.9 int: --mm-max-concurrent-calls --mm-per-request-timeout
0.5.6.post2 flag: --enable-torch-compile-debug-mode
0.5.6.post2 flag 0.5.23:bool: --enable-fused-qk-norm-rope --mm-enable-dp-encoder
0.5.6.post2 json: --mm-process-config
0.5.6.post2 str: --dllm-algorithm --dllm-algorithm-config --fastapi-root-path --forward-hooks --fp8-gemm-backend
  --rl-quant-profile --speculative-moe-a2a-backend
0.5.6.post2..0.5.19 flag: --enable-nsa-prefill-context-parallel
0.5.6.post2..0.5.6.post2 flag: --enable-flashinfer-autotune
0.5.7 flag: --disable-flashinfer-autotune --enable-dynamic-chunking --enable-multi-layer-eagle
  --enable-precise-embedding-interpolation --enable-prefix-mm-cache --enable-return-routed-experts --encoder-only
  --language-only --remote-instance-weight-loader-start-seed-via-transfer-engine
0.5.7 float: --soft-watchdog-timeout
0.5.7 int: --mamba-track-interval --pp-async-batch-depth --prefill-max-requests
0.5.7 json: --limit-mm-data-per-request
0.5.7 list: --encoder-urls
0.5.7 str: --encoder-transfer-backend --log-requests-format --remote-instance-weight-loader-backend
  --speculative-draft-attention-backend --speculative-draft-model-quantization
0.5.7..0.5.19 str: --mamba-scheduler-strategy
0.5.7..0.5.12.post1 str: --custom-sigquit-handler
0.5.7..0.5.8.post1 flag: --disaggregation-decode-enable-fake-auto
0.5.8.post1 flag: --enable-lora-overlap-loading --enable-prefill-delayer
0.5.8.post1 float: --prefill-delayer-token-usage-low-watermark
0.5.8.post1 int: --prefill-delayer-max-delay-passes
0.5.8.post1 list: --log-requests-target --prefill-delayer-forward-passes-buckets
  --prefill-delayer-wait-seconds-buckets --uvicorn-access-log-exclude-prefixes
0.5.8.post1 opt: --model-checksum
0.5.8.post1 str: --admin-api-key --fp4-gemm-backend --hf-chat-template-name
0.5.8.post1..0.5.19 str: --nsa-prefill-cp-mode
0.5.8.post1..0.5.9 flag: --disable-hicache-numa-detect
0.5.8.post1..0.5.9 str: --hierarchical-sparse-attention-extra-config
0.5.9 int: --attn-cp-size=--attention-context-parallel-size --moe-dp-size=--moe-data-parallel-size
0.5.9 json: --extra-metric-labels
0.5.9 str: --mamba-backend
0.5.10.post1 bool: --experts-shared-outer-loras
0.5.10.post1 flag: --disable-priority-preemption --enable-adaptive-dispatch-to-encoder --enable-aiter-allreduce-fusion
  --enable-elastic-expert-backup --enable-fused-moe-sum-all-reduce --enable-hisparse --enable-mfu-metrics
  --enable-mm-global-cache --enable-ssl-refresh --enable-streaming-session
  --enforce-disable-flashinfer-allreduce-fusion --incremental-streaming-output --pre-warm-nccl
  --stream-response-default-include-usage --use-ray
0.5.10.post1 int: --default-priority-value --engine-info-bootstrap-port --speculative-ngram-max-trie-depth
0.5.10.post1 list: --gc-threshold
0.5.10.post1 str: --hisparse-config=0.5.12.post1:--hierarchical-sparse-attention-extra-config --linear-attn-backend
  --linear-attn-decode-backend --linear-attn-prefill-backend --modelexpress-config --ssl-ca-certs --ssl-certfile
  --ssl-keyfile --ssl-keyfile-password
0.5.10.post1..0.5.19 flag: --disable-piecewise-cuda-graph --enable-prefill-context-parallel
  --enforce-piecewise-cuda-graph
0.5.10.post1..0.5.19 str: --prefill-cp-mode
0.5.12.post1 bool: --lora-strict-loading
0.5.12.post1 flag: --debug-cuda-graph --disaggregation-decode-enable-radix-cache
  --enable-dp-attention-local-control-broadcast --enable-forward-pass-metrics --enable-http2 --enable-mis
  --enable-quant-communications --enable-return-indexer-topk --enable-strict-thinking --enforce-shared-experts-fusion
  --lora-use-virtual-experts --prefill-only-disable-kv-cache --speculative-adaptive --strip-thinking-cache
  --weight-loader-drop-cache-after-load --weight-loader-prefetch-checkpoints
0.5.12.post1 float: --lora-drain-wait-threshold --prefill-delayer-max-delay-ms --prefill-delayer-queue-min-ratio
0.5.12.post1 int: --batch-notify-size --detokenizer-worker-num --speculative-dflash-block-size
  --speculative-draft-window-size=--speculative-dflash-draft-window-size;0.5.14:
  --speculative-ngram-external-corpus-max-tokens --speculative-ngram-external-sam-budget
  --weight-loader-prefetch-num-threads
0.5.12.post1 str: --forward-pass-metrics-ipc-name --forward-pass-metrics-worker-id --model-config-parser
  --msprobe-dump-config --speculative-adaptive-config --speculative-ngram-external-corpus-path --tokenizer-backend
0.5.12.post1..0.5.21 flag: --speculative-skip-dp-mlp-sync
0.5.12.post1..0.5.19 flag: --elastic-ep-rejoin --enable-breakable-cuda-graph
0.5.12.post1..0.5.14 flag: --enable-deepep-waterfill
0.5.12.post1..0.5.14 int: --grpc-http-sidecar-port
0.5.12.post1..0.5.12.post1 bool: --record-nolora-graph
0.5.14 flag: --disable-attn-tp-gather --disable-decode-cuda-graph --disable-prefill-cuda-graph
  --enable-deepseek-v4-fp4-indexer --enable-int8-mamba-checkpoint --enable-prefill-cp
  --speculative-use-rejection-sampling
0.5.14 int: --asr-max-buffer-seconds --asr-max-concurrent-sessions --cuda-graph-max-bs-decode
  --cuda-graph-max-bs-prefill --disaggregation-decode-extra-slots --encoder-bootstrap-port --int8-mamba-ckpt-size
  --kv-canary-sweep-interval --load-snapshot-publish-interval
0.5.14 list: --cuda-graph-bs-decode --cuda-graph-bs-prefill --encoder-register-urls
0.5.14 str: --cp-strategy --cuda-graph-backend-decode --cuda-graph-backend-prefill --cuda-graph-config
  --deepep-dispatcher-output-dtype --dsa-decode-backend --dsa-prefill-backend --dsa-topk-backend
  --flashinfer-allreduce-fusion-backend --kv-canary --kv-canary-real-data --lmcache-config-file
  --mamba-radix-cache-strategy --radix-cache-backend --trace-modules
0.5.14..0.5.21 str: --cuda-graph-tc-compiler
0.5.14..0.5.19 flag: --enable-dsa-prefill-context-parallel
0.5.14..0.5.19 int: --speculative-dflash-draft-window-size
0.5.14..0.5.19 str: --dsa-prefill-cp-mode
0.5.14..0.5.14 int: --optimistic-prefill-retries
0.5.16 bool: --dllm-fdfo
0.5.16 flag: --enable-dsa-cache-layer-split --enable-flexkv --enable-linear-replayssm
  --enable-mamba-cache-stochastic-rounding --enable-page-major-kv-layout --enable-scattered-sconv
  --enable-session-radix-cache --enable-unified-memory --enable-waterfill --smg-grpc-mode
  --speculative-dspark-align-verify-tokens-to-graph-tier
0.5.16 flag 0.5.23:bool: --enable-tf32-matmul
0.5.16 float: --elastic-ep-scale-timeout
0.5.16 int: --dcp-size=--decode-context-parallel-size --decoupled-spec-rank --elastic-ep-initial-size
  --elastic-ep-join-rank-offset --fuseep-mode --grpc-port --linear-replayssm-cache-len --mamba-cache-philox-rounds
  --max-ep-size --min-free-slots-delay --optimistic-prefill-attempts --smg-http-sidecar-port=--grpc-http-sidecar-port
  --speculative-dspark-block-size
0.5.16 json: --default-chat-template-kwargs
0.5.16 str: --bf16-gemm-backend --decoupled-spec-bind-endpoint --decoupled-spec-connect-endpoints
  --decoupled-spec-role --dsa-paged-mqa-logits-backend --elastic-ep-join-mode --flexkv-config-file
  --mm-feature-transport --retraction-policy --sidecar --sidecar-args --spec-trace-dir
  --speculative-dspark-confidence-sts-path --speculative-dspark-sps-table-path
0.5.16..0.5.19 flag: --enable-gdn-replayssm-spec
0.5.19 bool: --dcp-replicate-q-proj --enable-tp-lm-head-all-to-all
0.5.19 flag: --enable-cp-decode-attn-tp --enable-dense-mlp-attn-tp --enable-layernorm-sp --enable-lean-attention
  --enable-linear-replayssm-spec --enable-shared-experts-attn-tp --enable-w4a4-mxfp4-megamoe --language-model-only
  --mlx-enable-sampling --trust-mm-content-hashes
0.5.19 int: --c128-page-size --dwdp-size --gated-launch-port --hicache-storage-prefetch-retry-max-attempts
  --hicache-storage-prefetch-retry-poll-interval --http2-initial-connection-window-size --http2-max-concurrent-streams
  --mamba-max-states-per-path --media-url-max-file-size-mb --mm-io-worker-num --mm-preprocess-cache-size-mb
  --mm-processor-worker-num --prefill-decode-interval --weight-cache-timeout
0.5.19 list: --allowed-media-domains --flashinfer-autotune-skip-ops
0.5.19 str: --dcp-comm-backend --deepep-v2-mode --disaggregation-decode-retraction-backup --dsv4-prefill-backend
  --expert-balancedness-report-mode --hicache-host-memory-mode --image-processor-backend --linear-attn-verify-backend
  --load-publish-endpoint --mm-global-cache-backend --return-hidden-states-mode --speculative-draft-kv-cache-dtype
  --speculative-dsa-topk-backend --startup-weight-load-mode --weight-cache-mode --weight-cache-socket
0.5.21 bool: --ple-offload-embedding
0.5.21 flag: --disable-aiter-allreduce-fusion-in-decode --disable-aiter-allreduce-fusion-in-prefill
  --disaggregation-enable-kv-checksum --enable-encoder-swa-bounded-replay --enable-linker-mla-dedup
  --enable-pd-role-switch --enable-response-store --enable-unified-cache-external-linker --return-input-ids
  --return-output-ids --trust-request-chat-template
0.5.21 flag 0.5.23:bool: --enable-decoder-swa-bounded-replay
0.5.21 float: --disaggregation-decode-host-receive-threshold --hicache-host-memory-fraction
0.5.21 human: --cuda-graph-prefill-max-context=--context-bucket
0.5.21 int: --constrained-json-max-whitespace-cnt --cuda-graph-max-seq-len-prefill --grpc-response-timeout-secs
  --sampling-mask-max-tokens --shared-experts-tp-size --speculative-domino-candidate-pool-size
  --speculative-draft-sink-size --swa-prefix-tails
0.5.21 json: --radix-eviction-policy-config
0.5.21 str: --boundary-reduction --dsv4-attn-backend --flashinfer-a2a-dispatch-type --otlp-service-name
  --ple-offload-backend --ple-offload-dir --prefill-kv-cache-dequant-dtype --unified-cache-external-linker-backend
  --uno-lora-path
0.5.23 bool: --enable-dsa-fused-indexer --speculative-enable-w4a4-mxfp4-megamoe
0.5.23 flag: --enable-amd-monokernel --enable-http-worker-reuseport --enable-kv-cache-sharding
  --enable-megamoe-for-layernorm-sp --enable-nvidia-megakernel --enable-paged-experts
  --enable-return-aux-hidden-states --enable-watermark --speculative-use-block-verification
0.5.23 int: --attn-dp-size=--attention-data-parallel-size --dsa-triton-union --paged-experts-num-resident
  --prefill-decode-interval-min-bs
0.5.23 json: --unified-cache-external-linker-config
0.5.23 list: --return-aux-hidden-state-layer-ids
0.5.23 str: --disaggregation-decode-allocation-policy --monokernel-backend --qsa-indexer-dtype --watermark-config
""",
)

# The values that the parser takes, from a sample on: all of them, or what came (`+`) and went (`-`) with it; "" where it does
# not check or that was not read.
CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "--attention-backend": (
        ("0.3.6.post3", "flashinfer,triton"),
        ("0.4.1.post7", "+torch_native"),
        ("0.4.6.post5", "+aiter,cutlass_mla,fa3,flashmla"),
        ("0.4.8.post1", "+intel_amx"),
        ("0.4.10.post2", "+ascend,trtllm_mla"),
        ("0.5.2", "+dual_chunk_flash_attn,hybrid_linear_attn,trtllm_mha,wave"),
        ("0.5.3.post3", "+fa4,flex_attention,nsa -hybrid_linear_attn"),
        ("0.5.5.post3", "+intel_xpu"),
        ("0.5.12.post1", "+compressed,dsv4,tokenspeed_mla"),
        ("0.5.14", "+cutedsl_mla,dsa"),
        ("0.5.19", "+hpc_ops,minicpm_flashattn,minicpm_flashinfer"),
        ("0.5.21", "+qsa -cutlass_mla,dual_chunk_flash_attn"),
        ("0.5.23", "+llada2_cfg_flashinfer"),
    ),
    "--disaggregation-mode": (("0.4.6.post5", "decode,null,prefill"),),
    "--dtype": (("0.3.6.post3", "auto,bfloat16,float,float16,float32,half"),),
    "--grammar-backend": (
        ("0.3.6.post3", "outlines,xgrammar"),
        ("0.4.3.post4", "+llguidance"),
        ("0.4.6.post5", "+none"),
    ),
    "--kv-cache-dtype": (
        ("0.3.6.post3", "auto,fp8_e5m2"),
        ("0.4.1.post7", "+fp8_e4m3"),
        ("0.5.5.post3", "+bf16,bfloat16,fp4_e2m1"),
        ("0.5.16", "+fp4_mx_block16,mxfp8,nvfp4"),
        ("0.5.21", "-fp4_e2m1"),
    ),
    "--load-format": (
        ("0.3.6.post3", "auto,dummy,npcache,pt,safetensors"),
        ("0.4.1.post7", "+bitsandbytes,gguf"),
        ("0.4.3.post4", "+layered"),
        ("0.4.6.post5", "+remote,sharded_state"),
        ("0.5.3.post3", "+remote_instance"),
        ("0.5.6.post2", "+flash_rl,private"),
        ("0.5.7", "+fastsafetensors"),
        ("0.5.10.post1", "+mistral,runai_streamer"),
        ("0.5.19", "+expert_pack,presharded"),
        ("0.5.23", "+instanttensor"),
    ),
    "--moe-a2a-backend": (
        ("0.4.10.post2", "deepep"),
        ("0.5.2", "+none"),
        ("0.5.3.post3", "+mooncake"),
        ("0.5.6.post2", "+ascend_fuseep"),
        ("0.5.9", "+flashinfer,mori"),
        ("0.5.10.post1", "+nixl"),
        ("0.5.12.post1", "+megamoe"),
        ("0.5.16", "+ascend_tp"),
        ("0.5.19", "+deepep_v2,pplx"),
        ("0.5.21", "+flashinfer_megamoe"),
    ),
    "--quantization": (
        ("0.3.6.post3", "awq,awq_marlin,bitsandbytes,fp8,gptq,gptq_marlin,marlin"),
        ("0.4.1.post7", "+gguf,modelopt,w8a8_int8"),
        ("0.4.6.post5", "+modelopt_fp4,moe_wna16,qoq,w8a8_fp8"),
        ("0.4.10.post2", "+petit_nvfp4,w4afp8"),
        ("0.5.2", "+mxfp4"),
        ("0.5.5.post3", "+auto-round,compressed-tensors,modelopt_fp8"),
        ("0.5.6.post2", "+modelslim"),
        ("0.5.8.post1", "+quark_int4fp8_moe"),
        ("0.5.9", "+mxfp8"),
        ("0.5.10.post1", "+modelopt_mixed"),
        ("0.5.12.post1", "+mlx_q4,mlx_q8,quark,unquant"),
        ("0.5.14", "+nvfp4_online,quark_mxfp4"),
        ("0.5.16", "+auto-round-int8,humming,mxfp_w4a8 -qoq"),
        ("0.5.21", "-marlin"),
    ),
    "--schedule-policy": (
        ("0.3.6.post3", "dfs-weight,fcfs,lpm,random"),
        ("0.5.2", "+lof"),
        ("0.5.3.post3", "+priority"),
        ("0.5.8.post1", "+routing-key"),
        ("0.5.21", "+hrrn,shortest-prefill-first"),
    ),
    "--speculative-algorithm": (
        ("0.4.1.post7", "EAGLE"),
        ("0.4.3.post4", "+NEXTN"),
        ("0.4.6.post5", "+EAGLE3"),
        ("0.5.2", "+STANDALONE"),
        ("0.5.3.post3", "+NGRAM"),
        ("0.5.12.post1", ""),
    ),
    "--tokenizer-mode": (("0.3.6.post3", "auto,slow"),),
}

"""LMDeploy's options of `serve api_server` by release, from the parser of each release in `SAMPLES` (`cli/serve.py`, `cli/utils.py`)."""

from __future__ import annotations

from .dialect import rows

SAMPLES = (
    "0.4.2", "0.5.3", "0.6.0", "0.6.5", "0.7.3", "0.8.0", "0.9.2", "0.10.2", "0.12.0", "0.13.0", "0.14.0", "0.16.0",
    "0.18.0",
)  # fmt: skip

# The options by their first sample, see `dialect.rows`.
FLAGS = rows(
    SAMPLES,
    """
0.4.2 flag: --allow-credentials --enable-prefix-caching --ssl
0.4.2 float: --cache-max-entry-count --rope-scaling-factor
0.4.2 int: --cache-block-seq-len --max-batch-size --max-prefill-iters --num-tokens-per-iter --server-port
  --session-len --tp --vision-max-batch-size
0.4.2 list: --adapters --allow-headers --allow-methods --allow-origins --api-keys
0.4.2 str: --backend --chat-template --log-level --model-format --model-name --quant-policy --server-name
0.4.2..0.5.3 str: --cap --meta-instruction --qos-config-path
0.5.3 str: --download-dir --revision
0.6.0 int: --max-prefill-token-num
0.6.0 str: --device
0.6.5 flag: --disable-fastapi-docs --eager-mode
0.6.5 int: --max-log-len
0.6.5 str: --dtype --proxy-url
0.7.3 int: --max-concurrent-requests
0.7.3 str: --communicator --reasoning-parser --tool-call-parser
0.8.0 flag: --enable-microbatch
0.8.0 int: --dp --ep
0.8.0..0.8.0 int: --dp-rank
0.9.2 flag: --allow-terminate-by-client --enable-eplb
0.9.2 int: --nnodes --node-rank
0.9.2 json: --hf-overrides
0.9.2 str: --migration-backend --role
0.9.2..0.14.0 flag: --disable-vision-encoder
0.9.2..0.10.2 flag: --enable-metrics
0.10.2 float: --dllm-confidence-threshold
0.10.2 int: --dllm-block-length --dllm-denoising-steps
0.10.2 str: --dllm-unmasking-strategy --logprobs-mode
0.12.0 flag: --disable-metrics --enable-abort-handling --enable-return-routed-experts
0.12.0 int: --async --cp --speculative-num-draft-tokens
0.12.0 str: --dist-init-addr --distributed-executor-backend --speculative-algorithm --speculative-draft-model
0.13.0 flag: --trust-remote-code
0.13.0 int: --kernel-block-size
0.14.0 int: --prefix-cache-decode-state-interval --prefix-cache-state-budget
0.14.0 list: --cudagraph-capture-batch-sizes
0.16.0 flag: --language-model-only
0.16.0 list: --allowed-media-domains
0.16.0 str: --generation-config
0.18.0 flag: --empty-init
0.18.0 int: --num-gpu-blocks --piecewise-cudagraph-max-tokens --speculative-dflash-block-size
0.18.0 json: --kv-transfer-config
0.18.0 str: --moe-a2a-backend
""",
)

# The values that the parser takes, from a sample on; "" where it does not check or that was not read.
CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "--backend": (("0.4.2", "pytorch,turbomind"),),
    "--communicator": (("0.7.3", "native,nccl"), ("0.10.2", "cuda-ipc,native,nccl")),
    "--device": (("0.6.0", "ascend,cuda"), ("0.6.5", "ascend,cuda,maca"), ("0.7.3", "ascend,camb,cuda,maca")),
    "--distributed-executor-backend": (("0.12.0", "mp,ray,uni"),),
    "--dtype": (("0.6.5", "auto,bfloat16,float16"),),
    "--log-level": (("0.4.2", "CRITICAL,DEBUG,ERROR,FATAL,INFO,NOTSET,WARN,WARNING"),),
    "--model-format": (
        ("0.4.2", "awq,hf,llama"),
        ("0.6.0", "awq,gptq,hf,llama"),
        ("0.7.3", "awq,gptq,hf"),
        ("0.9.2", "awq,fp8,gptq,hf"),
        ("0.10.2", "awq,fp8,gptq,hf,mxfp4"),
        ("0.13.0", "awq,compressed-tensors,fp8,gptq,hf,mxfp4"),
    ),
    "--quant-policy": (("0.4.2", "0,4,8"), ("0.13.0", "")),
    "--role": (("0.9.2", "Decode,Hybrid,Prefill"),),
}

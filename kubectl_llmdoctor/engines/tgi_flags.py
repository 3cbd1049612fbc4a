"""The options of Text Generation Inference's launcher by release (`struct Args` of `launcher/src/main.rs`)."""

from __future__ import annotations

from .dialect import rows

SAMPLES = (
    "0.9.4", "1.0.3", "1.1.1", "1.3.4", "1.4.5", "2.0.4", "2.1.1", "2.2.0", "2.3.1", "2.4.1", "3.0.2", "3.1.1",
    "3.2.3", "3.3.0", "3.3.7",
)  # fmt: skip

# The options by their first sample, see `dialect.rows`.
FLAGS = rows(
    SAMPLES,
    """
0.9.4 append: --cors-allow-origin
0.9.4 flag: --disable-custom-kernels --env=-e --json-output --ngrok
0.9.4 float: --cuda-memory-fraction --waiting-served-ratio --watermark-delta --watermark-gamma
0.9.4 int: --master-port --max-batch-prefill-tokens --max-batch-total-tokens --max-best-of --max-concurrent-requests
  --max-input-length --max-stop-sequences --max-total-tokens --max-waiting-tokens --num-shard --port=-p
  --validation-workers
0.9.4 optbool: --trust-remote-code
0.9.4 str: --dtype --hostname --huggingface-hub-cache --master-addr --model-id --ngrok-authtoken --ngrok-edge
  --otlp-endpoint --quantize --revision --shard-uds-path --weights-cache-override
0.9.4 truth: --sharded
1.0.3 float: --rope-factor
1.0.3 int: --max-top-n-tokens
1.0.3 str: --rope-scaling
1.3.4 int: --speculate
1.4.5 flag: --disable-grammar-support
1.4.5 int: --max-batch-size
1.4.5 str: --tokenizer-config-path
1.4.5..1.4.5 flag: --enable-cuda-graphs
2.0.4 int: --max-client-batch-size --max-input-tokens
2.0.4 str: --cuda-graphs
2.1.1 str: --lora-adapters --otlp-service-name
2.2.0..2.2.0 flag: --disable-crash-reports --disable-usage-stats
2.3.1 str: --api-key --usage-stats
2.4.1 int: --payload-limit
2.4.1 str: --kv-cache-dtype
3.0.2 flag: --enable-prefill-logprobs
3.2.3 int: --graceful-termination-timeout=-g
3.3.0 int: --prometheus-port
""",
)

# The values that the parser takes, from a sample on; "" where it does not check or that was not read.
CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "--dtype": (("0.9.4", "bfloat16,float16"),),
    "--kv-cache-dtype": (("2.4.1", "fp8_e4m3fn,fp8_e5m2"),),
    "--quantize": (
        ("0.9.4", "bitsandbytes,gptq"),
        ("1.0.3", "bitsandbytes,bitsandbytes-fp4,bitsandbytes-nf4,gptq"),
        ("1.1.1", "awq,bitsandbytes,bitsandbytes-fp4,bitsandbytes-nf4,eetq,gptq"),
        ("2.0.4", "awq,bitsandbytes,bitsandbytes-fp4,bitsandbytes-nf4,eetq,fp8,gptq"),
        ("2.1.1", "awq,bitsandbytes,bitsandbytes-fp4,bitsandbytes-nf4,eetq,exl2,fp8,gptq,marlin"),
        ("2.4.1", "awq,bitsandbytes,bitsandbytes-fp4,bitsandbytes-nf4,compressed-tensors,eetq,exl2,fp8,gptq,marlin"),
    ),
}

"""The options of Text Generation Inference's launcher by release (`struct Args` of `launcher/src/main.rs`)."""

from __future__ import annotations

from .dialect import Row

SAMPLES = (
    "0.9.4", "1.0.3", "1.1.1", "1.3.4", "1.4.5", "2.0.4", "2.1.1", "2.2.0", "2.3.1", "2.4.1", "3.0.2", "3.1.1",
    "3.2.3", "3.3.0", "3.3.7",
)  # fmt: skip

# Option, first and last sample that has it, kind of its value, other names: see `dialect.Row`.
FLAGS: tuple[Row, ...] = (
    ("--api-key", "2.3.1", "3.3.7", "str", ""),
    ("--cors-allow-origin", "0.9.4", "3.3.7", "append", ""),
    ("--cuda-graphs", "2.0.4", "3.3.7", "str", ""),
    ("--cuda-memory-fraction", "0.9.4", "3.3.7", "float", ""),
    ("--disable-crash-reports", "2.2.0", "2.2.0", "flag", ""),
    ("--disable-custom-kernels", "0.9.4", "3.3.7", "flag", ""),
    ("--disable-grammar-support", "1.4.5", "3.3.7", "flag", ""),
    ("--disable-usage-stats", "2.2.0", "2.2.0", "flag", ""),
    ("--dtype", "0.9.4", "3.3.7", "str", ""),
    ("--enable-cuda-graphs", "1.4.5", "1.4.5", "flag", ""),
    ("--enable-prefill-logprobs", "3.0.2", "3.3.7", "flag", ""),
    ("--env", "0.9.4", "3.3.7", "flag", "-e"),
    ("--graceful-termination-timeout", "3.2.3", "3.3.7", "int", "-g"),
    ("--hostname", "0.9.4", "3.3.7", "str", ""),
    ("--huggingface-hub-cache", "0.9.4", "3.3.7", "str", ""),
    ("--json-output", "0.9.4", "3.3.7", "flag", ""),
    ("--kv-cache-dtype", "2.4.1", "3.3.7", "str", ""),
    ("--lora-adapters", "2.1.1", "3.3.7", "str", ""),
    ("--master-addr", "0.9.4", "3.3.7", "str", ""),
    ("--master-port", "0.9.4", "3.3.7", "int", ""),
    ("--max-batch-prefill-tokens", "0.9.4", "3.3.7", "int", ""),
    ("--max-batch-size", "1.4.5", "3.3.7", "int", ""),
    ("--max-batch-total-tokens", "0.9.4", "3.3.7", "int", ""),
    ("--max-best-of", "0.9.4", "3.3.7", "int", ""),
    ("--max-client-batch-size", "2.0.4", "3.3.7", "int", ""),
    ("--max-concurrent-requests", "0.9.4", "3.3.7", "int", ""),
    ("--max-input-length", "0.9.4", "3.3.7", "int", ""),
    ("--max-input-tokens", "2.0.4", "3.3.7", "int", ""),
    ("--max-stop-sequences", "0.9.4", "3.3.7", "int", ""),
    ("--max-top-n-tokens", "1.0.3", "3.3.7", "int", ""),
    ("--max-total-tokens", "0.9.4", "3.3.7", "int", ""),
    ("--max-waiting-tokens", "0.9.4", "3.3.7", "int", ""),
    ("--model-id", "0.9.4", "3.3.7", "str", ""),
    ("--ngrok", "0.9.4", "3.3.7", "flag", ""),
    ("--ngrok-authtoken", "0.9.4", "3.3.7", "str", ""),
    ("--ngrok-edge", "0.9.4", "3.3.7", "str", ""),
    ("--num-shard", "0.9.4", "3.3.7", "int", ""),
    ("--otlp-endpoint", "0.9.4", "3.3.7", "str", ""),
    ("--otlp-service-name", "2.1.1", "3.3.7", "str", ""),
    ("--payload-limit", "2.4.1", "3.3.7", "int", ""),
    ("--port", "0.9.4", "3.3.7", "int", "-p"),
    ("--prometheus-port", "3.3.0", "3.3.7", "int", ""),
    ("--quantize", "0.9.4", "3.3.7", "str", ""),
    ("--revision", "0.9.4", "3.3.7", "str", ""),
    ("--rope-factor", "1.0.3", "3.3.7", "float", ""),
    ("--rope-scaling", "1.0.3", "3.3.7", "str", ""),
    ("--shard-uds-path", "0.9.4", "3.3.7", "str", ""),
    ("--sharded", "0.9.4", "3.3.7", "truth", ""),
    ("--speculate", "1.3.4", "3.3.7", "int", ""),
    ("--tokenizer-config-path", "1.4.5", "3.3.7", "str", ""),
    ("--trust-remote-code", "0.9.4", "3.3.7", "optbool", ""),
    ("--usage-stats", "2.3.1", "3.3.7", "str", ""),
    ("--validation-workers", "0.9.4", "3.3.7", "int", ""),
    ("--waiting-served-ratio", "0.9.4", "3.3.7", "float", ""),
    ("--watermark-delta", "0.9.4", "3.3.7", "float", ""),
    ("--watermark-gamma", "0.9.4", "3.3.7", "float", ""),
    ("--weights-cache-override", "0.9.4", "3.3.7", "str", ""),
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

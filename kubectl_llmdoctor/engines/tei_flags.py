"""The options of Text Embeddings Inference's router by release (`struct Args` of `router/src/main.rs`)."""

from __future__ import annotations

from .dialect import Row

SAMPLES = ("0.6.0", "1.0.0", "1.2.3", "1.4.0", "1.5.1", "1.6.1", "1.7.4", "1.8.3", "1.9.3")

# Option, first and last sample that has it, kind of its value, other names: see `dialect.Row`.
FLAGS: tuple[Row, ...] = (
    ("--api-key", "1.2.3", "1.9.3", "str", ""),
    ("--auto-truncate", "1.2.3", "1.9.3", "flag 1.9.3:optbool", ""),
    ("--cors-allow-origin", "1.0.0", "1.9.3", "append", ""),
    ("--default-prompt", "1.4.0", "1.9.3", "str", ""),
    ("--default-prompt-name", "1.4.0", "1.9.3", "str", ""),
    ("--dense-path", "1.8.3", "1.9.3", "str", ""),
    ("--disable-spans", "1.6.1", "1.9.3", "flag", ""),
    ("--dtype", "0.6.0", "1.9.3", "str", ""),
    ("--hf-api-token", "0.6.0", "1.9.3", "str", ""),
    ("--hf-token", "1.6.1", "1.9.3", "str", ""),
    ("--hostname", "0.6.0", "1.9.3", "str", ""),
    ("--huggingface-hub-cache", "0.6.0", "1.9.3", "str", ""),
    ("--json-output", "0.6.0", "1.9.3", "flag", ""),
    ("--max-batch-requests", "0.6.0", "1.9.3", "int", ""),
    ("--max-batch-tokens", "0.6.0", "1.9.3", "int", ""),
    ("--max-client-batch-size", "0.6.0", "1.9.3", "int", ""),
    ("--max-concurrent-requests", "0.6.0", "1.9.3", "int", ""),
    ("--model-id", "0.6.0", "1.9.3", "str", ""),
    ("--otlp-endpoint", "0.6.0", "1.9.3", "str", ""),
    ("--otlp-service-name", "1.4.0", "1.9.3", "str", ""),
    ("--payload-limit", "1.2.3", "1.9.3", "int", ""),
    ("--pooling", "0.6.0", "1.9.3", "str", ""),
    ("--port", "0.6.0", "1.9.3", "int", "-p"),
    ("--prometheus-port", "1.7.4", "1.9.3", "int", ""),
    ("--revision", "0.6.0", "1.9.3", "str", ""),
    ("--served-model-name", "1.9.3", "1.9.3", "str", ""),
    ("--tokenization-workers", "0.6.0", "1.9.3", "int", ""),
    ("--uds-path", "0.6.0", "1.9.3", "str", ""),
)

"""The options of Text Embeddings Inference's router by release (`struct Args` of `router/src/main.rs`)."""

from __future__ import annotations

from .dialect import rows

SAMPLES = ("0.6.0", "1.0.0", "1.2.3", "1.4.0", "1.5.1", "1.6.1", "1.7.4", "1.8.3", "1.9.3")

# The options by their first sample, see `dialect.rows`.
FLAGS = rows(
    SAMPLES,
    """
0.6.0 flag: --json-output
0.6.0 int: --max-batch-requests --max-batch-tokens --max-client-batch-size --max-concurrent-requests --port=-p
  --tokenization-workers
0.6.0 str: --dtype --hf-api-token --hostname --huggingface-hub-cache --model-id --otlp-endpoint --pooling --revision
  --uds-path
1.0.0 append: --cors-allow-origin
1.2.3 flag 1.9.3:optbool: --auto-truncate
1.2.3 int: --payload-limit
1.2.3 str: --api-key
1.4.0 str: --default-prompt --default-prompt-name --otlp-service-name
1.6.1 flag: --disable-spans
1.6.1 str: --hf-token
1.7.4 int: --prometheus-port
1.8.3 str: --dense-path
1.9.3 str: --served-model-name
""",
)

"""The options of llama.cpp's `llama-server`: all that its parser has had since `common/arg.cpp` exists.

Which build began or ended an option was not read, so there is one sample that is no build: nothing is certain of any.
Kinds are those of the newest source that was read (August 2026).
"""

from __future__ import annotations

from .dialect import rows

SAMPLES = ("b0",)

# The options by their first sample, see `dialect.rows`.
FLAGS = rows(
    SAMPLES,
    """
b0 flag: --agent=-ag,!-no-ag,!--no-agent --backend-sampling=-bs --cache-idle-slots=!--no-cache-idle-slots
  --cache-list=-cl --cache-prompt=!--no-cache-prompt --check-tensors --completion-bash
  --cont-batching=-cb,!--no-cont-batching,!-nocb --context-shift=!--no-context-shift
  --cors-credentials=!--no-cors-credentials --cpu-moe=-cmoe --cpu-moe-draft=-cmoed,--spec-draft-cpu-moe
  --direct-io=-dio,!-ndio,!--no-direct-io --dump-kv-cache=-dkvc --embd-bge-small-en-default --embd-e5-small-en-default
  --embd-gemma-default --embd-gte-small-default --embeddings=--embedding --escape=-e,!--no-escape
  --fim-qwen-1.5b-default --fim-qwen-14b-spec --fim-qwen-30b-default --fim-qwen-3b-default --fim-qwen-7b-default
  --fim-qwen-7b-spec --gpt-oss-120b-default --gpt-oss-20b-default --help=-h,--usage --ignore-eos --jinja=!--no-jinja
  --kv-offload=-kvo,!-nkvo,!--no-kv-offload --kv-unified=-kvu,!--no-kv-unified,!-no-kvu --license --list-devices
  --log-disable --log-jsonl=!--no-log-jsonl --log-prefix=!--no-log-prefix --log-timestamps=!--no-log-timestamps
  --log-verbose=-v,--verbose --lora-init-without-apply --metrics --mlock --mmap=!--no-mmap
  --mmproj-auto=!--no-mmproj,!--no-mmproj-auto --mmproj-offload=!--no-mmproj-offload
  --models-autoload=!--no-models-autoload --no-host --offline --op-offload=!--no-op-offload --perf=!--no-perf
  --prefill-assistant=!--no-prefill-assistant --props --reasoning-preserve=!--no-reasoning-preserve
  --repack=!--no-repack,!-nr --rerank=--reranking --reuse-port --skip-chat-parsing=!--no-skip-chat-parsing
  --slots=!--no-slots --spec-default --spec-draft-backend-sampling=!--no-spec-draft-backend-sampling --special=-sp
  --spm-infill --swa-full --tts-use-guide-tokens --verbose-prompt --version --vision-gemma-12b-default
  --vision-gemma-4b-default --warmup=!--no-warmup --webui=--ui,!--no-ui,!--no-webui
  --webui-mcp-proxy=--ui-mcp-proxy,!--no-ui-mcp-proxy,!--no-webui-mcp-proxy
b0 onoff: --flash-attn=-fa --log-colors
b0 stoi: --batch-size=-b --cache-ram=-cram --cache-reuse --checkpoint-min-step=-cms --cpu-strict-batch
  --cpu-strict-batch-draft=--spec-draft-cpu-strict-batch --cpu-strict-draft=--spec-draft-cpu-strict --ctx-size=-c
  --ctx-size-draft=-cd --draft-n=--draft,--draft-max --draft-n-min=--draft-min --dry-allowed-length
  --dry-penalty-last-n --embd-normalize --fit-ctx=-fitc --image-max-tokens --image-min-tokens --keep
  --kv-unified-per-slot --log-verbosity=-lv,--verbosity --main-gpu=-mg --mirostat --models-max --mtmd-batch-max-tokens
  --n-cpu-ffn=-ncffn --n-cpu-moe=-ncmoe --n-cpu-moe-draft=-ncmoed,--spec-draft-n-cpu-moe,--spec-draft-ncmoe
  --n-predict=-n,--predict --parallel=-np --poll-batch --poll-batch-draft=--spec-draft-poll-batch
  --poll-draft=--spec-draft-poll --port --prio --prio-batch --prio-batch-draft=--spec-draft-prio-batch
  --prio-draft=--spec-draft-prio --reasoning-budget --repeat-last-n --sleep-idle-seconds --spec-draft-n-max
  --spec-draft-n-min --spec-ngram-map-k-min-hits --spec-ngram-map-k-size-m --spec-ngram-map-k-size-n
  --spec-ngram-map-k4v-min-hits --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-size-n --spec-ngram-min-hits
  --spec-ngram-mod-n-match --spec-ngram-mod-n-max --spec-ngram-mod-n-min --spec-ngram-simple-min-hits
  --spec-ngram-simple-size-m --spec-ngram-simple-size-n --spec-ngram-size-m --spec-ngram-size-n --sse-ping-interval
  --swa-checkpoints=--ctx-checkpoints,-ctxcp --threads=-t --threads-batch=-tb
  --threads-batch-draft=--spec-draft-threads-batch,-tbd --threads-draft=--spec-draft-threads,-td --threads-http
  --timeout=-to --top-k --ubatch-size=-ub --video-timestamp-interval --yarn-orig-ctx
b0 str: --adaptive-decay --adaptive-target --alias=-a --api-key --api-key-file --api-prefix --cache-type-k=-ctk
  --cache-type-k-draft=-ctkd,--spec-draft-type-k --cache-type-v=-ctv --cache-type-v-draft=-ctvd,--spec-draft-type-v
  --chat-template --chat-template-file --chat-template-kwargs --control-vector --control-vector-scaled --cors-headers
  --cors-methods --cors-origins --cpu-mask=-C --cpu-mask-batch=-Cb
  --cpu-mask-batch-draft=-Cbd,--spec-draft-cpu-mask-batch --cpu-mask-draft=-Cd,--spec-draft-cpu-mask --cpu-range=-Cr
  --cpu-range-batch=-Crb --cpu-range-draft=-Crd,--spec-draft-cpu-range --cpu-strict --defrag-thold=-dt --device=-dev
  --device-draft=-devd,--spec-draft-device --docker-repo=-dr --draft-p-min=--spec-draft-p-min
  --draft-p-split=--spec-draft-p-split --dry-base --dry-multiplier --dry-sequence-breaker --dynatemp-exp
  --dynatemp-range --fit=-fit --fit-target=-fitt --frequency-penalty --grammar --grammar-file --hf-file=-hff
  --hf-file-v=-hffv --hf-repo=-hf,-hfr --hf-repo-draft=-hfd,-hfrd,--spec-draft-hf --hf-repo-v=-hfrv,-hfv
  --hf-token=-hft --host --json-schema=-j --json-schema-file=-jf --lazy-mode=-lzm --load-mode=-lm --log-file
  --log-prompts-dir --logit-bias=-l --lookup-cache-dynamic=-lcd --lookup-cache-static=-lcs --lora --lora-scaled
  --mcp-servers-config --mcp-servers-json --media-path --min-p --mirostat-ent --mirostat-lr --mmproj=-mm
  --mmproj-device=-mmdev --mmproj-url=-mmu --model=-m --model-draft=-md,--spec-draft-model --model-url=-mu
  --model-vocoder=-mv --models-dir --models-preset --n-gpu-layers=--gpu-layers,-ngl
  --n-gpu-layers-draft=--gpu-layers-draft,-ngld,--spec-draft-ngl --numa --override-kv --override-tensor=-ot
  --override-tensor-draft=-otd,--spec-draft-override-tensor --path --poll --pooling --presence-penalty
  --reasoning=-rea --reasoning-budget-message --reasoning-effort --reasoning-format --repeat-penalty
  --reverse-prompt=-r --rope-freq-base --rope-freq-scale --rope-scale --rope-scaling --rpc
  --sampler-seq=--sampling-seq --samplers --seed=-s --slot-prompt-similarity=-sps --slot-save-path --spec-synth-len
  --spec-synth-rates --spec-type --split-mode=-sm --ssl-cert-file --ssl-key-file --tags --temp=--temperature
  --tensor-split=-ts --tools --tools-runtime --top-n-sigma=--top-nsigma --top-p --typical=--typical-p
  --video-ffmpeg-dir --video-fps --webui-config=--ui-config --webui-config-file=--ui-config-file --xtc-probability
  --xtc-threshold --yarn-attn-factor --yarn-beta-fast --yarn-beta-slow --yarn-ext-factor
b0 two: --control-vector-layer-range --spec-replace
""",
)

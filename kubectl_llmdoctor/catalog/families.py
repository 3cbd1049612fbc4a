"""Which parser reads the tool calls of which family of models, and which package a Python module, a name in one, or a library is from.

Sources: vLLM docs/features/tool_calling.md (0.33), the model cards of Qwen3.5, Gemma 4, MiniMax and Nemotron 3; the packages transformers
4.46.0 to 5.24.0, huggingface_hub 0.22.2 to 1.0.0 and setuptools 80.9.0 to 82.0.0 for what they have.
"""

from __future__ import annotations

from kubectl_llmdoctor.expressions import expression

#: By what a model's name has in it, the first that fits; the parsers as vLLM names them.
_PARSERS = tuple(
    (expression(words), parser)
    for words, parser in (
        (r"gpt-oss", "openai"),
        (r"nemotron-3-(?:nano|super|ultra)", "qwen3_coder"),
        (r"nemotron", ""),  # of each generation another one, often a plugin of the model's page
        (r"xlam", "xlam"),
        (r"qwen3-coder|qwen3\.[56]", "qwen3_coder"),
        (r"hermes-[23]|qwen2\.5|qwen3|qwq", "hermes"),
        (r"llama-4", "llama4_pythonic"),
        (r"deepseek-v3\.2", "deepseek_v32"),
        (r"deepseek-v3\.1", "deepseek_v31"),
        (r"deepseek-(?:v3|r1-0528)(?!\.)", "deepseek_v3"),
        (r"distill", ""),
        (r"llama-?3\.[1-3]", "llama3_json"),
        (r"glm-4\.7", "glm47"),
        (r"glm-4\.[56]", "glm45"),
        (r"kimi-k2", "kimi_k2"),
        (r"minimax-m2", "minimax_m2"),
        (r"minimax-m1", "minimax"),
        (r"granite-4", "granite4"),
        (r"granite-20b-functioncalling", "granite-20b-fc"),
        (r"granite-3", "granite"),
        (r"functiongemma", "functiongemma"),
        (r"gemma-4", "gemma4"),
        (r"hunyuan-a13b", "hunyuan_a13b"),
        (r"longcat-flash", "longcat"),
        (r"olmo-3", "olmo3"),
        (r"internlm2", "internlm"),
        (r"jamba-1\.5", "jamba"),
        (r"gigachat3", "gigachat3"),
        (r"(?:mistral|ministral|magistral|devstral)", "mistral"),
    )
)

#: What SGLang (function_call/function_call_parser.py) calls the same.
_AS_SGLANG = {
    "hermes": "qwen25", "llama3_json": "llama3", "llama4_pythonic": "pythonic", "openai": "gpt-oss", "deepseek_v3": "deepseekv3",
    "deepseek_v31": "deepseekv31", "deepseek_v32": "deepseekv32", "minimax_m2": "minimax-m2",
}  # fmt: skip

#: How the variants for chats of models that have a base variant are called.
_FOR_CHATS = expression(r"(?i)-(?:chat|instruct|it)\b")

#: Models without a chat template whose messages vLLM writes itself: by the name, the tokenizer mode that does, and the first release
#: that has it (config/model.py). From 0.19.1 on vLLM chooses the mode by the architecture.
_MODES = ((expression(r"deepseek-v3\.2(?!-exp)"), "deepseek_v32", "0.13.0"),)

#: Packages whose name is not the module's.
_PACKAGES = {
    "cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "google.protobuf": "protobuf",
    "dotenv": "python-dotenv", "bs4": "beautifulsoup4", "psycopg2": "psycopg2-binary", "jwt": "PyJWT", "zmq": "pyzmq", "grpc": "grpcio",
    "pkg_resources": "setuptools<82", "distutils": "setuptools", "awq": "autoawq", "pynvml": "nvidia-ml-py", "magic": "python-magic",
    "Crypto": "pycryptodome", "ray": "ray[default]", "multipart": "python-multipart", "socks": "PySocks", "socksio": "httpx[socks]",
    "etcd": "python-etcd",
}  # fmt: skip

#: Packages that are called as their modules are, but for hyphens: no other name is taken for one of a package, which may be anybody's.
_ALIKE = expression(
    r"accelerate|addict|aiohttp|asyncpg|av|bitsandbytes|blobfile|boto3|compressed_tensors|datasets|"
    r"decord|diffusers|easydict|einops|fastapi|fsspec|ftfy|gcsfs|gguf|gptqmodel|hf_transfer|"
    r"hf_xet|httpx|jieba|kubernetes|langchain|librosa|lmcache|matplotlib|mistral_common|modelscope|moviepy|"
    r"msgpack|ninja|num2words|numpy|onnxruntime|openai|optimum|orjson|outlines|packaging|pandas|peft|phonemizer|"
    r"prisma|prometheus_client|psutil|pyarrow|pydantic|pydub|pymysql|pypdf|qwen_omni_utils|qwen_vl_utils|redis|"
    r"requests|runai_model_streamer|s3fs|safetensors|scipy|seaborn|sentence_transformers|sentencepiece|sentry_sdk|"
    r"setuptools|soundfile|tensorizer|tiktoken|timm|tokenizers|torch|torchaudio|torchcodec|torchvision|tqdm|"
    r"transformers|triton|tritonclient|uvicorn|uvloop|vllm_omni|xgrammar"
)

#: By the beginning of a library's name what brings it: a package of Debian and Ubuntu, or behind `pip` one of Python's.
_LIBRARIES = (
    ("libgomp.so.1", "libgomp1"), ("libGL.so.1", "libgl1"), ("libglib-2.0.so.0", "libglib2.0-0"), ("libgthread-2.0.so.0", "libglib2.0-0"),
    ("libSM.so.6", "libsm6"), ("libXext.so.6", "libxext6"), ("libXrender.so.1", "libxrender1"), ("libnuma.so.1", "libnuma1"),
    ("libibverbs.so.1", "libibverbs1"), ("librdmacm.so.1", "librdmacm1"), ("libsndfile.so", "libsndfile1"), ("libaio.so.1", "libaio1"),
    ("libcurl.so.4", "libcurl4"), ("libopenblas.so.0", "libopenblas0"), ("libtcmalloc", "libgoogle-perftools4"),
    ("libstdc++.so.6", "libstdc++6"), ("libtbb.so.12", "libtbb12"), ("libmpi.so.40", "libopenmpi3"), ("libavcodec", "ffmpeg"),
    ("libavutil", "ffmpeg"), ("libavformat", "ffmpeg"), ("libatomic.so.1", "libatomic1"), ("libuv.so.1", "libuv1"),
    ("libdrm.so.2", "libdrm2"), ("libdrm_amdgpu.so.1", "libdrm-amdgpu1"), ("libelf.so.1", "libelf1"), ("libssl.so.3", "libssl3"),
    ("libvulkan.so.1", "libvulkan1"), ("libOpenCL.so.1", "ocl-icd-libopencl1"), ("libzmq.so.5", "libzmq5"), ("libucp.so.0", "libucx0"),
    ("libucs.so.0", "libucx0"), ("libpciaccess.so.0", "libpciaccess0"),
    ("libcublas.so.12", "pip nvidia-cublas-cu12"), ("libcublasLt.so.12", "pip nvidia-cublas-cu12"),
    ("libcudnn.so.9", "pip nvidia-cudnn-cu12"), ("libcudart.so.12", "pip nvidia-cuda-runtime-cu12"),
    ("libnvrtc.so.12", "pip nvidia-cuda-nvrtc-cu12"), ("libcusparse.so.12", "pip nvidia-cusparse-cu12"),
    ("libcusparseLt.so.0", "pip nvidia-cusparselt-cu12"), ("libnccl.so.2", "pip nvidia-nccl-cu12"),
    ("libcurand.so.10", "pip nvidia-curand-cu12"), ("libcufft.so.11", "pip nvidia-cufft-cu12"),
)  # fmt: skip

#: Names that releases of a package lost or got, with the releases that have them.
_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "transformers": {
        "<5": ("AutoModelForVision2Seq", "HybridCache", "is_tf_available", "is_torch_fx_available", "TRANSFORMERS_CACHE",
               "FLAX_WEIGHTS_NAME", "TF2_WEIGHTS_NAME", "find_pruneable_heads_and_indices", "is_remote_url"),
        "<4.54": ("LossKwargs", "_flash_supports_window_size"),
        ">=4.54": ("TransformersKwargs", "GenericForSequenceClassification"),
    },
    "huggingface_hub": {"<0.26": ("cached_download",), "<1": ("HfFolder",)},
}  # fmt: skip


def made_for_chats(model: str) -> bool:
    """Whether a model's name says that it was trained to chat, and not a base model."""
    return _FOR_CHATS.search(model) is not None


def tokenizer_mode(model: str) -> tuple[str, str] | None:
    """vLLM's tokenizer mode that writes the messages of a model which has no template, and the release that has it first."""
    return next(((mode, first) for words, mode, first in _MODES if words.search(model.lower())), None)


def tool_parser(model: str) -> str:
    """The parser of a model's tool calls by its name; empty where the table does not say."""
    return next((parser for words, parser in _PARSERS if words.search(model.lower())), "")


def parser_among(model: str, choices: list[str]) -> str:
    """The parser of a model's tool calls among those that a server names; empty where none is known to be it."""
    parser = tool_parser(model)
    return next((name for name in (parser, _AS_SGLANG.get(parser, "")) if name and name in choices), "")


def package(module: str) -> str:
    """What to install for a module that is missing; empty where the table does not say."""
    top = module.partition(".")[0]
    named = _PACKAGES.get(module) or _PACKAGES.get(top)
    return named or (top.replace("_", "-") if _ALIKE.fullmatch(top) else "")


def having(module: str, name: str) -> str:
    """The releases of a package that have a name, as pip writes them; empty where the table does not say."""
    top = module.partition(".")[0]
    return next((f"{top}{releases}" for releases, names in _NAMES.get(top, {}).items() if name in names), "")


def library(name: str) -> str:
    """What brings a shared library, as the command that installs it; empty where the table does not say."""
    bare = name.rpartition("/")[2]
    found = next((brought for begin, brought in _LIBRARIES if bare.startswith(begin)), "")
    if found.startswith("pip "):
        return f"pip install {found.removeprefix('pip ')}"
    return f"apt-get update && apt-get install -y --no-install-recommends {found}" if found else ""

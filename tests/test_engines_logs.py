"""What an engine's log says about itself."""

from __future__ import annotations

import pytest

from kubectl_llmdoctor.engines import Engine, Launch, announced, enrich, from_log, read

VLLM_OLD = """\
INFO 07-01 10:00:00 api_server.py:177] vLLM API server version 0.5.0.post1
INFO 07-01 10:00:00 api_server.py:178] args: Namespace(host=None, port=8080, uvicorn_log_level='info', \
allowed_origins=['*'], api_key=None, model='/mnt/models/', trust_remote_code=True, download_dir='/cache', \
dtype='auto', \
max_model_len=8000, tensor_parallel_size=1, gpu_memory_utilization=0.8, quantization=None)
"""

VLLM = """\
INFO 06-18 08:00:00 [__init__.py:244] Automatically detected platform cuda.
INFO 06-18 08:00:01 [api_server.py:1287] vLLM API server version 0.9.1
INFO 06-18 08:00:02 [cli_args.py:309] non-default args: {'port': 8081, 'api_key': 'abc', 'model': 'acme/m', \
'max_model_len': 4096, 'served_model_name': ['a', 'b'], 'enable_expert_parallel': True, 'hf_overrides': {'x': [1, 2]}}
INFO 06-18 08:00:09 [core.py:455] Initializing a V1 LLM engine (v0.9.1) with config: model='acme/m', \
speculative_config=None, tokenizer='acme/m', revision=None, dtype=torch.bfloat16, max_seq_len=4096, \
tensor_parallel_size=1, quantization=fp8, enforce_eager=False, kv_cache_dtype=auto, seed=0, \
served_model_name=a, compilation_config={"level":3,"custom_ops":["+x"]}
"""

LOGO = """\
(APIServer pid=1) INFO 11-24 08:21:11 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0
(APIServer pid=1) INFO 11-24 08:21:11 [api_utils.py:347]   █▄█▀ █     █     █     █  model   acme/m
(APIServer pid=1) INFO 11-24 08:21:11 [api_utils.py:286] non-default args: \
{'model_tag': 'acme/m', 'model': 'acme/m', 'revision': 'v2'}
"""

SGLANG = """\
[2025-06-01 10:00:00] server_args=ServerArgs(model_path='acme/m', tokenizer_path='acme/m', host='0.0.0.0', port=30000, \
mem_fraction_static=0.88, context_length=None, tp_size=4, dp_size=1, api_key='x', chunked_prefill_size=8192, \
quantization=None, trust_remote_code=True, max_running_requests=64, dist_timeout=None, cuda_graph_bs=[1, 2])
"""

TGI = """\
2025-01-01T10:00:00.000000Z  INFO text_generation_launcher: Args {
    model_id: "acme/m",
    revision: None,
    num_shard: Some(
        2,
    ),
    quantize: Some(
        Awq,
    ),
    max_concurrent_requests: 128,
    port: 80,
    trust_remote_code: false,
}
"""

OLLAMA = """\
time=2025-11-24T08:03:25.538Z level=INFO source=routes.go:1951 msg="server config" \
env="map[OLLAMA_HOST:http://0.0.0.0:8080]"
time=2025-11-24T08:03:25.539Z level=INFO source=routes.go:2008 msg="Listening on [::]:8080 (version 0.33.0-rc2)"
llama_model_loader: loaded meta data with 30 key-value pairs
"""


def log(text: str) -> Engine:
    found = from_log(text)
    assert found is not None
    return found


def test_vllm_states_what_was_set_and_what_is_in_force() -> None:
    found = log(VLLM)
    assert (found.name, found.version, found.version_text) == ("vllm", "0.9.1", "log banner")
    assert found.config == {
        "model": "acme/m",
        "served_model_name": ["a", "b"],
        "port": 8081,
        "max_model_len": 4096,
        "expert_parallel": True,
        "api_key": True,
        "hf_overrides": {"x": [1, 2]},
    }
    length = found.settings["max_model_len"]
    assert (length.source, length.text, length.path) == ("log", "'max_model_len': 4096", "log line 3")
    assert "abc" not in found.settings["api_key"].text
    # in force, and set by nobody
    assert found.value("quantization") == "fp8"
    assert found.explicit("quantization") is None
    assert found.value("dtype") == "bfloat16"
    assert found.value("gpu_memory_utilization") == 0.9
    assert not found.argv_known


def test_an_old_vllm_prints_everything() -> None:
    found = log(VLLM_OLD)
    assert found.version == "0.5.0.post1"
    assert found.config == {
        "model": "/mnt/models/",
        "port": 8080,
        "max_model_len": 8000,
        "gpu_memory_utilization": 0.8,
        "download_dir": "/cache",
        "trust_remote_code": True,
    }


def test_a_new_vllm_has_a_logo() -> None:
    found = log(LOGO)
    assert (found.name, found.version) == ("vllm", "0.32.0")
    assert found.config == {"model": "acme/m", "revision": "v2"}


def test_sglang() -> None:
    found = log(SGLANG)
    assert found.config == {
        "model": "acme/m",
        "host": "0.0.0.0",
        "max_num_seqs": 64,
        "tensor_parallel_size": 4,
        "api_key": True,
        "trust_remote_code": True,
    }
    assert found.value("gpu_memory_utilization") == 0.88
    assert found.explicit("gpu_memory_utilization") is None


def test_tgi() -> None:
    found = log(TGI)
    assert found.config == {"model": "acme/m", "tensor_parallel_size": 2, "quantization": "Awq"}
    assert found.value("port") == 80


def test_ollama_prints_lines_of_llama_cpp() -> None:
    found = log(OLLAMA)
    assert (found.name, found.version) == ("ollama", "0.33.0-rc2")
    assert found.value("port") == 8080


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("build: 10434 (a1b2c3) with cc\nllama_model_loader: loaded\n", "llama.cpp", "b10434"),
        ("0.00.007.150 I srv    load_model: loading model '/m.gguf'\n", "llama.cpp", None),
        ("[TensorRT-LLM] TensorRT LLM version: 1.0.0\n", "tensorrt-llm", "1.0.0"),
        ("I0102 10:00:00.1 1 server.cc:681]\n", "triton", None),
        (
            "== NVIDIA Inference Microservice LLM NIM ==\nNIM Version 1.3.3\nvLLM API server version 0.6.3\n",
            "nim",
            "1.3.3",
        ),
        ("2025-01-01 10:00:00,1 - lmdeploy - INFO - x.py:1 - y\n", "lmdeploy", None),
        ("vllm serve: error: unrecognized arguments: --x\n", "vllm", None),
        ("usage: sglang serve\nsglang serve: error: x\n", "sglang", None),
        ('File "/usr/lib/python3/dist-packages/vllm/engine/x.py", line 1\n', "vllm", None),
        ("text_embeddings_router: Starting\n", "tei", None),
    ],
)
def test_recognised_by_a_mark(text: str, name: str, version: str | None) -> None:
    found = log(text)
    assert (found.name, found.version) == (name, version)


@pytest.mark.parametrize(
    "text", ["", "hello", "error: vllm is not installed", "INFO: Uvicorn running on http://0.0.0.0:8000"]
)
def test_a_log_of_something_else(text: str) -> None:
    assert from_log(text) is None


def test_what_a_long_line_quotes_is_no_banner() -> None:
    assert from_log("x" * 500_000 + VLLM.splitlines()[1]) is None


def test_a_banner_counts_behind_much_of_what_came_before() -> None:
    before = "INFO 06-18 07:59:00 fetched another file of the model\n" * 40_000
    found = from_log(before + VLLM)
    assert found is not None
    assert found.version == "0.9.1"
    assert found.settings["port"].value == 8081
    assert found.settings["port"].path == "log line 40003"


def test_a_log_adds_the_version_and_what_follows_from_it() -> None:
    found = read(Launch(image="vllm/vllm-openai:latest", args=("acme/m", "--swap-space", "4"), path="c"))
    assert found is not None
    assert found.version is None
    assert found.problems == ()
    full = enrich(found, LOGO)
    assert full is not None
    assert (full.version, full.version_text) == ("0.32.0", "log banner")
    assert [(item.kind, item.flag, item.certain) for item in full.problems] == [("removed-flag", "--swap-space", True)]
    assert full.value("gpu_memory_utilization") == 0.92
    # what the manifest says stays as it is quoted there, what only the log says is added
    assert full.settings["model"].source == "flag"
    assert full.settings["revision"].source == "log"


def test_a_derived_length_is_no_cap() -> None:
    found = read(Launch(image="vllm/vllm-openai:v0.9.1", args=("--model", "acme/m"), path="c"))
    text = (
        "Initializing a V1 LLM engine (v0.9.1) with config: model='acme/m', max_seq_len=131072, dtype=torch.float16\n"
    )
    full = enrich(found, text)
    assert full is not None
    assert full.explicit("max_model_len") is None
    assert full.value("max_model_len") == 131072
    assert "max_model_len" not in full.config


def test_a_log_of_another_engine_adds_nothing() -> None:
    found = read(Launch(image="kserve/huggingfaceserver:v0.15.2", path="c"))
    assert enrich(found, VLLM) == found


def test_without_an_engine_the_log_alone_tells() -> None:
    assert enrich(None, VLLM) == from_log(VLLM)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("error: invalid argument: --ctx-size=8192\n", "llama.cpp"),
        ('error while handling argument "-ngl": stoi\n\nusage:\n-ngl,  --gpu-layers N\n', "llama.cpp"),
        ("usage: launch_server.py [-h]\nlaunch_server.py: error: unrecognized arguments: --tp_size 2\n", "sglang"),
        ("sglang serve: error: unrecognized arguments: --tp_size 2\n", "sglang"),
        (
            "usage: lmdeploy serve api_server [-h]\nlmdeploy serve api_server: error: unrecognized arguments: -x\n",
            "lmdeploy",
        ),
        ("Usage: trtllm-serve serve [OPTIONS] MODEL\nError: No such option: --tp-size\n", "tensorrt-llm"),
        ("error: unexpected argument '--x' found\n\nUsage: text-generation-launcher [OPTIONS]\n", "tgi"),
        ("Couldn't find '/root/.ollama/id_ed25519'. Generating new private key.\n", "ollama"),
    ],
)
def test_a_refused_command_line_tells_the_engine(text: str, name: str) -> None:
    found = from_log(text)
    assert found is not None
    assert found.name == name


def test_sglang_divides_the_tensor_parallel_group_among_the_ranks_of_attention() -> None:
    copies, shared = (SGLANG.replace("dp_size=1", f"dp_size=4, enable_dp_attention={on}") for on in (False, True))
    sizes = [size.value for text in (copies, shared) if (size := log(text).get("data_parallel_size"))]
    assert sizes == [4, 1]
    assert log(shared).explicit("enable_dp_attention") is not None


#: A container whose command and image say nothing of an engine.
HIDDEN = Launch(image="registry.acme.example/team/brain:1.4", command=("/opt/brain/start.sh",), path="c")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (VLLM, "vllm"),
        (VLLM_OLD, "vllm"),
        (LOGO, "vllm"),
        (SGLANG, "sglang"),
        (TGI, "tgi"),
        (OLLAMA, "ollama"),
        ("2026-11-20T10:00:00.123456789Z " + VLLM.splitlines()[1], "vllm"),
        ('{"level": "INFO", "message": "vLLM API server version 0.11.2"}', "vllm"),
        ("(APIServer pid=1) INFO 11-20 10:00:00 [utils.py:233] vLLM API server version 0.13.0", "vllm"),
        ("srv    load_model: loading model '/models/m.gguf'", "llama.cpp"),
        ("main: server is listening on http://127.0.0.1:8080 - starting the main loop", "llama.cpp"),
        ("main: server is listening on http://0.0.0.0:8080\nmain: starting the main loop...", "llama.cpp"),
        ("== NVIDIA Inference Microservice LLM NIM ==", "nim"),
        ("== NVIDIA Inference Microservice LLM NIM ==\n" + VLLM, "nim"),
        (OLLAMA + "srv    load_model: loading model '/models/blobs/sha256-1'", "ollama"),
        ('I1120 10:00:00.1 1 grpc_server.cc:2558] "Started GRPCInferenceService at 0.0.0.0:8001"', "triton"),
        (
            '2025-01-01T10:00:00.0Z  INFO text_embeddings_router: router/src/main.rs:203: Args { model_id: "a/b" }',
            "tei",
        ),
    ],
)
def test_a_banner_tells_what_a_script_started(text: str, name: str) -> None:
    found = announced(HIDDEN, f"starting the brain\n{text}\n")
    assert found is not None
    assert (found.name, found.argv_known, found.problems) == (name, False, ())


@pytest.mark.parametrize(
    "text",
    [
        'File "/usr/lib/python3/dist-packages/vllm/engine/x.py", line 1',
        'upstream log: "INFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2"',
        "{'log': 'INFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2'}",
        "(LLMServer pid=812, ip=10.0.0.3) INFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2",
        "(ServeReplica:llm:LLMServer pid=9) x\nINFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2",
        "[llama-swap] x\nsrv    load_model: loading model '/models/m.gguf'",
        "x " * 200 + "vLLM API server version 0.9.2",
        "server is listening on http://0.0.0.0:8080",
        "main: server is listening on http://0.0.0.0:3000",
        "Listening on :8080",
        "OLLAMA_HOST: http://ollama:11434\nListening on http://0.0.0.0:3000",
        "connecting to NVIDIA Inference Microservice at http://nim:8000",
        "[pod/vllm-0/vllm] INFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2",
        "vllm-0 vllm INFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2",
        "vllm-1  | INFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2",
        "user: please explain this log: INFO 11-20 10:00:00 [api_server.py:1289] vLLM API server version 0.9.2",
        "I1120 10:00:00.1 1 grpc_server.cc:2558] Started GRPCInferenceService at 0.0.0.0:8001\n" + SGLANG,
    ],
)
def test_what_a_log_quotes_or_passes_on_is_no_banner(text: str) -> None:
    assert announced(HIDDEN, f"{text}\n") is None


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("rayproject/ray:2.41.0", ("/start.sh",)),
        ("acme/vllm-router:1", ()),
        ("acme/brain:1", ("ray", "start", "--head")),
        ("acme/brain:1", ("sh", "-c", "ray start --head; /start.sh")),
        ("acme/brain:1", ("vllm", "bench", "throughput")),
        ("acme/brain:1", ("python3", "-m", "lmcache.server")),
        ("acme/brain:1", ("python3", "/app/benchmark_latency.py")),
        ("curlimages/curl:8", ("curl", "http://vllm")),
    ],
)
def test_what_is_known_to_be_something_else_stays_it(image: str, command: tuple[str, ...]) -> None:
    assert announced(Launch(image=image, command=command, path="c"), VLLM) is None


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("acme/brain:1", ()),
        ("acme/brain:1", ("supervisord", "-n")),
        ("acme/brain:1", ("sh", "-c", "hf download acme/m && exec /opt/run")),
        ("acme/brain:1", ("/app/download-and-run.sh",)),
        ("acme/brain:1", ("python3", "-m", "brain.server", "--port", "8000")),
        ("acme/brain:1", ("sh", "-c", "/start.sh & tail -f /dev/null")),
    ],
)
def test_a_program_of_ones_own_may_start_one(image: str, command: tuple[str, ...]) -> None:
    found = announced(Launch(image=image, command=command, path="c"), VLLM)
    assert found is not None
    assert found.name == "vllm"

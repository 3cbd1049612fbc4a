"""Which engine a container runs and how it is configured: a table of command lines, and the details of a reading."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_llmdoctor.engines import Engine, EnvVar, Launch, Problem, enrich, read
from kubectl_llmdoctor.engines.common import version_of_image
from kubectl_llmdoctor.engines.dialect import Table
from kubectl_llmdoctor.engines.modules import module
from kubectl_llmdoctor.engines.names import OPTIONS, TITLES, meant, option
from kubectl_llmdoctor.engines.version import at_least, of_tag, parse, split_image

TABLE: list[dict[str, Any]] = [
    case
    for file in sorted((Path(__file__).parent / "engines").glob("*.yaml"))
    for case in yaml.safe_load(file.read_text(encoding="utf-8"))
]


def launch(case: dict[str, Any]) -> Launch:
    env = {}
    for name, value in (case.get("env") or {}).items():
        origin = "value"
        if value is None:
            origin = "Secret s/key"
        elif isinstance(value, dict):
            origin, value = f"field {value['field']}", None
        env[name] = EnvVar(name=name, value=value, origin=origin, path=f"spec.containers[c].env[{name}]")
    return Launch(
        image=case.get("image", ""),
        command=tuple(case.get("command") or ()),
        args=tuple(case.get("args") or ()),
        env=env,
        files=case.get("files") or {},
        ports=tuple(case.get("ports") or ()),
        labels=case.get("labels") or {},
        path="spec.containers[c]",
    )


def engine(**case: Any) -> Engine:
    found = read(launch(case))
    assert found is not None
    return found


def problem(found: Engine, kind: str) -> Problem:
    return next(item for item in found.problems if item.kind == kind)


def test_the_table_is_large_enough() -> None:
    assert len(TABLE) >= 380
    assert sum(bool(case.get("awkward")) for case in TABLE) >= 150
    assert len({case["name"] for case in TABLE}) == len(TABLE)
    lines = Counter(case["engine"] for case in TABLE if case["engine"] is not None)
    assert set(lines) == set(TITLES)
    assert all(count >= 8 for count in lines.values()), lines


@pytest.mark.parametrize("case", TABLE, ids=[case["name"] for case in TABLE])
def test_table(case: dict[str, Any]) -> None:
    found = read(launch(case))
    if case["engine"] is None:
        assert found is None
        return
    assert found is not None
    assert found.name == case["engine"]
    assert found.version == case.get("version")
    assert found.config == case["config"]
    problems = [" ".join([item.kind, item.flag] + ["+"] * item.certain) for item in found.problems]
    assert sorted(problems) == sorted(case.get("problems") or [])
    assert found.argv_known is case.get("known", True)
    if "argv" in case:
        assert list(found.argv) == case["argv"]


def test_a_setting_can_be_quoted() -> None:
    found = engine(
        image="vllm/vllm-openai:v0.9.1",
        args=["--model=$(MODEL)", "--max-model-len", "8192"],
        env={"MODEL": "acme/m", "VLLM_USE_V1": "1"},
    )
    model, length, v1 = (found.settings[name] for name in ("model", "max_model_len", "use_v1"))
    assert (model.value, model.source, model.text) == ("acme/m", "flag", "--model=$(MODEL)")
    assert (model.path, model.flag) == ("spec.containers[c].args[0]", "--model")
    assert (length.text, length.path) == ("--max-model-len 8192", "spec.containers[c].args[1]")
    assert (v1.source, v1.text, v1.path) == ("env", "VLLM_USE_V1=1", "spec.containers[c].env[VLLM_USE_V1]")


def test_a_setting_of_a_script_and_of_a_file_can_be_quoted() -> None:
    found = engine(
        image="vllm/vllm-openai:v0.11.0",
        command=["sh", "-c", 'vllm serve "$MODEL" --port ${PORT:-8001} --config /c.yaml'],
        env={"MODEL": "m"},
        files={"/c.yaml": "max-num-seqs: 4\n"},
    )
    port, sequences = found.settings["port"], found.settings["max_num_seqs"]
    assert (port.text, port.path) == ("--port ${PORT:-8001}", "spec.containers[c].command[2]")
    assert (sequences.source, sequences.text, sequences.path) == ("file", "max-num-seqs: 4", "/c.yaml")


def test_defaults_follow_the_version() -> None:
    old = engine(image="vllm/vllm-openai:v0.19.1", args=["m"])
    new = engine(image="vllm/vllm-openai:v0.20.2", args=["m"])
    assert old.value("gpu_memory_utilization") == 0.9
    assert new.value("gpu_memory_utilization") == 0.92
    setting = new.get("gpu_memory_utilization")
    assert setting is not None
    assert (setting.source, setting.text, setting.path) == ("default", "default of vLLM 0.20.2", "")
    assert new.explicit("gpu_memory_utilization") is None
    assert new.value("port") == 8000
    assert new.value("tensor_parallel_size") == 1
    assert new.get("max_model_len") is None
    assert new.get("max_num_seqs") is None
    assert new.value("max_num_seqs", 7) == 7


def test_an_unknown_version_has_only_defaults_that_never_changed() -> None:
    found = engine(image="vllm/vllm-openai:latest", args=["--port", "1"])
    assert found.get("gpu_memory_utilization") is None
    assert found.get("model") is None
    assert found.value("tensor_parallel_size") == 1
    assert found.at_least("0.9") is None


def test_the_model_that_is_served_when_none_is_given() -> None:
    assert engine(image="vllm/vllm-openai:v0.9.1").value("model") == "facebook/opt-125m"
    assert engine(image="vllm/vllm-openai:v0.11.0", args=["acme/m"]).value("model") == "Qwen/Qwen3-0.6B"


def test_what_is_set_to_something_unknown_has_no_default() -> None:
    found = engine(image="vllm/vllm-openai:v0.9.1", args=["--model", "m", "--port", "$(PORT)"], env={"PORT": None})
    assert found.get("port") is None
    assert found.unresolved == ("port",)
    assert found.argv_known
    assert found.value("tensor_parallel_size") == 1


def test_a_hidden_command_line_has_no_defaults() -> None:
    found = engine(image="vllm/vllm-openai:v0.9.1", command=["bash", "/start.sh"])
    assert not found.argv_known
    assert found.defaults == {}


@pytest.mark.parametrize(
    ("image", "host", "port"),
    [
        ("lmsysorg/sglang:latest", "127.0.0.1", 30000),
        ("ghcr.io/huggingface/text-generation-inference:3.3.5", "0.0.0.0", 80),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.0.0", "localhost", 8000),
        ("nvcr.io/nvidia/tritonserver:25.01-py3", "0.0.0.0", 8000),
        ("nvcr.io/nim/meta/llama3-8b-instruct:1.0.3", "0.0.0.0", 8000),
        ("ollama/ollama:0.9.0", "0.0.0.0", 11434),
        ("ghcr.io/ggml-org/llama.cpp:server", "0.0.0.0", 8080),
        ("registry.example.com/team/llama.cpp:server", None, 8080),
        ("openmmlab/lmdeploy:v0.9.0", "0.0.0.0", 23333),
        ("kserve/huggingfaceserver:v0.15.0", "0.0.0.0", 8080),
        ("vllm/vllm-openai:v0.9.1", "0.0.0.0", 8000),
    ],
)
def test_where_an_engine_listens_by_default(image: str, host: str, port: int) -> None:
    found = engine(image=image)
    assert (found.value("host"), found.value("port")) == (host, port)
    assert found.config == {}


def test_a_worker_without_a_front_end_listens_nowhere() -> None:
    found = engine(image="vllm/vllm-openai:v0.12.0", args=["m", "--headless", "-dp", "4"])
    assert found.get("port") is None
    assert found.get("health_path") is None
    assert found.value("tensor_parallel_size") == 1


def test_ollama_outside_of_its_image_listens_on_the_loopback() -> None:
    assert engine(image="ubuntu:24.04", command=["ollama", "serve"]).value("host") == "127.0.0.1"


def test_the_model_of_a_nim_is_its_image() -> None:
    assert engine(image="nvcr.io/nim/meta/llama3-8b-instruct:1.0.3").value("model") == "meta/llama3-8b-instruct"


def test_a_removed_option_names_its_last_release_and_what_took_its_place() -> None:
    found = engine(image="vllm/vllm-openai:v0.19.1", args=["m", "--disable-log-requests"])
    removed = problem(found, "removed-flag")
    assert removed.detail.startswith("--disable-log-requests was removed after vLLM 0.16.0 (")
    assert "--enable-log-requests" in removed.detail
    assert (removed.text, removed.path) == ("--disable-log-requests", "spec.containers[c].args[1]")


def test_a_misspelt_option_names_the_nearest() -> None:
    found = engine(image="vllm/vllm-openai:v0.9.1", args=["--model", "m", "--max-model-length", "1"])
    assert "the nearest is --max-model-len" in problem(found, "unknown-flag").detail


@pytest.mark.parametrize(
    ("image", "command", "meant"),
    [
        ("lmsysorg/sglang:v0.5.9", ["sglang", "serve", "--model-path", "m", "--context-len", "1", "--tp_size", "1"], "--tp-size"),
        ("lmsysorg/sglang:latest", ["sglang", "serve", "--model-path", "m", "--mem-fraction-stat1c", "1"], "--mem-fraction-static"),
        ("openmmlab/lmdeploy:v0.9.0", ["lmdeploy", "serve", "api_server", "m", "--sesion-len", "1"], "--session-len"),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.0.0", ["trtllm-serve", "m", "--max-seq-len", "1"], "--max_seq_len"),
        ("ghcr.io/ggml-org/llama.cpp:server", ["llama-server", "-m", "m", "--ctx-sizes", "1"], "--ctx-size"),
        ("r/tgi:3.3.5", ["text-generation-launcher", "--model-idd", "m"], "--model-id"),
        ("r/tei:1", ["text-embeddings-router", "--model-id", "m", "--max-batch-token", "1"], "--max-batch-tokens"),
    ],
)  # fmt: skip
def test_a_misspelt_option_of_any_engine_names_the_nearest(image: str, command: list[str], meant: str) -> None:
    detail = problem(engine(image=image, command=command), "unknown-flag").detail
    assert detail.endswith(f"the nearest is {meant}")


def test_a_value_outside_the_choices_names_the_nearest() -> None:
    found = engine(image="ghcr.io/huggingface/text-generation-inference:3.3.5", args=["--quantize", "bitsandbytes-nf5"])
    assert problem(found, "bad-value").detail.endswith("the nearest is bitsandbytes-nf4")


@pytest.mark.parametrize("name", ["sglang", "tgi", "tei", "lmdeploy", "llama.cpp", "tensorrt-llm"])
def test_the_tables_of_options_are_sound(name: str) -> None:
    table: Table = module(name).table(name) if name in ("tgi", "tei") else module(name).table()
    assert len(table.keys) == len(table.samples)
    assert list(table.keys) == sorted(table.keys)
    kinds = {"flag", "bool", "optbool", "opt", "truth", "str", "int", "float", "stoi", "human", "json", "list"}
    kinds |= {"append", "onoff", "dead", "two"}
    for flag in table.flags.values():
        assert flag.first <= flag.last
        assert flag.name.startswith("-")
        assert {kind for _, kind in flag.kinds} <= kinds
        assert all(other.lstrip("!").startswith("-") for _, names in flag.aliases for other in names)
    for chosen, steps in table.choices.items():
        assert chosen in table.flags
        assert all(since in table.samples for since, _ in steps)
    assert all(option in table.flags or table.flag(option) for option in table.successors)


def test_the_version_of_a_log_judges_what_the_command_line_said() -> None:
    found = engine(image="registry.example/tgi:latest", args=["--model-id", "m", "--lora-adapters", "a"])
    assert not found.problems
    log = (
        '{"level":"INFO","fields":{"message":"Args { model_id: \\"m\\" }"},"target":"text_generation_launcher"}\n'
        '{"docker_label": "sha-3c02262", "version": "1.4.5"}\n'
    )
    judged = enrich(found, log)
    assert judged is not None
    assert judged.version == "1.4.5"
    assert problem(judged, "unknown-flag").flag == "--lora-adapters"


def test_health_paths() -> None:
    paths = {
        "vllm/vllm-openai:v0.12.0": "/health",
        "lmsysorg/sglang:latest": "/health",
        "nvcr.io/nim/meta/llama3-8b-instruct:1.0.3": "/v1/health/ready",
        "nvcr.io/nvidia/tritonserver:25.01-py3": "/v2/health/ready",
        "ollama/ollama:0.9.0": "/",
    }
    assert {image: engine(image=image).value("health_path") for image in paths} == paths
    # LMDeploy 0.4 served none
    assert engine(image="openmmlab/lmdeploy:v0.4.2").get("health_path") is None


def test_reading_is_quick() -> None:
    launches = [launch(case) for case in TABLE]
    for item in launches:
        read(item)
    start = time.process_time()
    for item in launches:
        read(item)
    assert (time.process_time() - start) / len(launches) < 0.003


def test_a_repeated_serve_says_what_becomes_of_it() -> None:
    found = engine(image="vllm/vllm-openai:v0.12.0", args=["serve", "acme/m"])
    detail = problem(found, "duplicate-serve").detail
    assert "as the model" in detail
    assert "acme/m is refused" in detail


def test_the_configuration_is_in_a_stable_order_and_plain() -> None:
    args = ["--enforce-eager", "--port", "1", "--model", "m", "--served-model-name", "a", "--max-model-len", "2"]
    found = engine(image="vllm/vllm-openai:v0.9.1", args=args)
    assert list(found.config) == ["model", "served_model_name", "port", "max_model_len", "enforce_eager"]
    assert found.config["served_model_name"] == ["a"]


def test_at_least() -> None:
    found = engine(image="vllm/vllm-openai:v0.10.2", args=["--model", "m"])
    assert found.at_least("0.9.2") is True
    assert found.at_least("0.10.2") is True
    assert found.at_least("0.11") is False


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0.9.2", "0.10.0"),
        ("0.11.0rc2", "0.11.0"),
        ("0.6.6", "0.6.6.post1"),
        ("0.9.0", "0.9.0.1"),
        ("b9999", "b10000"),
        ("0.33.0-rc2", "0.33.0"),
        ("0.12.0.dev3", "0.12.0rc1"),
    ],
)
def test_versions_are_ordered(older: str, newer: str) -> None:
    assert at_least(newer, older) is True
    assert at_least(older, newer) is False


def test_versions_that_are_equal() -> None:
    assert parse("0.20") == parse("v0.20.0") == parse("0.20.0+cu128")
    assert parse("latest") is None
    assert parse("0.9.x") is None
    assert at_least(None, "1.0") is None


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v0.9.1", "0.9.1"),
        ("0.11.0-cu128", "0.11.0"),
        ("v0.11.0rc2", "0.11.0rc2"),
        ("0.9.1-a100", "0.9.1"),
        ("v0.6.6.post1", "0.6.6.post1"),
        ("latest", None),
        ("2025-05-05-v1", None),
        ("kimi-k2", None),
        ("20240930_0945_RC00", None),
        ("server-cuda", None),
        ("v1", None),
        ("", None),
    ],
)
def test_what_a_tag_says(tag: str, version: str | None) -> None:
    assert of_tag(tag) == version


@pytest.mark.parametrize(
    ("name", "image", "version"),
    [
        ("vllm", "registry.example/rocm/vllm:rocm7.0.0_vllm_0.11.2_20251210", "0.11.2"),
        ("vllm", "registry.example/ray-2.41.0-py310-cu118-vllm0.7.0:latest", "0.7.0"),
        ("vllm", "registry.example/aibrix/vllm-openai-aibrix-kvcache:v0.10.2-20251022", "0.10.2"),
        ("vllm", "registry.example/aibrix/vllm-openai:lmcache-v0.8.5-20250418", None),
        ("vllm", "registry.example/rhaiis/vllm-cuda-rhel9:3.2.1", None),
        ("vllm", "vllm/vllm-omni:v0.20.0", None),
        ("vllm", "registry.example/xpu-nvidia/vllm-openai:v0.11.2", "0.11.2"),
        ("vllm", "nvidia/vllm-openai:v0.11.2", None),
        ("sglang", "registry.example/mooncake:0.3.7.post2-sglang0.5.5.post3-deepep", "0.5.5.post3"),
        ("sglang", "rocm/sgl-dev:v0.5.3-rocm700-mi35x-20251010", "0.5.3"),
        ("sglang", "nvcr.io/nvidia/sglang:25.10-py3", None),
        ("ollama", "registry.example/serving/ollama-ubi9:0.5.7", "0.5.7"),
        ("ollama", "registry.example/serving/ollama-proxy:0.5.7", None),
        ("tgi", "registry.example/huggingface-pytorch-tgi-inference:2.4.0-tgi3.0.1-gpu-py311-cu124", "3.0.1"),
        ("tgi", "ghcr.io/huggingface/text-generation-inference:3.1.1-intel-cpu", "3.1.1"),
        ("tei", "ghcr.io/huggingface/text-embeddings-inference:89-1.6", "1.6"),
        ("tei", "registry.example/huggingface-text-embeddings-inference-cu122.1-6.ubuntu2204", "1.6"),
        ("tei", "registry.example/huggingface-text-embeddings-inference-cpu.1-5:latest", "1.5"),
        ("tgi", "registry.example/huggingface-text-generation-inference-cu124.2-4.ubuntu2204.py311", "2.4"),
        ("tgi", "registry.example/huggingface-text-generation-inference-tpu.0.2.3.py310", None),
        ("nim", "registry.example/nim/nvidia/llm-nim:1.14", "1.14"),
        ("llama.cpp", "rocm/llama.cpp:llama.cpp-b6652.amd0_rocm7.0.0_ubuntu24.04_server", "b6652"),
        ("tensorrt-llm", "nvcr.io/nvidia/tensorrt-llm/release:1.2.0rc6.post2", "1.2.0rc6.post2"),
        ("triton", "nvcr.io/nvidia/tritonserver:25.01-py3", None),
    ],
)
def test_the_version_that_an_image_states(name: str, image: str, version: str | None) -> None:
    assert version_of_image(name, image, {})[0] == version


def test_image_references() -> None:
    assert split_image("a.example:5000/b/c:1@sha256:0") == ("a.example:5000/b/c", "1", "sha256:0")
    assert split_image("a.example:5000/b/c") == ("a.example:5000/b/c", "", "")
    assert split_image("c") == ("c", "", "")


def test_the_package_is_cheap_to_import() -> None:
    """Engines are modules that only their own containers pay for; nothing is compiled at import."""
    code = (
        "import sys, msgspec, time\n"
        "start = time.process_time()\n"  # other processes do not count
        "import kubectl_llmdoctor.engines\n"
        "spent = time.process_time() - start\n"
        "print(spent)\n"
        "print(*sorted(name for name in sys.modules if name.startswith('kubectl_llmdoctor.engines.')))\n"
    )
    runs = []
    for _ in range(5):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        spent, modules = out.splitlines()
        runs.append(float(spent))
    assert modules.split() == [f"kubectl_llmdoctor.engines.{name}" for name in ("config", "launch", "version")]
    assert min(runs) < 0.005


@pytest.mark.parametrize(("name", "engine"), [(n, e) for n, known in OPTIONS.items() for e in known if e])
def test_an_option_is_one_of_the_engine_of_which_it_is_said(name: str, engine: str) -> None:
    known, option = module(engine), OPTIONS[name][engine]
    if engine in ("nim", "ollama"):  # told by variables alone
        assert option in {variable for *_, variables in known._TABLE for variable in variables.split()}
        return
    table: Table = known._table() if engine == "vllm" else known.table(*[engine] if engine in ("tgi", "tei") else [])

    assert table.flag(option) is not None


def test_an_option_of_another_engine_is_told_from_a_slip_of_the_pen() -> None:
    assert meant("sglang", "--max-model-len") == (("vllm",), "--context-length")
    assert meant("vllm", "--enable-metrics") == (("sglang",), "")
    assert meant("vllm", "--max-model-len") == ((), "")
    assert option("tgi", "tensor_parallel_size") == "--num-shard"
    assert option("huggingfaceserver", "max_model_len") == "--max-model-len"
    assert option("ollama", "gpu_memory_utilization") == "the engine's share of GPU memory"
    assert option(None, "max_model_len") == "--max-model-len, in SGLang --context-length"


def test_the_server_that_speaks_grpc_answers_no_http() -> None:
    found = engine(
        image="vllm/vllm-openai:v0.21.0", command=["python3", "-m", "vllm.entrypoints.grpc_server", "--model=m"]
    )
    assert found.value("port") == 50051
    assert found.get("health_path") is None


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["-hf", "ggml-org/gemma-3-4b-it-GGUF"], "llama.cpp"),
        (["--hf-repo=unsloth/Qwen3-8B-gguf:Q4_K_M", "--host", "0.0.0.0"], "llama.cpp"),
        (["-m", "/models/x.gguf"], "llama.cpp"),
        (["-m", "/models/x.gguf", "-p", "hello"], None),
        (["--hf-repo=meta-llama/Llama-3", "--out=/models"], None),
        (["curl", "-hf", "http://models.example/list"], None),
    ],
)
def test_a_model_in_gguf_tells_llama_cpp_of_an_image_of_ones_own(args: list[str], name: str | None) -> None:
    found = read(launch({"image": "registry.example/tools:1", "args": args}))

    assert (found.name if found else None) == name

"""`fit`: its text and JSON, its exit codes, and one clear line where it cannot answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.program import run

CASES = Path(__file__).parent.parent / "checks" / "cases"
LLAMA = "meta-llama/Llama-3.1-70B-Instruct"


def _fit(*arguments: str) -> dict[str, Any]:
    done = run("fit", *arguments, "-o", "json")
    assert done.returncode in (0, 1), done.stderr
    tree = json.loads(done.stdout)
    assert tree["schema"] == "llmdoctor.fit/v1"
    found: dict[str, Any] = tree["fits"][0]
    assert (done.returncode == 1) == (found["verdict"] == "does-not-fit")
    return found


def test_a_budget_as_text_fits_80_columns_and_names_every_input() -> None:
    done = run("fit", LLAMA, "--gpu", "H100", "--tp", "2", "--engine-version", "0.19.0")
    text = done.stdout.decode()

    assert done.returncode == 1
    assert text.startswith(f"{LLAMA}   does not fit   vLLM 0.19.0   2 x H100 80GB\n")
    assert max(map(len, text.splitlines())) <= 80
    for said in ("70.55 B", "80 layers", "8 KV heads", "65.7 GiB", "160 KiB per token", "20.00 GiB", "WOULD FIT"):
        assert said in text
    bar = next(line.strip() for line in text.splitlines() if "██" in line)
    assert set(bar) <= set("█▒░·")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("deepseek-ai/DeepSeek-R1", "128 heads, latent attention,"),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "64 heads, 8 KV heads,"),  # null in its config, since layers differ
        ("ibm-granite/granite-4.0-h-small", "32 heads, 8 KV heads,"),
        ("deepseek-ai/DeepSeek-V4-Flash", "64 heads, native context"),  # its cache is not known
    ],
)
def test_what_a_model_keeps_for_a_token_is_said_only_where_it_is_known(model: str, said: str) -> None:
    done = run("fit", model, "--gpu", "H100", "--tp", "8")
    assert said in " ".join(done.stdout.decode().split())


def test_json_has_bytes_with_their_sources() -> None:
    found = _fit("Qwen/Qwen3-8B", "--gpu", "L40S", "--max-model-len", "32K", "--engine-version", "0.11.0")

    assert found["verdict"] == "fits"
    assert found["memory"]["context"] == 32768
    assert found["memory"]["bytesPerToken"] == 147456
    assert found["memory"]["weights"]["low"] == pytest.approx(15.26 * 2**30, rel=0.01)
    assert "8.191 B parameters x 2 bytes" in found["memory"]["weights"]["source"]
    assert found["memory"]["working"]["low"] < found["memory"]["working"]["high"]
    assert found["options"] == []


def test_options_change_the_answer() -> None:
    plain = _fit(LLAMA, "--gpu", "H100", "--tp", "2")
    spread = _fit(LLAMA, "--gpu", "H100", "--tp", "4")
    eight = _fit(LLAMA, "--gpu", "H100", "--tp", "2", "--quantization", "fp8")
    four = _fit(LLAMA, "--gpu", "H100", "--tp", "2", "--quantization", "awq")
    cached = _fit("Qwen/Qwen3-8B", "--gpu", "L4", "--kv-dtype", "fp8")

    assert (plain["verdict"], spread["verdict"], eight["verdict"]) == ("does-not-fit", "fits", "fits")
    assert four["memory"]["weights"]["high"] < eight["memory"]["weights"]["low"]
    assert cached["memory"]["bytesPerToken"] == 73728


def test_the_gentlest_way_out_stands_first_and_fits() -> None:
    found = _fit(LLAMA, "--gpu", "H100", "--tp", "2")
    first = found["options"][0]

    assert first["summary"].startswith("cap the context at ")
    assert _fit(LLAMA, "--gpu", "H100", "--tp", "2", "--max-model-len", str(first["context"]))["verdict"] == "fits"


def test_a_configuration_from_a_file_is_enough(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = _fit("acme/own", "--config", str(tmp_path / "config.json"), "--gpu", "24GiB")

    assert found["model"]["parameters"] == pytest.approx(8.03e9, rel=0.001)
    assert found["gpu"]["memory"]["low"] == 24 * 2**30
    del config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    unknown = _fit("acme/own", "--config", str(tmp_path / "config.json"), "--gpu", "24GiB")
    assert (unknown["verdict"], "weights" in unknown["memory"]) == ("unknown", False)
    assert "num_hidden_layers" in unknown["missing"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("acme/own", "--gpu", "L4"), "not in the table of models; give its config.json with --config"),
        ((LLAMA, "--gpu", "A100"), "may be A100 80GB or A100 40GB"),
        ((LLAMA, "--gpu", "Voodoo 2"), "not in the table; give its memory instead"),
        ((LLAMA,), "--gpu is needed"),
        ((LLAMA, "--gpu", "H100", "--engine", "ollama"), "not computed; known are"),
        ((LLAMA, "--gpu", "H100", "--max-model-len", "long"), "not a number of tokens"),
        ((LLAMA, "--gpu", "H100", "--quantization", "rot13"), "how it stores weights is not known"),
        ((LLAMA, "--gpu", "H100", "--config", "/none/config.json"), "No such file"),
        ((LLAMA, "--gpu", "H100", "--config", __file__), "not JSON"),
        ((LLAMA, "--gpu", "H100", "--from", "x.yaml"), "is a model"),
        (("pod/none", "--from", str(CASES / "cuda-oom-weights" / "fires_computed.yaml")), "no such object"),
    ],
    ids=lambda value: value[-1][-20:] if isinstance(value, tuple) else "",
)
def test_bad_input_gets_one_clear_line(arguments: tuple[str, ...], said: str) -> None:
    done = run("fit", *arguments)

    lines = done.stderr.decode().strip().splitlines()
    assert done.returncode in (2, 3)
    assert len(lines) == 1
    assert said in lines[0]
    assert done.stdout == b""


def test_an_object_is_computed_with_its_own_settings_and_gpu() -> None:
    case = str(CASES / "cuda-oom-weights" / "fires_computed.yaml")
    found = _fit("pod/llama-0", "--from", case)

    assert found["verdict"] == "does-not-fit"
    assert found["target"] == "serving/llama-0 containers[vllm]"
    assert found["gpu"]["name"] == "L4"
    assert "nvidia.com/gpu.product=NVIDIA-L4" in found["gpu"]["source"]
    assert found["engine"]["maxModelLen"] == 8192
    changed = _fit("pod/llama-0", "--from", case, "--tp", "4", "--gpu", "L40S")
    assert (changed["verdict"], changed["gpu"]["count"]) == ("fits", 4)


def test_what_the_engine_printed_wins_over_what_is_computed() -> None:
    found = _fit("pod/qwen3-0", "--from", str(CASES / "kv-cache-below-max-len" / "fires_estimated.yaml"))

    assert found["memory"]["cache"]["low"] == found["memory"]["cache"]["high"]
    assert found["memory"]["cache"]["source"].startswith("log line ")
    # the log's own estimate is 33264
    assert found["memory"]["longest"] == [33264, 33264]


def test_a_diagnosis_has_the_same_budget() -> None:
    case = str(CASES / "kv-cache-below-max-len" / "fires_computed.yaml")
    done = run("diagnose", "--from", case, "-o", "json")
    (budget,) = json.loads(done.stdout)["targets"][0]["memory"]
    found = _fit("deployment/llama", "--from", case)

    assert (budget["container"], budget["gpu"], budget["verdict"]) == ("vllm", "H100 SXM", "does-not-fit")
    for name in ("total", "usable", "weights", "working", "cache"):
        assert budget[name] == found["memory"][name]
    assert budget["tokens"] == found["memory"]["tokens"]
    # without the GPU there is no scale for a picture
    unknown = run("diagnose", "--from", str(CASES / "kv-cache-below-max-len" / "fires_estimated.yaml"), "-o", "json")
    assert "memory" not in json.loads(unknown.stdout)["targets"][0]


def test_the_same_input_gives_the_same_bytes() -> None:
    answers = {run("fit", LLAMA, "--gpu", "H100", PYTHONHASHSEED=seed).stdout for seed in ("0", "1", "77")}

    assert len(answers) == 1


def test_a_hostile_name_cannot_reach_the_terminal() -> None:
    name = "\x1b[31m\x1b]0;owned\x07meta-llama/Llama-3.1-8B-Instruct\u202e"
    done = run("fit", name, "--gpu", "H100")

    assert b"\x1b" not in done.stdout + done.stderr

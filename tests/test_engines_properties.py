"""Whatever stands in a manifest or a log: no error, no endless work; what was read can be written and read again."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.engines import Engine, EnvVar, Launch, enrich, from_log, read, vllm
from kubectl_llmdoctor.engines.dialect import Table, dialect
from kubectl_llmdoctor.engines.modules import module
from kubectl_llmdoctor.engines.vllm_flags import FLAGS, SAMPLES, TOOL_PARSERS

ANY = st.text(max_size=60)
SHELL = st.text(alphabet="abA1=$(){}[]\"'`\\;&|<>#!*?@-+:/,.% \n\t\0_", max_size=80)
WORD = st.sampled_from(
    [
        "vllm",
        "serve",
        "python3",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        "--port",
        "--max-model-len",
        "32k",
        "auto",
        "-1",
        "-tp",
        "2",
        "-O3",
        "-q",
        "--config",
        "/c.yaml",
        "--served-model-name",
        "a",
        "--hf-overrides.a.b",
        "1",
        "{}",
        "--no-enable-prefix-caching",
        "--enable-chunked-prefill",
        "true",
        "False",
        "--swap-space",
        "sh",
        "-c",
        "bash",
        "/run.sh",
        "$(A)",
        "${A:-x}",
        '"$@"',
        "exec",
        "if",
        "then",
        "fi",
        "while",
        "do",
        "done",
        "case",
        "esac",
        "in",
        "for",
        "&&",
        "||",
        ";",
        "ollama",
        "llama-server",
        "sglang",
        "trtllm-serve",
        "tritonserver",
        "lmdeploy",
        "api_server",
        "--",
        "--api-key",
        '""',
        "'",
        "2>&1",
        "A=b",
        "A+=(c)",
        "[[",
        "]]",
        "[",
        "]",
    ]
)
PIECE = st.one_of(ANY, SHELL, WORD, st.lists(WORD, max_size=12).map(" ".join))
PIECES = st.lists(PIECE, max_size=8).map(tuple)
IMAGES = st.one_of(
    ANY,
    st.sampled_from(
        [
            "vllm/vllm-openai:v0.9.1",
            "vllm/vllm-openai:v0.12.0",
            "vllm/vllm-openai:latest",
            "lmsysorg/sglang:v0.5.5",
            "ghcr.io/huggingface/text-generation-inference:3.3.5",
            "nvcr.io/nvidia/tensorrt-llm/release:1.0.0",
            "nvcr.io/nvidia/tritonserver:25.01-py3",
            "nvcr.io/nim/meta/llama3-8b-instruct:1.0.3",
            "ollama/ollama:0.9.0",
            "ghcr.io/ggml-org/llama.cpp:server-b10434",
            "openmmlab/lmdeploy:v0.9.0",
            "kserve/huggingfaceserver:v0.15.2",
            "substratusai/vllm:v0.5.4",
        ]
    ),
)
NAMES = st.one_of(
    ANY,
    st.sampled_from(
        ["A", "MODEL_ID", "OLLAMA_HOST", "VLLM_PORT", "NIM_MODEL_NAME", "LLAMA_ARG_CTX_SIZE", "PORT", "MODEL"]
    ),
)
ENV = st.dictionaries(NAMES, st.one_of(st.none(), PIECE), max_size=6)
FILES = st.dictionaries(
    st.sampled_from(["/c.yaml", "/run.sh", "/a"]), st.one_of(PIECE, st.text(max_size=300)), max_size=3
)


def launch(image: str, command: Any, args: Any, env: dict[str, str | None], files: dict[str, str]) -> Launch:
    variables = {
        name: EnvVar(name=name, value=value, origin="value" if value is not None else "Secret s/k", path=f"env[{name}]")
        for name, value in env.items()
    }
    return Launch(image=image, command=command, args=args, env=variables, files=files, path="spec.containers[c]")


def check(found: Engine | None) -> None:
    if found is None:
        return
    assert found.name
    assert found.title
    json.dumps(found.config, allow_nan=False)
    for name, setting in {**found.settings, **found.defaults}.items():
        assert setting.name == name
        assert found.get(name) is not None
    assert all("\0" not in word for word in found.argv)
    for problem in found.problems:
        assert problem.detail
        assert "\0" not in problem.detail + problem.flag
    assert not set(found.unresolved) & set(found.settings)
    assert not set(found.unresolved) & set(found.defaults)


@settings(max_examples=400)
@given(IMAGES, PIECES, PIECES, ENV, FILES)
def test_any_container_can_be_read(image: str, command: Any, args: Any, env: Any, files: Any) -> None:
    check(read(launch(image, command, args, env, files)))


@settings(max_examples=400)
@given(IMAGES, PIECE, PIECES, ENV, FILES)
def test_any_script_can_be_read(image: str, script: str, args: Any, env: Any, files: Any) -> None:
    check(read(launch(image, ("bash", "-c", script), args, env, files)))


@settings(max_examples=300)
@given(st.sampled_from(SAMPLES), PIECES)
def test_any_vllm_command_line_can_be_read(version: str, args: Any) -> None:
    check(read(launch(f"vllm/vllm-openai:v{version}", ("vllm", "serve"), args, {}, {})))


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=80),
            st.sampled_from(
                [
                    "vLLM API server version 0.9.1",
                    "non-default args: {'model': 'm', 'port': 1",
                    "non-default args: {'max_model_len': nan, 'api_key': ['x'], 'a': {(",
                    "Initializing a V1 LLM engine (v0.11.0) with config: model='m', dtype=torch.half, max_seq_len=2",
                    "server_args=ServerArgs(model_path='m', tp_size=2, context_length=None, mem_fraction_static=0.8",
                    'text_generation_launcher: Args { model_id: "m", num_shard: Some( 2, ), port: 80',
                    "args: Namespace(host=None, port=8080, model='m')",
                    'source=routes.go:1 msg="Listening on [::]:11434 (version 0.9.0)"',
                    "llama_model_loader: loading model 'x'",
                ]
            ),
        ),
        max_size=6,
    ).map("\n".join)
)
def test_any_log_can_be_read(text: str) -> None:
    check(from_log(text))
    check(enrich(None, text))
    check(enrich(read(launch("vllm/vllm-openai:latest", (), ("m", "--swap-space", "4"), {}, {})), text))


def _value(kind: str) -> st.SearchStrategy[list[str]]:
    """Values of an option, as words behind it."""
    words = st.text(alphabet="abcXYZ019_-./: é", min_size=1, max_size=12).filter(
        lambda text: text.strip() == text and not text.startswith("-") and text != "None"
    )
    if kind in ("flag", "bool"):
        return st.just([])
    if kind == "optbool":
        return st.sampled_from([["true"], ["false"]])
    if kind == "int":
        return st.integers(1, 10**9).map(lambda number: [str(number)])
    if kind == "human":
        return st.sampled_from([["32k"], ["32K"], ["1.5m"], ["4096"], ["7g"]])
    if kind == "float":
        return st.floats(0.01, 1, allow_nan=False).map(lambda number: [repr(number)])
    if kind == "json":
        leaves = st.one_of(st.integers(-5, 5), st.booleans(), st.text(max_size=5), st.none())
        return st.dictionaries(st.text(max_size=4), leaves, max_size=3).map(lambda value: [json.dumps(value)])
    if kind == "pairs":
        return st.just(["image=2,video=1"])
    if kind == "list":
        return st.lists(words, min_size=1, max_size=3)
    return words.map(lambda word: [word])


@st.composite
def vllm_lines(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    """A version and a valid command line of it: options that it has, in any of the accepted forms, and in the usual one."""
    index = draw(st.integers(1, len(SAMPLES) - 1))
    version = SAMPLES[index]
    speech = vllm.dialect(version)
    rows = [row for row in FLAGS if SAMPLES.index(row[1]) <= index <= SAMPLES.index(row[2])]
    rows = [row for row in rows if row[0] not in ("--config", "--model", "--max-num-seqs", "--max-num-batched-tokens")]
    words, usual = ["acme/model"], ["acme/model"]
    for name, *_ in draw(st.lists(st.sampled_from(rows), max_size=6, unique_by=lambda row: row[0])):
        option = speech.options[name]
        choices = TOOL_PARSERS if name == "--tool-call-parser" else speech.choices(name)
        values = draw(st.sampled_from(choices).map(lambda value: [value]) if choices else _value(option.kind))
        written = plain = name
        if draw(st.booleans()):
            written = "--" + name[2:].replace("-", "_")
        if option.kind == "bool" and draw(st.booleans()):
            written = plain = f"--no-{name[2:]}"
        usual += [plain, *values]
        if len(values) == 1 and option.kind != "list" and draw(st.booleans()):
            words.append(f"{written}={values[0]}")
        else:
            words += [written, *values]
    return version, words, usual


@settings(max_examples=400)
@given(vllm_lines())
def test_all_forms_of_an_option_of_vllm_are_read_alike(line: tuple[str, list[str], list[str]]) -> None:
    version, words, usual = line
    image = f"vllm/vllm-openai:v{version}"
    first = read(launch(image, ("vllm", "serve"), tuple(words), {}, {}))
    assert first is not None
    assert not [problem for problem in first.problems if problem.kind != "conflict"], words
    again = read(launch(image, ("vllm", "serve"), tuple(usual), {}, {}))
    assert again is not None
    assert {name: setting.value for name, setting in again.settings.items()} == {
        name: setting.value for name, setting in first.settings.items()
    }
    assert [problem.kind for problem in again.problems] == [problem.kind for problem in first.problems]
    assert again.config == first.config


# How each engine with a table is started: image for a version, words before the options, words of the model.
STARTS: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "sglang": ("lmsysorg/sglang:v{}", ("python3", "-m", "sglang.launch_server"), ["--model-path", "m"]),
    "tgi": ("ghcr.io/huggingface/text-generation-inference:{}", ("text-generation-launcher",), ["--model-id", "m"]),
    "tei": ("ghcr.io/huggingface/text-embeddings-inference:{}", (), ["--model-id", "m"]),
    "lmdeploy": ("openmmlab/lmdeploy:v{}", ("lmdeploy", "serve", "api_server"), ["m"]),
    "llama.cpp": ("ghcr.io/ggml-org/llama.cpp:server-{}", (), ["-m", "m"]),
    "tensorrt-llm": ("nvcr.io/nvidia/tensorrt-llm/release:{}", ("trtllm-serve",), ["m"]),
}
# What the engines refuse in combination, and what is no option of a server.
APART = {
    "--max-input-length", "--max-input-tokens", "--max-total-tokens", "--max-batch-total-tokens", "--num-shard",
    "--tensor-parallel-size", "--tp-size", "--pipeline-parallel-size", "--pp-size", "--nnodes", "--config", "--model",
    "--model-path", "--model-id", "--env", "--server",
}  # fmt: skip


def table_of(name: str) -> Table:
    table: Table = module(name).table(name) if name in ("tgi", "tei") else module(name).table()
    return table


def _words_of(kind: str) -> st.SearchStrategy[list[str]]:
    if kind == "truth":
        return st.sampled_from([["true"], ["false"]])
    if kind == "stoi":
        return st.integers(1, 10**9).map(lambda number: [str(number)])
    if kind == "onoff":
        return st.sampled_from([[], ["on"], ["off"], ["auto"]])
    if kind == "opt":
        return st.sampled_from([[], ["a"]])
    if kind == "two":
        return st.just(["1", "2"])
    return _value(kind)


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """An engine, a version, and a valid command line of it."""
    name = draw(st.sampled_from(sorted(STARTS)))
    table = table_of(name)
    version = draw(st.sampled_from(table.samples))
    speech = dialect(table, version)
    flags = [flag for flag in table.flags.values() if speech.has(flag) and flag.name not in APART]
    flags = [flag for flag in flags if speech.kind(flag) != "dead"]
    words = list(STARTS[name][2])
    for flag in draw(st.lists(st.sampled_from(flags), max_size=6, unique_by=lambda flag: flag.name)):
        choices = speech.choices(flag.name)
        values = draw(st.sampled_from(choices).map(lambda value: [value]) if choices else _words_of(speech.kind(flag)))
        if len(values) == 1 and speech.kind(flag) != "list" and name != "llama.cpp" and draw(st.booleans()):
            words.append(f"{flag.name}={values[0]}")
        else:
            words += [flag.name, *values]
    return name, version, words


@settings(max_examples=400)
@given(lines())
def test_a_valid_line_of_any_engine_is_read_without_a_problem(line: tuple[str, str, list[str]]) -> None:
    name, version, words = line
    image, program, _ = STARTS[name]
    found = read(launch(image.format(version), program, tuple(words), {}, {}))
    check(found)
    assert found is not None
    assert found.name == name
    assert not found.problems, words
    assert found.value("model") == "m"
    assert bool(found.settings) is bool(words)


@settings(max_examples=300)
@given(st.sampled_from(sorted(STARTS)), st.data())
def test_any_words_of_any_engine_can_be_read(name: str, data: st.DataObject) -> None:
    table = table_of(name)
    version = data.draw(st.sampled_from([*table.samples, "0.0.1", "99.0", "latest"]))
    word = st.one_of(
        PIECE, st.sampled_from(sorted(table.flags)), st.sampled_from(sorted(table.flags)).map("{}=".format)
    )
    words = data.draw(st.lists(word, max_size=10).map(tuple))
    names = st.sampled_from([flag[2:].replace("-", "_").upper() for flag in table.flags] + ["OLLAMA_X", "NUM_SHARD"])
    env = data.draw(st.dictionaries(names, st.one_of(st.none(), PIECE), max_size=4))
    image, program, _ = STARTS[name]
    check(read(launch(image.format(version), program, words, env, {})))


@settings(max_examples=200)
@given(st.text(max_size=300), st.text(max_size=200), ENV)
def test_any_file_of_triton_and_of_ollama_can_be_read(text: str, other: str, env: dict[str, str | None]) -> None:
    files = {"/m/a/config.pbtxt": 'backend: "vllm"\n' + text, "/m/a/1/model.json": other, "/Modelfile": text}
    check(read(launch("nvcr.io/nvidia/tritonserver:25.01-py3", ("tritonserver",), (), env, files)))
    script = "ollama serve & ollama create m -f /Modelfile"
    check(read(launch("ollama/ollama:0.9.0", ("sh", "-c", script), (), env, files)))


def test_hostile_input_takes_no_time() -> None:
    scripts = [
        "A=aaaaaaaaaa\n" + "A=$A$A$A$A\n" * 200 + "vllm serve $A",
        "$(" * 20_000,
        '"$(' * 20_000,
        "if " * 20_000,
        "a() { a; a; }; a\n" * 200,
        "for i in a b c d; do " * 40 + "vllm serve m;" + " done;" * 40,
        "while true; do " * 2_000,
        "(((" * 10_000,
        "[[ " + "a && " * 10_000 + "b ]]",
        "${A:-" * 20_000,
        "eval 'eval \"eval $X\"'\n" * 500,
        "case x in " + "a) b;; " * 20_000 + "esac",
        "ARGS=()\n" + "ARGS+=(--x y)\n" * 3_000 + 'vllm serve "${ARGS[@]}"',
        "cat <<A <<B <<C\n" * 3_000,
        "{" * 50_000,
        "\\\n" * 50_000,
    ]
    start = time.perf_counter()
    for script in scripts:
        check(read(launch("vllm/vllm-openai:v0.9.1", ("sh", "-c", script), (), {"X": "eval $X"}, {})))
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    args = ("--config", "/c.yaml", "--model", "m")
    check(read(launch("vllm/vllm-openai:v0.9.1", (), args, {}, {"/c.yaml": bomb})))
    check(read(launch("vllm/vllm-openai:v0.9.1", (), ("--hf-overrides", "[" * 100_000), {}, {})))
    check(read(launch("vllm/vllm-openai:v0.9.1", (), ("--max-num-seqs", "9" * 100_000), {}, {})))
    check(from_log("non-default args: {" + "{" * 300_000))
    check(from_log("server_args=ServerArgs(" + "a=(" * 100_000))
    assert time.perf_counter() - start < 20

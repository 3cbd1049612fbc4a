"""What a message about settings, a file or a variable asks of what a container states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_llmdoctor.brought import brings, edits, field, gives
from kubectl_llmdoctor.catalog.arrivals import release_for, transformers_for
from kubectl_llmdoctor.catalog.families import having, library, package, tool_parser
from kubectl_llmdoctor.catalog.models import misspelt
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import engines_of
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.script import is_script
from kubectl_llmdoctor.releases import installs
from kubectl_llmdoctor.settling import as_json, nearest, settled
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.stating import added, stated


def _container(*others: dict[str, Any], **spec: Any) -> Container:
    raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "q-0", "namespace": "serving"},
        "spec": {
            "containers": [{"name": "server", "image": "example.org/server:1", **spec}],
            "volumes": [{"name": "conf", "configMap": {"name": "conf"}}],
        },
    }
    cluster = Cluster(Snapshot(objects=(raw, *others)))
    return Pod(next(iter(cluster.all(k8s.Pod, "Pod"))), cluster).containers[0]


_CONF = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "conf", "namespace": "serving"},
    "data": {"a.yaml": "first: 1\nsecond: 2\n"},
}


@pytest.mark.parametrize(
    ("args", "message", "says"),
    [
        (["--a-b", "--c-d"], "--a-b and --c-d are mutually exclusive", "Remove --a-b; --c-d can stay"),
        (["--c-d=1"], "--a-b cannot be used with --c-d", "Remove --c-d=1"),
        (["--enable-x"], "--enable-x requires --enable-y", "Add --enable-y, which --enable-x wants beside it"),
        (["--enable-x"], "--enable-x requires --kind deep.", "Add --kind=deep, which --enable-x wants beside it"),
        (["--enable-x", "--kind", "flat"], "enable_x requires --kind=deep", "Set --kind to deep, as enable_x wants it"),
        (["--kind", "bf16"], "kind must be one of: bfloat16, float16", "Set --kind to bfloat16 (it is bf16), in Pod/q-0"),
        (["--kind=zz"], "Unknown --kind. Valid kinds are: aa, bb", "Set --kind to one of aa, bb"),
        (["--n=3"], "n_size must be >= 5", ""),
        (["--n-size=3"], "n_size must be >= 5", "Set --n-size to 5 (it is 3), in Pod/q-0"),
        (["--n-size", "0"], "n_size: Input should be greater than 0", "Remove --n-size 0: it must be 1 at least"),
        (["--n-size=9", "--m-size=4"], "n_size must be at most m_size", "Set --n-size to 4 (it is 9), in Pod/q-0"),
        (["--tp-size=8", "--ep-size=3"], "tp_size 8 must be divisible by ep_size 3", "Set --ep-size to 2, which divides 8"),
        (["--n-size=32k"], "--n-size: invalid int value: '32k'", "Write --n-size in digits alone: 32768"),
        (["--cudagraph-capture-sizes", "1,2,4"], "--cudagraph-capture-sizes: invalid int value: '1,2,4'", "as a word of its own: 1 2 4"),
        (["--n-size=1,2,4"], "--n-size: invalid int value: '1,2,4'", "Remove --n-size=1,2,4"),
        (["--n-size=8,192"], "--n-size: invalid int value: '8,192'", "Write --n-size in digits alone: 8192"),
        (["--kind=yor"], "--kind: invalid choice: 'yor' (choose from 'auto', 'york')", "Set --kind to york (it is yor),"),
        (["--kind=v9"], "--kind: invalid choice: 'v9' (choose from 'v3', 'v30')", "Set --kind to one of v3, v30"),
        (["--n-size=131072e+00"], "--n-size: invalid int value: '131072e+00'", "Remove --n-size=131072e+00"),
        (["--n-size=1e+06"], "--n-size: invalid int value: '1e+06'", "1000000 (it is 1e+06; Helm"),
        (["--n-size=1.31072e+05"], "--n-size: invalid int value: '1.31072e+05'", "131072 (it is 1.31072e+05), in Pod"),
        (["--n-size=1.5e+00"], "--n-size: invalid int value: '1.5e+00'", "Remove --n-size=1.5e+00"),
        (["--n-size=1e+20"], "--n-size: invalid int value: '1e+20'", "Remove --n-size=1e+20"),
        (["--x-conf", '\'{"a":1}\''], "--x-conf: cannot be converted to JSON", 'plain JSON: {"a":1}'),
        (["--x-conf=a:4,b=up c=True"], "--x-conf: Value a:4 cannot be converted to <function loads at 0x7f>", '{"a":4,"b":"up","c":true}'),
        (["--n-size=a:4"], "--n-size: Value a:4 cannot be converted to <class 'int'>", "Remove --n-size=a:4: it must be a number"),
        (["--enable-expert-parallel"], "Experts are few when expert parallelism is enabled", "Remove --enable-expert-parallel"),
        (["--model=m", "--port=80"], "--model m is not supported on this platform", ""),
        (["--n-size", "-4", "--x"], "n_size: Input should be greater than 0", "Remove --n-size -4"),
        (["--memory", "16Gi"], "--memory: '16Gi' is not a valid integer", "17179869184"),
        (["--old-x", "4"], "--old-x: the argument has been removed. use --new-x", "Write --new-x instead of --old-x"),
        (["--kind=q9"], "--kind: Unsupported type: q9", "Remove --kind=q9"),
        (["--port=80"], "it failed with status 3", ""),
        (["--n-size=3", "--n-size=0"], "n_size: Input should be greater than 0", "Remove --n-size=0"),
        (["--enable-x", "False", "--y"], "--enable-x is not supported", "Remove --enable-x False"),
        (["--async-scheduling", "own/model"], "--async-scheduling is not supported", "Remove --async-scheduling ("),
        (["--model=m", "--c-d=1"], "--model cannot be used with --c-d", "Remove --c-d=1; --model=m can stay"),
        (["--kind=v31"], "kind must be one of: v3, v30", "Set --kind to one of v3, v30"),
        (["--n-size=" + "9" * 5000], "m_size 8 must be divisible by n_size", ""),
        (["--n-size=" + "9" * 18], "999999999998 must be divisible by n_size", ""),
        (["--dp=4", "--enable-expert-parallel"], "data parallel requires expert parallel", "Remove --dp=4"),
        ([], "--a-b requires --c-d", "Add --c-d with its value, which --a-b wants beside it"),
    ],
)  # fmt: skip
def test_settled(args: list[str], message: str, says: str) -> None:
    found = settled(_container(args=args), None, message)
    assert (found[0].summary if found else "") == says or (says and says in found[0].summary)


@pytest.mark.parametrize("args", [["--cuda-graph-bs", "[1, 2]", "--x"], ["--cuda-graph-bs=1 2", "--x"]])
def test_a_list_of_numbers_becomes_words(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_llmdoctor.fixes.patch", lambda pod, summary, operations: operations)
    operations: Any = settled(_container(args=args), None, "--cuda-graph-bs: invalid int value: 'it'")[0]
    words = list(args)
    for operation in operations:
        at = int(operation["path"].rpartition("/")[2])
        words[at : at + (operation["op"] == "replace")] = [operation["value"]]
    assert words == ["--cuda-graph-bs", "1", "2", "--x"]


def test_a_setting_is_found_in_each_form() -> None:
    assert stated(_container(args=["--tp_size", "2"]), "tp-size").text == "--tp_size 2"  # type: ignore[union-attr]
    assert stated(_container(args=["-c", "serve x --tp-size=2 --y"]), "tp_size").value == "2"  # type: ignore[union-attr]
    assert stated(_container(env=[{"name": "A_B", "value": "1"}]), "A_B").text == "A_B=1"  # type: ignore[union-attr]
    assert stated(_container(args=["--tp-size-x=2"]), "tp-size") is None


def test_a_file_comes_from_where_it_is() -> None:
    mounts = [{"name": "conf", "mountPath": "/etc/app"}]
    mounted = _container(_CONF, args=["--config=/etc/app/b.yaml"], volumeMounts=mounts)
    assert "Set --config to /etc/app/a.yaml" in brings(mounted, "/etc/app/b.yaml").summary  # type: ignore[union-attr]
    assert brings(mounted, "/etc/app/a.yaml") is None
    assert "line 2: `second: 2`" in edits(mounted, "error in /etc/app/a.yaml:2", "Correct it").summary  # type: ignore[union-attr]
    assert edits(mounted, "error in /opt/other.yaml:2", "Correct it") is None
    unmounted = _container(_CONF, args=["--config=/srv/a.yaml"])
    assert "Mount the key a.yaml of ConfigMap conf at /srv/a.yaml" in brings(unmounted, "/srv/a.yaml").summary  # type: ignore[union-attr]


def test_a_variable_comes_from_where_it_is() -> None:
    env = [{"name": "URL_DB", "value": "x"}]
    assert "Call the variable URL_DB DB_URL" in gives(_container(env=env), "DB_URL").summary  # type: ignore[union-attr]
    assert gives(_container(env=env), "URL_DB") is None
    alike = _container(env=[{"name": "APP_S3_EVENT_UPLOAD_BUCKET", "value": "x"}])
    assert "Call the variable" not in gives(alike, "APP_S3_MEDIA_UPLOAD_BUCKET").summary  # type: ignore[union-attr]
    config = {**_CONF, "data": {"DB_URL": "x"}}
    other = {**config, "metadata": {"name": "billing", "namespace": "serving"}}
    assert "from one of ConfigMap billing, conf" in gives(_container(config, other), "DB_URL").summary  # type: ignore[union-attr]
    assert "from the key DB_URL of ConfigMap conf" in gives(_container(config), "DB_URL").summary  # type: ignore[union-attr]


def test_what_an_edit_says_of_a_file() -> None:
    mounts = [{"name": "conf", "mountPath": "/etc/app"}]
    secret = {**_CONF, "data": {"a.yaml": "first: 1\n- api_key: abc\n"}, "immutable": True}
    fix = edits(_container(secret, volumeMounts=mounts), "error in /etc/app/a.yaml:2", "Correct it")
    assert fix is not None
    assert "abc" not in fix.summary
    assert "immutable" in fix.summary
    assert not fix.commands
    found = field(_container(_CONF, volumeMounts=mounts), ["--third", "--second"], "Remove {name}")
    assert found is not None
    assert found.summary == "Remove --second in the key a.yaml of ConfigMap conf, line 2: `second: 2`"
    assert brings(_container(args=["--cert=/tls.crt"]), "/tls.crt") is None


def test_what_a_script_installs() -> None:
    assert installs("apt update && pip install -U transformers", "transformers")
    assert not installs("pip install x; echo transformers", "transformers")
    assert not installs("pip install " * 80_000, "transformers")


def test_values_that_are_meant() -> None:
    assert nearest("flashinfre", ["flashinfer", "triton"]) == "flashinfer"
    assert nearest("lmcache", ["nixl", "sglang"]) == ""
    assert as_json("image=2,video=0") == '{"image":2,"video":0}'
    assert as_json("{GPU_A: 1}") == '{"GPU_A":1}'
    assert as_json("plain") == ""
    assert nearest("glm47", ["glm45", "hermes"]) == nearest("minimax_m2", ["minimax"]) == ""
    assert as_json("{'a': None, 'b': True}") == '{"a":null,"b":true}'
    assert as_json("{method:ngram,n:5}") == '{"method":"ngram","n":5}'
    assert as_json("{a: &a [1], b: *a}") == as_json("{mode: NO}") == as_json("{null: 1}") == as_json("{a}") == ""


def test_a_patch_takes_all_of_an_option_and_never_follows_a_script() -> None:
    place = stated(_container(args=["--lora-modules", "a=/x", "b=/y", "--z", "--lora-modules=c=/w"]), "--lora-modules")
    assert place is not None
    assert place.elements == (4, 2, 1, 0)
    scripted = _container(command=["bash", "-euo", "pipefail"], args=["-c", "serve --enable-x"])
    assert "in Pod/q-0" in added(scripted, None, ("--y",), "Add --y").summary
    assert is_script(_container(command=["/bin/bash", "-euc", "./start.sh"]))
    assert is_script(_container(command=["env", "A=b", "B=c", "C=d", "sh", "-c", "serve --x"]))
    assert not is_script(_container(command=["llama-server", "-c", "8192"]))
    assert not is_script(_container(command=["vllm", "serve", "m", "-cc", '{"mode": 3}']))


def test_an_older_release_lacks_an_option_that_is_not_misspelt() -> None:
    engine = SimpleNamespace(name="vllm", explicit=lambda _: None, problems=())
    for args, says in (
        (["--model-impl=x"], "Remove --model-impl=x"),
        (["--max-model-length=8"], "Write --max-model-len"),
    ):
        found = settled(_container(args=args), engine, f"unknown {args[0].partition('=')[0]}")  # type: ignore[arg-type]
        assert says in found[0].summary


def test_what_tables_know() -> None:
    assert transformers_for("qwen3_next") == "4.57.0"
    assert transformers_for("Qwen3NextForCausalLM") == "4.57.0"
    assert transformers_for("qwen99") is None
    assert release_for("vllm", "qwen3_next") == "0.10.2"
    assert tool_parser("Qwen3-8B") == "hermes"
    assert tool_parser("Qwen3-Coder-30B-A3B-Instruct") == "qwen3_coder"
    assert tool_parser("DeepSeek-R1-Distill-Llama-70B") == ""
    assert package("cv2") == "opencv-python-headless"
    assert package("somebodys_module") == ""
    assert having("transformers", "AutoModelForVision2Seq") == "transformers<5"
    assert "libgomp1" in library("/usr/lib/libgomp.so.1")


@pytest.mark.parametrize(
    ("image", "args", "why", "says"),
    [
        (
            "vllm/vllm-openai:v0.11.0",
            ["--model=m", "--gpu-memory-utilisation=0.9"],
            "unknown --gpu-memory-utilisation=0.9",
            "Write --gpu-memory-utilization instead of --gpu-memory-utilisation",
        ),
        (
            "ghcr.io/ggml-org/llama.cpp:server-cuda-b6800",
            ["-m", "/m.gguf", "--parallell", "4"],
            "unknown --parallell",
            "Write --parallel instead of --parallell",
        ),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b6800", ["--flash-atn"], "unknown --flash-atn", "Remove --flash-atn"),
        (
            "acme/router:2",
            ["--policie=x"],
            "unknown --policie Did you mean --policy?",
            "Write --policy instead of --policie",
        ),
        ("acme/router:2", ["--policie=x"], "unknown --policie", "Remove --policie=x"),
    ],
)
def test_what_was_meant_takes_the_place_of_what_a_program_does_not_know(
    image: str, args: list[str], why: str, says: str
) -> None:
    container = _container(image=image, args=args)
    engine = next(iter(engines_of(container.pod, Logs([]))), None)

    assert settled(container, engine, why)[0].summary.startswith(says)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("meta-llama/Llama-3.1-8B-Instrct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Qwen/Qwen3-8B-Instruct", "Qwen/Qwen3-8B"),
        ("google/gemma-3-27b-instruct", "google/gemma-3-27b-it"),
        ("mistral/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
        # somebody's copy, another size, another kind, what is there
        ("acme/Qwen3-8B", ""),
        ("meta-llama-eu/Llama-3.1-8B-Instruct", ""),
        ("qwen-ft/Qwen3-8B", ""),
        ("Qwen/Qwen3-9B", ""),
        ("google/gemma-3-27b-pt", ""),
        ("Qwen/Qwen3-8B", ""),
    ],
)
def test_a_name_with_a_slip_of_the_pen_is_known(name: str, meant: str) -> None:
    assert misspelt(name) == meant

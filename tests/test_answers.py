"""What engines say of themselves on their own ports, read from a snapshot."""

import pytest

from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.snapshot import Json, PortAnswer, Snapshot
from kubectl_llmdoctor.target import subjects

POD: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "namespace": "n"},
    "status": {"phase": "Running"},
}


def engine(image: str, *answers: tuple[str, str], status: int = 200, command: tuple[str, ...] = ()) -> Engine:
    container = {"name": "server", "image": image, "command": list(command)}
    said = tuple(
        PortAnswer(path=path, port=8000, namespace="n", pod="a", container="server", status=status, text=text)
        for path, text in answers
    )
    pod = POD | {"spec": {"containers": [container]}}
    (subject,) = subjects(Cluster(Snapshot(objects=(pod,), answers=said)))
    (found,) = subject.engines(subject.pods[0])
    return found


@pytest.mark.parametrize(
    ("image", "path", "text", "version"),
    [
        ("registry.example/vllm-openai:latest", "/version", '{"version":"0.11.0"}', "0.11.0"),
        ("lmsysorg/sglang:latest", "/server_info", '{"model_path":"x","version":"0.5.5"}', "0.5.5"),
        ("lmsysorg/sglang:latest", "/get_server_info", '{"version":"0.4.9.post1"}', "0.4.9.post1"),
        ("ghcr.io/huggingface/text-generation-inference:latest", "/info", '{"version":"3.3.4"}', "3.3.4"),
        ("ollama/ollama", "/api/version", '{"version":"0.12.0"}', "0.12.0"),
    ],
)
def test_the_version_that_only_the_port_states_counts(image: str, path: str, text: str, version: str) -> None:
    found = engine(image, (path, text))

    assert found.version == version
    assert found.found.version_text == f"GET {path}"


def test_options_are_judged_by_the_version_that_the_port_states() -> None:
    command = ("vllm", "serve", "m", "--swap-space", "4")
    unknown = engine("registry.example/vllm-openai:latest", command=command)
    known = engine("registry.example/vllm-openai:latest", ("/version", '{"version":"0.20.0"}'), command=command)

    assert unknown.problems == ()
    assert [problem.certain for problem in known.problems] == [True]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version":7}', '{"version":"unknown"}', "[" * 100_000])
def test_what_is_no_version_leaves_it_unknown(text: str) -> None:
    assert engine("registry.example/vllm-openai:latest", ("/version", text)).version is None


def test_the_version_of_the_image_is_not_overruled() -> None:
    assert engine("vllm/vllm-openai:v0.10.2", ("/version", '{"version":"0.11.0"}')).version == "0.10.2"


def test_an_answer_that_is_a_refusal_says_nothing() -> None:
    found = engine("ollama/ollama", ("/api/version", '{"version":"0.12.0"}'), ("/api/tags", "{}"), status=401)

    assert found.version is None
    assert found.answers.models is None


@pytest.mark.parametrize(
    ("path", "text", "names"),
    [
        ("/v1/models", '{"data":[{"id":"a"},{"id":"b"},{"id":"a"},{"id":7},"c"]}', ("a", "b")),
        ("/api/tags", '{"models":[{"name":"llama3.1:8b","model":"llama3.1:8b"}]}', ("llama3.1:8b",)),
    ],
)
def test_models_are_listed_by_name_once(path: str, text: str, names: tuple[str, ...]) -> None:
    models = engine("ollama/ollama", (path, text)).answers.models

    assert models is not None
    assert models[0] == names


@pytest.mark.parametrize(
    "text", ['{"data":[]}', '{"data":7}', '{"models":["x"]}', '{"data":[{"id":"' + "x" * 300 + '"}]}']
)
def test_a_list_of_no_known_form_is_none(text: str) -> None:
    assert engine("ollama/ollama", ("/v1/models", text)).answers.models is None

"""An address is written where it stands, and nothing beside it that looks alike."""

from __future__ import annotations

import pytest
from llmdoctor_checks._told_where import moved


@pytest.mark.parametrize(
    ("text", "port", "whole"),
    [
        ("http://llm:8000/v1", 8000, "http://qwen:80/v1"),
        ("http://llm:8000/llm/v1", 8000, "http://qwen:80/llm/v1"),
        ("http://chat-llm:8000/v1,http://llm:8000/v1", 8000, "http://chat-llm:8000/v1,http://qwen:80/v1"),
        ("http://llm.other:8000/v1,http://llm:80001,http://llm:8001", 8000, None),
        ("http://llm/v1", 80, "http://qwen/v1"),
        ("http://user:key@llm:8000", 8000, "http://user:key@qwen:80"),
        ("llm:8000", None, "qwen:80"),
        ("llm", 80, None),  # may be the name of a model
        ("https://llm:8000/v1", 8000, None),  # TLS
    ],
)
def test_an_address_alone_is_written(text: str, port: int | None, whole: str | None) -> None:
    said = moved(text, "llm", port, "qwen:80")

    assert (said[2] if said else None) == whole


def test_another_port_of_the_same_host_keeps_tls() -> None:
    assert moved("https://llm:8000/v1", "llm", 8000, "llm:8443") == ("llm:8000", "llm:8443", "https://llm:8443/v1")

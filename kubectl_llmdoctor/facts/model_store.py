"""The object store that a container takes its model from, as its arguments and variables tell it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Literal

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container

#: An address of a store or of a file in it.
_ADDRESS = expression(r"(?:s3|gs|abfss?|wasbs?|hdfs|webhdfs|hf|oci|https?)://[^\s'\"]{1,400}")
#: Options that name what is fetched; others name servers that are asked for something else (`--otlp-traces-endpoint`).
_NAMES_MODEL = expression(r"(?i)--?(?:[\w-]{0,40}(?:model|uri|src|source|path|repo)[\w-]{0,40}|m|mu|u)$")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "MLFLOW_S3_ENDPOINT_URL", "AWS_S3_ENDPOINT")
_KEYS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET"),
    *("AZURE_STORAGE_ACCESS_KEY", "STORAGE_CONFIG"),
)
#: What a store says to whom it does not let in, and of what it does not have.
_REFUSES = expression(
    r"(?i)AccessDenied|Forbidden|\b40[13]\b|Unauthori[sz]ed|SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken"
    r"|credentials|authenticat|access denied|permission|invalid_grant"
)
_LACKS = expression(
    r"(?i)NoSuch(?:Bucket|Key)|\b404\b|not found|no such (?:bucket|file|key|object)|does not exist|no objects|no model found in"
)

Answer = Literal["store refuses", "store lacks it", "store unclear"]


def answer_of(words: Iterable[str]) -> Answer:
    """What a store answered, by the words that were captured of it."""
    said = " ".join(words)[:2000]
    if _REFUSES.search(said):
        return "store refuses"
    return "store lacks it" if _LACKS.search(said) else "store unclear"


def address(container: Container) -> str:
    """The model's address in its store, by the container's arguments."""
    before = ""
    for word in map(str, container.spec.argv):
        flag, value = (word.partition("=")[::2]) if word.startswith("-") else (before, word)
        found = _ADDRESS.match(value)
        if found and (not flag.startswith("-") or _NAMES_MODEL.match(flag)):
            return found[0]
        before = word
    return ""


def endpoint(container: Container) -> str:
    """Where the store is, where a variable says so."""
    told = (container.env.get(name) for name in _ENDPOINTS)
    return next((variable.value for variable in told if variable and variable.value), "")


def secret(container: Container) -> str:
    """The Secret that the credentials for the store are from."""
    told = (container.env.get(name) for name in _KEYS)
    origins = [variable.origin for variable in told if variable and variable.origin.startswith("Secret ")]
    return origins[0].removeprefix("Secret ").partition("/")[0] if origins else ""


def listing(container: Container) -> str:
    """A command that lists what the store has at the model's address; empty where none is known for its kind."""
    uri, at = address(container), endpoint(container)
    if uri.startswith("s3://"):
        return f"aws s3 ls {shlex.quote(uri)}" + (f" --endpoint-url {shlex.quote(at)}" if at.startswith("http") else "")
    if uri.startswith("gs://"):
        return f"gcloud storage ls {shlex.quote(uri)}"
    return f"curl -sSIL {shlex.quote(uri)}" if uri.startswith("http") else ""

"""Options that several commands share; names and meaning are kubectl's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubectl_llmdoctor.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from kubectl_llmdoctor.gather.cluster import Connection, Query
    from kubectl_llmdoctor.suppression import Rules

F = TypeVar("F", bound=Callable[..., Any])


def _no_files(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names; none is a file, which a hurried reader puts where kubectl has a name. A folder of logs may be called `pods`."""
    from contextlib import suppress
    from pathlib import Path

    for name in names:
        with suppress(OSError):  # what is too long for a name of a file is none
            if ("." in name or name.count("/") > 1) and Path(name).is_file():
                raise UsageError(f"{name!r} is a file: read it with --from")
    return names


names_argument = click.argument("names", nargs=-1, metavar="[NAME | TYPE/NAME ...]", callback=_no_files)

_CONTEXT = click.option("--context", help="Context of the kubeconfig.")
_CONTEXTS = click.option("--context", "contexts", multiple=True, help="Context of the kubeconfig; may be repeated.")
_CONNECTION = (
    click.option("-n", "--namespace", help="Namespace; default: that of the context."),
    _CONTEXT,
    click.option("--cluster", help="Cluster of the kubeconfig."),
    click.option("--user", help="User of the kubeconfig."),
    click.option("--kubeconfig", help="Path of the kubeconfig.", metavar="FILE"),
    click.option("--as", "as_user", help="User to impersonate.", metavar="USER"),
    click.option(
        "--as-group", "as_groups", multiple=True, help="Group to impersonate; may be repeated.", metavar="GROUP"
    ),
    click.option("--token", help="Bearer token for the API server."),
    click.option("-s", "--server", help="Address and port of the API server."),
    click.option("--insecure-skip-tls-verify", is_flag=True, help="Do not verify the API server's certificate."),
    click.option(
        "--request-timeout",
        default="10s",
        show_default=True,
        help="How long to wait for one answer: 10s, 1m, or seconds.",
    ),
)


def _with(options: Sequence[Callable[[F], F]], function: F) -> F:
    """A command with options, in their order."""
    for option in reversed(options):
        function = option(function)
    return function


def connection_options(function: F) -> F:
    """kubectl's connection flags, passed on as one `connection`."""
    import functools

    @functools.wraps(function)
    def wrapper(**given: Any) -> Any:
        return function(connection=_connecting(given), namespace=given.pop("namespace"), **given)

    return _with(_CONNECTION, wrapper)  # type: ignore[return-value]


_SOURCES = (
    click.option(
        "--prometheus",
        default="auto",
        show_default=True,
        envvar="LLMDOCTOR_PROMETHEUS",
        metavar="auto|off|URL",
        help="Prometheus: look for one in the cluster, ask none, or ask this one.",
    ),
    click.option(
        "--prometheus-config",
        envvar="LLMDOCTOR_PROMETHEUS_CONFIG",
        metavar="FILE",
        help="Credentials, TLS and headers for --prometheus URL, as promtool's --http.config.file has them.",
    ),
    click.option(
        "--agent",
        type=click.Choice(["auto", "off"]),
        default="auto",
        show_default=True,
        help="Whether to ask the node agents of the pods' nodes.",
    ),
)
_PORTS = (
    click.option(
        "--ports",
        type=click.Choice(["auto", "off"]),
        default="auto",
        show_default=True,
        help="Ask the engines' own ports through the API server: health, models, and metrics that Prometheus lacks.",
    ),
    click.option(
        "--sample", metavar="DURATION", help="Read the metrics of the ports twice, so far apart: 10s. Default: once."
    ),
    click.option("--smoke", is_flag=True, help="Let each engine generate one token. Nothing else makes one generate."),
)

#: The longest time between two samples.
_LONGEST_SAMPLE = 300.0


def sources_options(*, ports: bool = True) -> Callable[[F], F]:
    """What is asked beside the API: Prometheus, agents, and with `ports` the engines' own ones.

    Passed on as `sources`, which puts it into a query.
    """
    import functools

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(**given: Any) -> Any:
            where, config, agent = (given.pop(name) for name in ("prometheus", "prometheus_config", "agent"))
            of_ports: list[Any] = (
                [given.pop(name) for name in ("ports", "sample", "smoke")] if ports else ["off", "", False]
            )
            asked, sample, smoke = of_ports

            def sources(query: Query) -> Query:
                import dataclasses

                from kubectl_llmdoctor.gather.wanted import WantedPorts, WantedPrometheus

                if asked == "off" and (sample or smoke):
                    raise UsageError("--sample and --smoke ask the engines' ports and cannot be used with --ports off")
                apart = seconds(sample, "--sample") if sample else 0.0
                if apart > _LONGEST_SAMPLE:
                    raise UsageError(f"--sample {sample}: at most {_LONGEST_SAMPLE:g}s")
                return dataclasses.replace(
                    query,
                    agent=agent == "auto",
                    prometheus=WantedPrometheus(where=where, config=config),
                    ports=WantedPorts(metrics=asked == "auto", sample=apart, smoke=smoke),
                )

            return function(sources=sources, **given)

        return _with((*_SOURCES, *(_PORTS if ports else ())), wrapper)  # type: ignore[return-value]

    return decorate


def connections_options(function: F) -> F:
    """The same for several clusters: `--context` may be repeated, or all of them meant; passed on as `connections`."""
    import functools

    @functools.wraps(function)
    def wrapper(contexts: tuple[str, ...], all_contexts: bool, **given: Any) -> Any:
        if contexts and all_contexts:
            raise UsageError("--context and --all-contexts exclude each other")
        first = _connecting(given)

        def connections() -> list[Connection]:
            from dataclasses import replace

            connection, names = first(), contexts
            if all_contexts:
                from kubectl_llmdoctor.gather.kubeconfig import load

                names = tuple(sorted(load(connection.kubeconfig).contexts))
                if not names:
                    raise UsageError("--all-contexts: the kubeconfig has no context")
            return [replace(connection, context=name) for name in dict.fromkeys(names)] or [connection]

        return function(connections=connections, namespace=given.pop("namespace"), **given)

    wrapper = click.option("--all-contexts", is_flag=True, help="Every context of the kubeconfig.")(wrapper)
    for option in reversed(_CONNECTION):
        wrapper = (_CONTEXTS if option is _CONTEXT else option)(wrapper)
    return wrapper  # type: ignore[return-value]


def _connecting(given: dict[str, Any]) -> Callable[..., Connection]:
    """The connection that the flags mean; takes them out, but for the namespace, which commands need, too."""
    names = ("context", "cluster", "user", "kubeconfig", "as_user", "as_groups", "token", "server")
    flags = {name: given.pop(name) for name in names if name in given}
    flags |= {"namespace": given["namespace"], "insecure_skip_tls_verify": given.pop("insecure_skip_tls_verify")}
    request_timeout = seconds(given.pop("request_timeout"))

    def connection(timeout: float = 0.0) -> Connection:
        from kubectl_llmdoctor.gather.cluster import Connection

        return Connection(**flags, request_timeout=request_timeout, timeout=timeout)

    return connection


def output_options(*, fail_on: str) -> Callable[[F], F]:
    """`-o`, `--fail-on` with this default, and `--no-color`."""
    from kubectl_llmdoctor.cli import output

    listed = (
        click.option(
            "--fail-on",
            type=click.Choice(output.FAIL_ON),
            default=fail_on,
            show_default=True,
            help="Exit with 1 when a finding is at least this severe.",
        ),
        click.option("--no-color", is_flag=True, help="No colour."),
        click.option(
            "-o",
            "--output",
            "outputs",
            multiple=True,
            metavar="FORMAT[=FILE]",
            help=f"One of {', '.join(output.FORMATS)}; may be repeated with files.",
        ),
    )

    return partial(_with, listed)


def rules_options(function: F) -> F:
    """`--config` and `--as-of`, passed on as `config` and `as_of`."""
    function = click.option(
        "--as-of",
        metavar="DATE",
        help="The day on which the ends of suppressions are judged: 2026-12-31; default: today.",
    )(function)
    return click.option("--config", metavar="FILE", help="Suppressions and severities.")(function)


def rules(config: str | Path | None, as_of: str | None) -> Rules:
    """What `--config` and `--as-of` say; the one place after gathering that looks at the clock."""
    from pathlib import Path

    from kubectl_llmdoctor.suppression import Rules, is_date

    if as_of is None:
        from datetime import date

        as_of = date.today().isoformat()
    elif not is_date(as_of):
        raise UsageError(f"--as-of {as_of}: not a date such as 2026-12-31")
    if config is None:
        return Rules(as_of=as_of)
    from kubectl_llmdoctor.gather.rules import load

    return Rules(rules=load(Path(config)), as_of=as_of, folder=Path.cwd().as_posix())


def seconds(text: str, option: str = "--request-timeout", *, zero: float = 10.0) -> float:
    """kubectl's duration: `10s`, `1m30s`, `500ms`, or a plain number of seconds; `zero` is what 0 means."""
    import re

    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text) or zero
    parts = re.findall(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise UsageError(f"{option} {text}: not a duration such as 10s or 1m")
    factor = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(n) * factor[u] for n, u in parts) or zero


def progress(text: str) -> None:
    """Say what is being done, on a terminal only; the line is overwritten by the next."""
    import sys

    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}" if text else "\r\x1b[K")
        sys.stderr.flush()

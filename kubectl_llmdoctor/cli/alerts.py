"""`alerts`: rules for Prometheus whose alerts lead to a diagnosis."""

from __future__ import annotations

from typing import Any

import click

from kubectl_llmdoctor.errors import UsageError


@click.command("alerts", short_help="Print alerts that lead to a diagnosis.")
@click.option("-n", "--namespace", help="Only pods of this namespace, and the object in it; default: all.")
@click.option("--engine", "engines", multiple=True, help="Only alerts for this engine; may be repeated.")
@click.option("--name", default="kubectl-llmdoctor", show_default=True, help="Name of the PrometheusRule.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label that your Prometheus selects rules by."
)
@click.option("--runbooks", default="", metavar="URL", help="Where your runbooks have the pages of the checks.")
@click.option("--raw", is_flag=True, help="A plain rules file of Prometheus instead of an object.")
def command(
    namespace: str | None, engines: tuple[str, ...], name: str, labels: tuple[str, ...], runbooks: str, raw: bool
) -> int:
    """Print a PrometheusRule with alerts for queues, KV caches, crashes, pending pods, GPUs and missing metrics.

    Each alert names the command that explains its pod. Nothing is read and nothing is changed:

        kubectl llmdoctor alerts | kubectl apply -n monitoring -f -
    """
    import re

    from kubectl_llmdoctor import alerts

    known = alerts.alerting_engines()
    if unknown := [engine for engine in engines if engine not in known]:
        raise UsageError(f"no alerts for engine {unknown[0]}; there are {', '.join(known)}")
    if namespace is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace):
        raise UsageError(f"{namespace} is no name of a namespace")
    pairs = [label.partition("=") for label in labels]
    if wrong := [label for label, (key, equals, _) in zip(labels, pairs, strict=True) if not key or not equals]:
        raise UsageError(f"--label {wrong[0]}: KEY=VALUE is expected")
    made = alerts.groups(engines, namespace or "", runbooks)
    chosen = {key: value for key, _, value in pairs}
    tree = {"groups": made} if raw else alerts.prometheus_rule(made, name, namespace or "", chosen)
    click.echo(_yaml(tree), nl=False)
    return 0


def _yaml(tree: dict[str, Any]) -> str:
    """YAML as a person writes it: what has several lines as a block."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        pass

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return dumped

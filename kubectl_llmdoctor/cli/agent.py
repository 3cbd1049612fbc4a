"""`agent manifests`: the objects that run the node agent."""

from __future__ import annotations

from typing import Any, cast, get_args

import click

from kubectl_llmdoctor.agent_manifests import IMAGE, NAMESPACE, OPTIONAL, Choice, Part, Profile, manifests, to_yaml
from kubectl_llmdoctor.errors import UsageError


@click.group("agent", short_help="Print the objects that run the node agent.", no_args_is_help=False)
def command() -> None:
    """The node agent: what only a node knows of its GPUs, with the pod behind each."""


@command.command("manifests", short_help="Print DaemonSet, RBAC and NetworkPolicy.")
@click.option(
    "--profile",
    type=click.Choice(get_args(Profile)),
    default="default",
    show_default=True,
    help="minimal reads the driver only; default adds which container has which GPU, by the kubelet's socket.",
)
@click.option(
    "--with", "extra", multiple=True, metavar="PART,...", help=f"Also read: {', '.join(OPTIONAL)}; may be repeated."
)
@click.option("-n", "--namespace", default=NAMESPACE, show_default=True, help="A namespace for the agent alone.")
@click.option("--image", default=IMAGE, show_default=True, help="Image of the agent, best with its digest.")
@click.option(
    "--allow-from",
    multiple=True,
    metavar="CIDR",
    help="Network from which the API server reaches pods; may be repeated. Konnectivity's agents need none.",
)
@click.option(
    "--allow-namespace",
    "allow_namespaces",
    multiple=True,
    metavar="NAME",
    help="Namespace whose pods may ask as well, such as Prometheus'; may be repeated.",
)
@click.option(
    "--runtime-class",
    default="nvidia",
    show_default=True,
    metavar="NAME",
    help="RuntimeClass that shows the driver to the agent; empty where the default runtime does.",
)
@click.option("--all-nodes", is_flag=True, help="Run on every Linux node, not only on those whose labels tell of GPUs.")
def print_manifests(extra: tuple[str, ...], **given: Any) -> int:
    """Print the objects that run the node agent, for kubectl apply -f -. Asks no cluster.

    \b
    kubectl llmdoctor agent manifests | kubectl apply -f -
    kubectl llmdoctor agent manifests --with processes,kernel-log,cgroup
    kubectl llmdoctor agent manifests --profile minimal --allow-from 10.0.0.0/24
    """
    parts = tuple(part for text in extra for part in text.split(",") if part)
    for part in parts:
        if part not in OPTIONAL:
            raise UsageError(f"--with {part}: not one of {', '.join(OPTIONAL)}")
    choice = Choice(extra=tuple(cast("Part", part) for part in parts), **given)
    click.echo(to_yaml(manifests(choice)), nl=False)
    return 0

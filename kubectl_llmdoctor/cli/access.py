"""`access`: what this user may read, and what is lost without the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kubectl_llmdoctor.cli.options import connection_options

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.cluster import Connection


@click.command("access", short_help="Show what you may read.")
@connection_options
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", help="text or json.")
def command(connection: Callable[[], Connection], namespace: str | None, form: str) -> int:
    """Show what you may read in the namespace and the cluster, and what a diagnosis loses without the rest.

    Exits with 0 also when something is missing: a diagnosis then says what it could not see.
    """
    from kubectl_llmdoctor.gather.access import prometheus
    from kubectl_llmdoctor.gather.cluster import access, connect

    cluster = connect(connection())
    rows = [*access(cluster, namespace), prometheus(cluster, namespace)]
    if form == "json":
        import dataclasses

        import msgspec

        tree = [dataclasses.asdict(row) for row in rows]
        click.echo(msgspec.json.format(msgspec.json.encode(tree), indent=2))
        return 0
    said = {True: "yes", False: "NO", None: "unknown"}
    width = max((len(row.resource) for row in rows), default=0)
    for row in rows:
        verbs = ",".join(row.verbs)
        click.echo(f"{said[row.allowed]:8}{row.resource:{width}}  {verbs:10}  {row.needed_for}")
    return 0

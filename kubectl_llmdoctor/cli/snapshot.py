"""`snapshot`: what a diagnosis would read, as one file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kubectl_llmdoctor.cli.options import connection_options, names_argument, progress, sources_options
from kubectl_llmdoctor.errors import UsageError

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.cluster import Connection, Query


@click.command("snapshot", short_help="Save what a diagnosis would read.")
@names_argument
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-l", "--selector", default="", help="Label selector of the pods.")
@connection_options
@sources_options()
@click.option("--from", "source", metavar="PATH", help="Take this instead of a cluster: what `diagnose --from` takes.")
@click.option(
    "--anonymize", is_flag=True, help="Replace names, hosts and addresses, consistently; docs say what is kept."
)
@click.option(
    "-f",
    "--file",
    "path",
    metavar="FILE",
    help="Where to write it; - is standard output. Ends in .json, .yaml, or either with .gz. Default: NAME.llmdoctor.json.gz",
)
def command(
    names: tuple[str, ...],
    all_namespaces: bool,
    selector: str,
    connection: Callable[[], Connection],
    namespace: str | None,
    sources: Callable[[Query], Query],
    source: str | None,
    anonymize: bool,
    path: str | None,
) -> int:
    """Gather what `diagnose` would read and write it to one file, with secrets masked.

    The file is the attachment of a ticket: diagnose --from FILE gives the same report anywhere. With --anonymize it may
    go to strangers, once you have looked through it.
    """
    from kubectl_llmdoctor.gather.files import save
    from kubectl_llmdoctor.report.words import number
    from kubectl_llmdoctor.snapshot import to_json

    if source is not None:
        if selector or all_namespaces:
            raise UsageError("-l and -A ask a cluster and cannot be used with --from")
        from kubectl_llmdoctor.cli.inputs import offline

        snapshot = offline(source, None, names, namespace)
    else:
        from kubectl_llmdoctor.gather.cluster import Query, connect, gather

        try:
            query = sources(Query(names=names, selector=selector, all_namespaces=all_namespaces))
            snapshot = gather(connect(connection()), query, progress=progress)
        finally:
            progress("")
    if anonymize:
        from kubectl_llmdoctor.anonymize import anonymized
        from kubectl_llmdoctor.diagnosis import looked_for
        from kubectl_llmdoctor.packs import installed, texts

        snapshot = anonymized(snapshot, [*looked_for(installed()), *texts()])
    if path == "-":
        sys.stdout.buffer.write(to_json(snapshot))
        return 0
    name = "anonymized" if anonymize else names[0].replace("/", "-") if names else "pods"
    path = path or f"{name}.llmdoctor.json.gz"
    save(snapshot, path)
    missing = f"; {len(snapshot.missing)} sources could not be read" if snapshot.missing else ""
    click.echo(f"{path}: {number(len(snapshot.objects), 'object')}, {number(len(snapshot.logs), 'log')}{missing}")
    return 0

"""`audit`: every workload that serves models, every node with GPUs, and the capacity between them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from kubectl_llmdoctor.cli import output
from kubectl_llmdoctor.cli.leaving import leave
from kubectl_llmdoctor.cli.options import (
    connections_options,
    output_options,
    progress,
    rules,
    rules_options,
    sources_options,
)
from kubectl_llmdoctor.errors import AccessError

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.cluster import Connection, Query
    from kubectl_llmdoctor.report.document import Report
    from kubectl_llmdoctor.snapshot import Snapshot


@click.command("audit", short_help="Judge every LLM workload and GPU node.")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@connections_options
@click.option(
    "--from",
    "source",
    metavar="PATH",
    help="Read this instead of a cluster: a snapshot, a cluster-info dump, a must-gather or a support bundle.",
)
@click.option("--compare", metavar="FILE", help="An earlier report as JSON: what is new, fixed, unchanged.")
@sources_options(ports=False)
@click.option(
    "--print-cronjob", "image", metavar="IMAGE", help="Print manifests that run this every night with that image."
)
@rules_options
@output_options(fail_on="critical")
@click.option("-v", "verbosity", type=int, default=0, metavar="N", help="Log level, to standard error.")
def command(
    all_namespaces: bool,
    connections: Callable[[], list[Connection]],
    namespace: str | None,
    source: str | None,
    compare: str | None,
    sources: Callable[[Query], Query],
    image: str | None,
    config: str | None,
    as_of: str | None,
    fail_on: str,
    no_color: bool,
    outputs: tuple[str, ...],
    verbosity: int,
) -> int:
    """Judge every LLM workload and GPU node of a namespace, or with -A of the cluster, as one report.

    What is down now stands first, then what will break next, then GPU capacity, engine versions, and what could not be
    seen. Each workload has one finding per cause, however many replicas show it.

    \b
    kubectl llmdoctor audit -A
    kubectl llmdoctor audit -n serving -o wide
    kubectl llmdoctor audit -A --context eu --context us
    kubectl llmdoctor audit -A -o json=today.json --compare yesterday.json
    """
    chosen = output.parse_outputs(outputs)
    if image is not None:
        from kubectl_llmdoctor.cli.cronjob import manifests

        click.echo(manifests(image, namespace or "llmdoctor"), nl=False)
        return 0
    known = rules(config, as_of)

    from kubectl_llmdoctor.audit import audit, join
    from kubectl_llmdoctor.gather import baseline
    from kubectl_llmdoctor.packs import installed

    old = baseline.earlier(compare) if compare else None
    if source is not None:
        from kubectl_llmdoctor.cli.inputs import within
        from kubectl_llmdoctor.gather.files import load

        report = _within(audit(within(load(source), namespace), installed(), known), namespace)
    else:
        gc.disable()  # all that is read stays until the end
        from kubectl_llmdoctor.gather.cluster import Query

        parts, wanted = [], sources(Query())
        for context, snapshot in _live(connections(), all_namespaces, wanted, verbosity):
            progress("judging")
            parts.append(audit(snapshot, installed(), known, context=context))
            if context:  # of one cluster nothing but its report is needed beside the next
                del snapshot
                gc.collect()
        report = join(parts)
        progress("")
    if old:
        import msgspec

        report = msgspec.structs.replace(report, comparison=baseline.compare(report, old))
    output.write(report, chosen, color=output.colored(no_color), fleet=True, source=source)
    code = output.exit_code(report, fail_on)
    if source is None:
        leave(code)
    return code


def _live(
    connections: list[Connection], all_namespaces: bool, wanted: Query, verbosity: int
) -> Iterator[tuple[str, Snapshot]]:
    """What each cluster says, and its context where there are several. One that cannot be read costs its part only."""
    from kubectl_llmdoctor.gather import fleet
    from kubectl_llmdoctor.gather.session import connect
    from kubectl_llmdoctor.packs import installed
    from kubectl_llmdoctor.snapshot import Missing, Snapshot

    several, failed = len(connections) > 1, list[AccessError]()
    for connection in connections:
        context = (connection.context or "") if several else ""
        say = _saying(context)
        try:
            cluster = connect(connection, per_second=fleet.PER_SECOND)
            where = "" if all_namespaces else cluster.namespace
            snapshot = fleet.gather(cluster, where, wanted, progress=say, meanwhile=installed)
        except AccessError as error:
            failed.append(error)
            if len(failed) == len(connections):
                raise
            lost = Missing(source="cluster", ref=context, reason=str(error))
            yield context, Snapshot(missing=(lost,))
            continue
        finally:
            progress("")
        if verbosity:
            print(f"{f'{context}: ' * several}{cluster.requests} requests", file=sys.stderr)
        yield context, _named(snapshot, context)
        del snapshot


def _saying(context: str) -> Callable[[str], None]:
    return lambda text: progress(f"{context}: {text}" if context else text)


def _named(snapshot: Snapshot, context: str) -> Snapshot:
    """The snapshot, saying of which cluster something was not read."""
    import msgspec

    if not context:
        return snapshot
    rows = [msgspec.structs.replace(row, ref=f"{context}: {row.ref}".rstrip(": ")) for row in snapshot.missing]
    return msgspec.structs.replace(snapshot, missing=tuple(rows))


def _within(report: Report, namespace: str | None) -> Report:
    import msgspec

    if namespace is None:
        return report
    return msgspec.structs.replace(report, targets=tuple(t for t in report.targets if t.namespace == namespace))

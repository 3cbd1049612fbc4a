"""`diagnose`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kubectl_llmdoctor.cli import output
from kubectl_llmdoctor.cli.options import (
    connection_options,
    metrics_options,
    output_options,
    progress,
    rules,
    rules_options,
)
from kubectl_llmdoctor.errors import AccessError, UsageError

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.cluster import Connection, Query
    from kubectl_llmdoctor.report.document import Report
    from kubectl_llmdoctor.snapshot import Snapshot

_OFFLINE = "Read this instead of a cluster: a snapshot, a manifest file or folder, a cluster-info dump folder, or -."


@click.command("diagnose", short_help="Explain why LLM-serving pods fail.")
@click.argument("names", nargs=-1, metavar="[NAME | TYPE/NAME ...]")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-l", "--selector", default="", help="Label selector of the pods.")
@connection_options
@click.option("--from", "source", metavar="PATH", help=_OFFLINE)
@click.option("--logs", "log", metavar="FILE", help="Read this log alone, without its pod; - is standard input.")
@click.option("--save", metavar="FILE", help="Save what was read as a snapshot, too.")
@click.option("--fix-file", metavar="FILE", help="Write the patches as a kustomize component.")
@click.option(
    "--verify-fix",
    is_flag=True,
    help="Send each patch as a server-side dry run: admission webhooks run, nothing is changed. Needs the right to patch.",
)
@metrics_options
@click.option(
    "--agent",
    type=click.Choice(["auto", "off"]),
    default="auto",
    help="The node agent; this version does not ask it yet.",
)
@rules_options
@output_options(fail_on="critical")
@click.option("-v", "verbosity", type=int, default=0, metavar="N", help="Log level, to standard error.")
def command(
    names: tuple[str, ...],
    all_namespaces: bool,
    selector: str,
    connection: Callable[[], Connection],
    namespace: str | None,
    source: str | None,
    log: str | None,
    save: str | None,
    fix_file: str | None,
    verify_fix: bool,
    metrics: Callable[[Query], Query],
    agent: str,
    config: str | None,
    as_of: str | None,
    fail_on: str,
    no_color: bool,
    outputs: tuple[str, ...],
    verbosity: int,
) -> int:
    """Explain why pods fail: the cause, its evidence, the fix. Without a name, all model servers of the namespace.

    \b
    kubectl llmdoctor diagnose llama-0
    kubectl llmdoctor diagnose deployment/llama -n serving
    kubectl llmdoctor diagnose -l app=llama
    kubectl llmdoctor diagnose --from snapshot.json
    kubectl logs llama-0 -p | kubectl llmdoctor diagnose --logs -
    """
    chosen = output.parse_outputs(outputs)
    known = rules(config, as_of)
    if source is not None or log is not None:
        if verify_fix:
            raise UsageError("--verify-fix asks a cluster and cannot be used with --from or --logs")
        if selector or all_namespaces:
            raise UsageError("-l and -A ask a cluster and cannot be used with --from or --logs")
        if source is not None and log is not None:
            raise UsageError("--logs reads a log alone, without its pod, and cannot be used with --from")
        snapshot = offline(source, log, names, namespace, whole=bool(save))
    else:
        from kubectl_llmdoctor.gather.cluster import Query

        if names and (selector or all_namespaces):
            raise UsageError("names cannot be used together with -l or -A")
        query = metrics(Query(names=names, selector=selector, all_namespaces=all_namespaces))
        snapshot = live(connection(), query, verbosity)
        snapshot = _not_yet(snapshot, ["agent"] if agent != "off" else [])
    if save:
        from kubectl_llmdoctor.gather.files import save as save_snapshot

        save_snapshot(snapshot, save)

    from kubectl_llmdoctor.diagnosis import diagnose
    from kubectl_llmdoctor.packs import installed

    report = diagnose(snapshot, installed(), known)
    if not report.targets:
        _nothing(snapshot)
    if verify_fix:
        report = _verified(report, snapshot, connection())
    if fix_file:
        from kubectl_llmdoctor.report.component import component

        output.save(component(report), fix_file, "--fix-file")
    output.write(report, chosen, color=output.colored(no_color))
    return output.exit_code(report, fail_on)


def _verified(report: Report, snapshot: Snapshot, connection: Connection) -> Report:
    """The report with what a dry run of each patch gave."""
    from functools import partial

    from kubectl_llmdoctor.gather.cluster import connect
    from kubectl_llmdoctor.gather.dryrun import dry_run
    from kubectl_llmdoctor.packs import installed
    from kubectl_llmdoctor.verification import verified

    cluster = connect(connection)
    try:
        return verified(report, snapshot, installed(), partial(dry_run, cluster))
    finally:
        cluster.close()


def _nothing(snapshot: Snapshot) -> None:
    """There is nothing to diagnose: say why. Raises AccessError or UsageError."""
    if snapshot.target:
        ref = "/".join(p for p in (snapshot.target.kind, snapshot.target.namespace, snapshot.target.name) if p)
        raise AccessError(f"{ref} is what the snapshot is about, but it is not in it")
    why = (
        f" ({snapshot.missing[0].ref or snapshot.missing[0].source}: {snapshot.missing[0].reason})"
        if snapshot.missing
        else ""
    )
    raise UsageError(f"the input holds no pod, no workload with a pod template and no log{why}")


def _not_yet(snapshot: Snapshot, sources: list[str]) -> Snapshot:
    """The snapshot, saying that these sources are not read by this version."""
    import msgspec

    from kubectl_llmdoctor.snapshot import Missing

    unread = tuple(Missing(source=source, reason="not read by this version") for source in sources)
    return msgspec.structs.replace(snapshot, missing=snapshot.missing + unread)


def offline(
    source: str | None, log: str | None, names: tuple[str, ...], namespace: str | None, *, whole: bool = False
) -> Snapshot:
    """What the files say; a very long log is reduced to what checks look for unless it is wanted `whole`."""
    from kubectl_llmdoctor.gather import files
    from kubectl_llmdoctor.snapshot import Snapshot

    if log is not None:
        from kubectl_llmdoctor.diagnosis import looked_for
        from kubectl_llmdoctor.packs import installed

        return Snapshot(logs=(files.load_log(log, literals=() if whole else looked_for(installed())),))
    snapshot = files.load(source or "")
    return _choose(snapshot, names, namespace) if names or namespace else snapshot


def _choose(snapshot: Snapshot, names: tuple[str, ...], namespace: str | None) -> Snapshot:
    """Only what was named on the command line, or all pods and workloads of the namespace."""
    import msgspec

    from kubectl_llmdoctor.facts.cluster import Cluster
    from kubectl_llmdoctor.gather.kinds import kind_named
    from kubectl_llmdoctor.snapshot import TargetRef
    from kubectl_llmdoctor.target import subjects

    cluster, refs = Cluster(snapshot), list[TargetRef]()
    if not names:
        refs = [
            TargetRef(kind=s.item.kind, name=s.item.name, namespace=s.item.namespace, api_version=s.item.api_version)
            for s in subjects(Cluster(msgspec.structs.replace(snapshot, target=None, targets=())))
            if s.item and s.item.namespace == namespace
        ]
        if not refs:
            raise AccessError(f"the input holds no pod and no workload in the namespace {namespace}")
    for text in names:
        kind_text, slash, name = text.rpartition("/")
        kind = kind_named(kind_text) if slash else "Pod"
        alike = [i for k in cluster.kinds() if k.partition(".")[0].lower() == kind.lower() for i in cluster.items(k)]
        found = [i for i in alike if i.name == name and namespace in (None, i.namespace)]
        if not found:
            have = ", ".join(f"{i.namespace}/{i.name}" for i in alike) or "none"
            raise AccessError(f"{text}: no such object in the input; {kind}s there: {have[:400]}")
        if len(found) > 1:
            where = ", ".join(i.namespace for i in found)
            raise UsageError(f"{text}: occurs in the namespaces {where}; choose one with -n")
        refs.append(
            TargetRef(kind=found[0].kind, name=name, namespace=found[0].namespace, api_version=found[0].api_version)
        )
    return msgspec.structs.replace(snapshot, target=refs[0], targets=tuple(refs[1:]))


def live(connection: Connection, query: Query, verbosity: int) -> Snapshot:
    from kubectl_llmdoctor.gather.cluster import connect, gather

    try:
        cluster = connect(connection)
        snapshot = gather(cluster, query, progress=progress)
    finally:
        progress("")
    if verbosity:
        print(f"{cluster.requests} requests", file=sys.stderr)
    return snapshot

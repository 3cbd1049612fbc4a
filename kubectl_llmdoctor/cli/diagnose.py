"""`diagnose`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kubectl_llmdoctor.cli import output
from kubectl_llmdoctor.cli.options import (
    connection_options,
    output_options,
    progress,
    rules,
    rules_options,
    seconds,
    sources_options,
)
from kubectl_llmdoctor.errors import AccessError, UsageError

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.cluster import Cluster
    from kubectl_llmdoctor.gather.alertmanager import Alerted
    from kubectl_llmdoctor.gather.cluster import Connection, Query
    from kubectl_llmdoctor.report.document import Report
    from kubectl_llmdoctor.snapshot import Missing, Snapshot, TargetRef

_OFFLINE = "Read this instead of a cluster: a snapshot, a manifest file or folder, a cluster-info dump folder, or -."


@click.command("diagnose", short_help="Explain why LLM-serving pods fail.")
@click.argument("names", nargs=-1, metavar="[NAME | TYPE/NAME ...]")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-l", "--selector", default="", help="Label selector of the pods.")
@click.option(
    "--alert",
    metavar="FILE",
    help="Explain the pods that this alert of Alertmanager names (its webhook payload, or -).",
)
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
@sources_options()
@click.option("--timeout", metavar="DURATION", help="How long all of it may take: 30s, 10m. What was read is judged.")
@click.option("--watch", is_flag=True, help="Look again until the pods are ready and nothing reaches --fail-on.")
@click.option(
    "--interval", metavar="DURATION", default="10s", show_default=True, help="Time between two looks of --watch."
)
@rules_options
@output_options(fail_on="critical")
@click.option("-v", "verbosity", type=int, default=0, metavar="N", help="Log level, to standard error.")
def command(
    names: tuple[str, ...],
    all_namespaces: bool,
    selector: str,
    alert: str | None,
    connection: Callable[..., Connection],
    namespace: str | None,
    source: str | None,
    log: str | None,
    save: str | None,
    fix_file: str | None,
    verify_fix: bool,
    sources: Callable[[Query], Query],
    timeout: str | None,
    watch: bool,
    interval: str,
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
    kubectl llmdoctor diagnose --alert payload.json -o json
    kubectl llmdoctor diagnose deployment/llama --watch --timeout 10m
    kubectl llmdoctor diagnose --from snapshot.json
    kubectl logs llama-0 -p | kubectl llmdoctor diagnose --logs -
    """
    chosen = output.parse_outputs(outputs)
    known = rules(config, as_of)
    alerted = None
    if alert is not None:
        if names or selector or all_namespaces or log is not None:
            raise UsageError("--alert names the pods itself and cannot be used with a name, -l, -A or --logs")
        if alert == "-" == source:
            raise UsageError("--alert and --from cannot both be standard input")
        from kubectl_llmdoctor.gather import alertmanager

        alerted = alertmanager.read(alert)
        if not (alerted.objects or alerted.nodes):
            print(f"nothing to explain: all {alerted.alerts} alerts are resolved", file=sys.stderr)
            return 0
    if source is not None or log is not None:
        of_a_cluster = {
            "--verify-fix": verify_fix,
            "-l": selector,
            "-A": all_namespaces,
            "--watch": watch,
            "--timeout": timeout,
        }
        for option, given in of_a_cluster.items():
            if given:
                raise UsageError(f"{option} asks a cluster and cannot be used with --from or --logs")
        if source is not None and log is not None:
            raise UsageError("--logs reads a log alone, without its pod, and cannot be used with --from")
    elif names and (selector or all_namespaces):
        raise UsageError("names cannot be used together with -l or -A")
    if watch and fail_on == "never":
        raise UsageError("--watch ends when nothing reaches --fail-on, so that cannot be never")
    pause, bound = seconds(interval, "--interval", zero=1.0), seconds(timeout or "0", "--timeout", zero=0.0)

    def read(left: float) -> Snapshot:
        """What there is now, read within so many seconds; 0 means no bound."""
        if source is not None or log is not None:
            snapshot = offline(source, log, names, namespace, alerted, whole=bool(save))
        else:
            from kubectl_llmdoctor.gather.cluster import Query

            query = Query(names=names, selector=selector, all_namespaces=all_namespaces)
            if alerted is not None:
                query = Query(objects=alerted.objects, nodes=alerted.nodes)
            snapshot = live(connection(timeout=left), sources(query), verbosity)
        if alerted is not None:
            snapshot = _and_missing(snapshot, alerted.passed_over)
        if save:
            from kubectl_llmdoctor.gather.files import save as save_snapshot

            save_snapshot(snapshot, save)
        return snapshot

    def judge(snapshot: Snapshot) -> Report:
        from kubectl_llmdoctor.diagnosis import diagnose
        from kubectl_llmdoctor.packs import installed

        report = diagnose(snapshot, installed(), known)
        if not report.targets:
            _nothing(snapshot)
        return report

    def write(report: Report, snapshot: Snapshot) -> None:
        if verify_fix:
            report = _verified(report, snapshot, connection())
        if fix_file:
            from kubectl_llmdoctor.report.component import component

            output.save(component(report), fix_file, "--fix-file", make_folder=True)
        output.write(report, chosen, color=output.colored(no_color))

    if watch:
        from kubectl_llmdoctor.cli.watching import until_healthy

        return until_healthy(read, judge, write, fail_on=fail_on, pause=pause, bound=bound)
    snapshot = read(bound)
    report = judge(snapshot)
    write(report, snapshot)
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


def _and_missing(snapshot: Snapshot, missing: tuple[Missing, ...]) -> Snapshot:
    import msgspec

    return msgspec.structs.replace(snapshot, missing=snapshot.missing + missing)


def offline(
    source: str | None,
    log: str | None,
    names: tuple[str, ...],
    namespace: str | None,
    alerted: Alerted | None = None,
    *,
    whole: bool = False,
) -> Snapshot:
    """What the files say; a very long log is reduced to what checks look for unless it is wanted `whole`."""
    from kubectl_llmdoctor.gather import files
    from kubectl_llmdoctor.snapshot import Snapshot

    if log is not None:
        from kubectl_llmdoctor.diagnosis import looked_for
        from kubectl_llmdoctor.packs import installed

        return Snapshot(logs=(files.load_log(log, literals=() if whole else looked_for(installed())),))
    snapshot = files.load(source or "")
    if alerted is not None:
        named = [(f"{ref.kind}/{ref.name}", ref.namespace or namespace) for ref in alerted.objects]
        return _choose(snapshot, named, namespace, alerted.nodes)
    return _choose(snapshot, [(name, namespace) for name in names], namespace) if names or namespace else snapshot


def _choose(
    snapshot: Snapshot, names: list[tuple[str, str | None]], namespace: str | None, nodes: tuple[str, ...] = ()
) -> Snapshot:
    """Only what was named with its namespace, and the pods of nodes; else all pods and workloads of the namespace."""
    import msgspec

    from kubectl_llmdoctor.facts.cluster import Cluster
    from kubectl_llmdoctor.gather.kinds import kind_named
    from kubectl_llmdoctor.snapshot import TargetRef
    from kubectl_llmdoctor.target import subjects

    cluster, refs = Cluster(snapshot), list[TargetRef]()
    if not names and not nodes:
        refs = [
            TargetRef(kind=s.item.kind, name=s.item.name, namespace=s.item.namespace, api_version=s.item.api_version)
            for s in subjects(Cluster(msgspec.structs.replace(snapshot, target=None, targets=())))
            if s.item and s.item.namespace == namespace
        ]
        if not refs:
            raise AccessError(f"the input holds no pod and no workload in the namespace {namespace}")
    for text, where in names:
        kind_text, slash, name = text.rpartition("/")
        kind = kind_named(kind_text) if slash else "Pod"
        alike = [i for k in cluster.kinds() if k.partition(".")[0].lower() == kind.lower() for i in cluster.items(k)]
        found = [i for i in alike if i.name == name and where in (None, i.namespace)]
        if not found:
            have = ", ".join(f"{i.namespace}/{i.name}" for i in alike) or "none"
            raise AccessError(f"{text}: no such object in the input; {kind}s there: {have[:400]}")
        if len(found) > 1:
            several = ", ".join(i.namespace for i in found)
            raise UsageError(f"{text}: occurs in the namespaces {several}; choose one with -n")
        refs.append(
            TargetRef(kind=found[0].kind, name=name, namespace=found[0].namespace, api_version=found[0].api_version)
        )
    for node in nodes:
        refs += _on_node(cluster, node)
    refs = list(dict.fromkeys(refs))
    return msgspec.structs.replace(snapshot, target=refs[0], targets=tuple(refs[1:]))


def _on_node(cluster: Cluster, place: str) -> list[TargetRef]:
    """The pods on the node of this name or address. Raises AccessError when there are none."""
    from kubectl_llmdoctor.facts.workload import dig
    from kubectl_llmdoctor.snapshot import TargetRef

    names = {place} | {
        node.name
        for node in cluster.items("Node")
        if any(one.get("address") == place for one in dig(node.raw, "status.addresses") or ())
    }
    pods = [i for i in cluster.items("Pod") if dig(i.raw, "spec.nodeName") in names]
    if not pods:
        raise AccessError(f"the input holds no pod on a node of the name or address {place}")
    return [TargetRef(kind="Pod", name=i.name, namespace=i.namespace, api_version="v1") for i in pods]


def live(connection: Connection, query: Query, verbosity: int) -> Snapshot:
    from kubectl_llmdoctor.gather.cluster import connect, gather

    cluster = connect(connection)
    try:
        snapshot = gather(cluster, query, progress=progress)
    finally:
        cluster.close()
        progress("")
    if verbosity:
        print(f"{cluster.requests} requests", file=sys.stderr)
    return snapshot

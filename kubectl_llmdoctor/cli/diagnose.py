"""`diagnose`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from kubectl_llmdoctor.cli import inputs, output
from kubectl_llmdoctor.cli.options import (
    connection_options,
    names_argument,
    output_options,
    rules,
    rules_options,
    seconds,
    sources_options,
)
from kubectl_llmdoctor.errors import AccessError, UsageError

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.alertmanager import Alerted
    from kubectl_llmdoctor.gather.cluster import Connection, Query
    from kubectl_llmdoctor.report.document import Report
    from kubectl_llmdoctor.snapshot import Missing, Snapshot

_OFFLINE = (
    "Read this instead of a cluster: a snapshot, a manifest file or folder, a cluster-info dump, a must-gather, a support"
    " bundle, or -."
)
#: Options, with the names of their parameters, that make no sense without one.
_OF_A_CLUSTER = (
    ("--verify-fix", "verify_fix"),
    ("-l", "selector"),
    ("-A", "all_namespaces"),
    ("--watch", "watch"),
    ("--timeout", "timeout"),
)


@click.command("diagnose", short_help="Explain why LLM-serving pods fail.")
@names_argument
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
    _refuse_contradictions(click.get_current_context().params)
    alerted = _alerted(alert)
    if alerted is not None and not (alerted.objects or alerted.nodes):
        print(f"nothing to explain: all {alerted.alerts} alerts are resolved", file=sys.stderr)
        return 0
    pause, bound = seconds(interval, "--interval", zero=1.0), seconds(timeout or "0", "--timeout", zero=0.0)

    def read(left: float) -> Snapshot:
        """What there is now, read within so many seconds; 0 means no bound."""
        if source is not None or log is not None:
            snapshot = inputs.offline(source, log, names, namespace, alerted, whole=bool(save))
        else:
            from kubectl_llmdoctor.gather.cluster import Query

            query = Query(names=names, selector=selector, all_namespaces=all_namespaces)
            if alerted is not None:
                query = Query(objects=alerted.objects, nodes=alerted.nodes)
            snapshot = inputs.live(connection(timeout=left), sources(query), verbosity, _ready_to_judge())
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
            from kubectl_llmdoctor.report.component import component, has_patches

            output.save(component(report), fix_file, "--fix-file", make_folder=True)
            if not has_patches(report):
                print(f"--fix-file: no fix is a patch, and {fix_file} changes nothing", file=sys.stderr)
        output.write(report, chosen, color=output.colored(no_color))

    if watch:
        from kubectl_llmdoctor.cli.watching import until_healthy

        return until_healthy(read, judge, write, fail_on=fail_on, pause=pause, bound=bound)
    snapshot = read(bound)
    report = judge(snapshot)
    write(report, snapshot)
    return output.exit_code(report, fail_on)


def _ready_to_judge() -> Iterator[object]:
    """Loads what judges a snapshot, piece by piece: a fifth of the run, and over a network the server takes as long."""
    import kubectl_llmdoctor.diagnosis  # noqa: F401
    from kubectl_llmdoctor.packs import loaded

    yield from loaded()


def _refuse_contradictions(given: Mapping[str, Any]) -> None:
    """Raises UsageError for options, by the names of their parameters, that cannot be used together."""
    several = given["selector"] or given["all_namespaces"]
    offline = [option for option, name in (("--from", "source"), ("--logs", "log")) if given[name] is not None]
    if given["alert"] is not None:
        if given["names"] or several or given["log"] is not None:
            raise UsageError("--alert names the pods itself and cannot be used with a name, -l, -A or --logs")
        if given["alert"] == "-" == given["source"]:
            raise UsageError("--alert and --from cannot both be standard input")
    if offline:
        for option, name in _OF_A_CLUSTER:
            if given[name]:
                raise UsageError(f"{option} asks a cluster and cannot be used with --from or --logs")
    if len(offline) > 1:
        raise UsageError("--logs reads a log alone, without its pod, and cannot be used with --from")
    if given["names"] and several:
        raise UsageError("names cannot be used together with -l or -A")
    if given["watch"] and given["fail_on"] == "never":
        raise UsageError("--watch ends when nothing reaches --fail-on, so that cannot be never")


def _alerted(alert: str | None) -> Alerted | None:
    """What an alert names, if there is one."""
    if alert is None:
        return None
    from kubectl_llmdoctor.gather import alertmanager

    return alertmanager.read(alert)


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

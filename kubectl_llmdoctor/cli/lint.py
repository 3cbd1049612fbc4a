"""`lint`: manifests only, for CI."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from kubectl_llmdoctor.cli import output
from kubectl_llmdoctor.cli.options import output_options, rules, rules_options


@click.command("lint", short_help="Check manifests before they are applied.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@rules_options
@click.option("--baseline", metavar="FILE", help="An earlier report (-o json): only what is new since then counts.")
@output_options(fail_on="warning")
def command(
    paths: tuple[str, ...],
    config: str | None,
    as_of: str | None,
    baseline: str | None,
    fail_on: str,
    no_color: bool,
    outputs: tuple[str, ...],
) -> int:
    """Say what will go wrong with the model servers of manifests: files, folders, or - for standard input.

    A risk is said only with a mechanism that applies to this engine, version and GPU count. Objects of operators
    (InferenceService, RayService, NIMService ...) are read as their operator reads them. What is no manifest is named
    and passed over. Templates and overlays are rendered first:

    \b
    helm template my-release my-chart | kubectl llmdoctor lint -
    kubectl kustomize overlays/prod | kubectl llmdoctor lint -

    A finding is suppressed, with a reason, by an annotation of the object or by .llmdoctor.yaml, which is looked for in
    this folder and above it within the repository:

    \b
    metadata:
      annotations:
        llmdoctor.io/ignore: "shm-too-small: measured, 40 MiB are used until 2026-12-31"
    """
    chosen = output.parse_outputs(outputs)
    gc.disable()  # one pass over thousands of objects that all stay alive: collecting costs half of the time
    from kubectl_llmdoctor.gather.rules import find

    known_rules = rules(config or find(Path.cwd()), as_of)
    old = None
    if baseline is not None:
        from kubectl_llmdoctor.gather import baseline as earlier

        old = earlier.load(baseline)
    from kubectl_llmdoctor.gather.files import load_manifests

    texts: dict[str, str] = {}
    snapshot = load_manifests(paths, texts=texts)

    from kubectl_llmdoctor.diagnosis import diagnose
    from kubectl_llmdoctor.gather.offline.lines import placing
    from kubectl_llmdoctor.packs import installed

    report = diagnose(snapshot, installed(), known_rules, finish=placing(texts))
    if old is not None:
        report = earlier.without(report, old)
    output.write(report, chosen, color=output.colored(no_color))
    return output.exit_code(report, fail_on)

"""`lint`: manifests only, for CI."""

from __future__ import annotations

import click

from kubectl_llmdoctor.cli import output
from kubectl_llmdoctor.cli.options import output_options


@click.command("lint", short_help="Check manifests before they are applied.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@output_options(fail_on="warning")
def command(paths: tuple[str, ...], fail_on: str, no_color: bool, outputs: tuple[str, ...]) -> int:
    """Say what will go wrong with the model servers of manifests: files, folders, or - for standard input.

    A risk is said only with a mechanism that applies to this engine, version and GPU count. Objects of operators
    (InferenceService, RayService, NIMService ...) are read as their operator reads them. What is no manifest is named
    and passed over. Templates and overlays are rendered first:

    \b
    helm template my-release my-chart | kubectl llmdoctor lint -
    kubectl kustomize overlays/prod | kubectl llmdoctor lint -
    """
    chosen = output.parse_outputs(outputs)
    from kubectl_llmdoctor.gather.files import load_manifests

    snapshot = load_manifests(paths)

    from kubectl_llmdoctor.diagnosis import diagnose
    from kubectl_llmdoctor.packs import installed

    report = diagnose(snapshot, installed())
    output.write(report, chosen, color=output.colored(no_color))
    return output.exit_code(report, fail_on)

"""`explain`: the page of a check, offline."""

from __future__ import annotations

import click

from kubectl_llmdoctor.errors import UsageError


@click.command("explain", short_help="Show the page of a check.")
@click.argument("id", required=False)
def command(id: str | None) -> int:  # the field's term
    """Show the page of the check ID; without ID, list all checks."""
    from kubectl_llmdoctor.packs import installed

    checks = {check.id: check for check in installed()}
    if id is None:
        families: dict[str, list[str]] = {}
        for check in checks.values():
            families.setdefault(check.family, []).append(f"  {check.id:32} {check.title}")
        blocks = [f"{family.replace('_', ' ')}\n" + "\n".join(lines) for family, lines in sorted(families.items())]
        click.echo("\n\n".join(blocks))
        return 0
    if id not in checks:
        import difflib

        near = difflib.get_close_matches(id.lower(), checks, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"no check is called {id}{hint} (explain without an id lists all)")
    check = checks[id]
    click.echo(f"{check.id}   ({check.family.replace('_', ' ')}, since {check.since})\n\n{check.doc}")
    return 0

"""The command line: one file per command, loaded when it is called; sets the exit code and nothing else."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from kubectl_llmdoctor import __version__
from kubectl_llmdoctor.cli.leaving import leave
from kubectl_llmdoctor.errors import LlmdoctorError

#: Commands in the order of the help text, each with its line there; the module is cli.<name>.
COMMANDS = {
    "diagnose": "Explain why LLM-serving pods are Pending, crashing, out of memory or slow.",
    "audit": "Judge every LLM workload and GPU node of a namespace or cluster.",
    "lint": "Check manifests before they are applied.",
    "fit": "Compute what fits into a GPU: weights, KV cache, the longest request.",
    "snapshot": "Save what a diagnosis would read to one file.",
    "explain": "Show the page of a check, or list all checks.",
    "alerts": "Print alerts for Prometheus that lead to a diagnosis.",
    "access": "Show what you may read, and what is lost without the rest.",
    "agent": "Print the objects that run the node agent.",
}


#: The disk that standard output leads to is full; whoever writes a file that an option names says so by itself.
_FULL = (errno.ENOSPC, errno.EDQUOT)

#: What a completion script calls; no person does.
_COMPLETE = "__complete"


class _Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS and cmd_name != _COMPLETE:
            return None
        module = cmd_name.lstrip("_")
        command: click.Command = importlib.import_module(f"kubectl_llmdoctor.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; a word that is no command is taken for a slip of the pen, else for the pod that is meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"To explain a pod: diagnose {args[0]}"
            raise click.UsageError(f"{error.message} {hint}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="kubectl-llmdoctor %(version)s")
def cli() -> None:
    """Explain why a private LLM-serving pod is failing, slow, or about to be.

    Deterministic rules over pod specs, logs, events and nodes; nothing leaves the cluster and nothing is changed in it.
    Works offline on a saved snapshot, a manifest or a log: diagnose --from FILE, diagnose --logs FILE.
    """


def main(argv: list[str] | None = None) -> None:
    """Run the program and exit: 0 fine, 1 findings, 2 wrong usage, 3 could not look."""
    try:
        code = cli.main(args=argv, prog_name=_program(), standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)  # a page, which one line could not hold
        code = 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        code = _fail(f"{error.format_message()}{hint}", 2)
    except LlmdoctorError as error:
        code = _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 # or the interpreter complains at exit
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # the last resort: a person sees one line, not a traceback
        if os.environ.get("LLMDOCTOR_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in _FULL and not error.filename:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 # what is left would fail once more at the end
            code = _fail(f"standard output: {error.strerror}", 3)
        else:
            text = f"internal error: {type(error).__name__}: {error}; please report it (LLMDOCTOR_DEBUG=1 shows where)"
            code = _fail(text, 3)
    status = code if isinstance(code, int) else 0
    if argv is None:
        leave(status)
    sys.exit(status)


def _program() -> str:
    """What the user typed: as a kubectl plugin it is two words."""
    return "kubectl llmdoctor" if os.path.basename(sys.argv[0]).startswith("kubectl") else "kubectl-llmdoctor"  # noqa: PTH119


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    safe = "".join(c if c.isprintable() else "?" for c in line)
    print(f"error: {safe}", file=sys.stderr)
    return code

"""The command `concept-depth`: commands, and what becomes of errors.

Results go to standard output, progress and errors to standard error. Exit codes: 0 for any measured result, 2 for
what the user can mend (one sentence), 3 when part of a sweep failed, 1 for a bug of ours (with traceback).
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from concept_depth import __version__
from concept_depth.cli import inspect, results, run
from concept_depth.cli.wording import as_typed
from concept_depth.errors import InputError

_INTERRUPTED = 130  # what a shell makes of Ctrl-C
_TERMINATED = 143  # and of SIGTERM

app = typer.Typer(
    name="concept-depth",
    help="At which layer of a language model does a concept become linearly separable?",
    epilog="Start with:  concept-depth run smollm2-135m cities --out runs/first",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"concept-depth {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """At which layer of a language model does a concept become linearly separable?"""


for module in (run, inspect, results):
    module.register(app)


def main() -> None:
    """Entry point of the console script."""
    end_in_order()
    sys.exit(exit_code())


def end_in_order() -> None:
    """Have SIGTERM end the process as an error does, so that temporary files go; by itself it leaves them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))


def exit_code(arguments: Sequence[str] | None = None, run_defaults: Mapping[str, Any] | None = None) -> int:
    """Run the command line and give its exit code; errors that a user can mend become one sentence.

    Args:
        arguments: what was typed; None takes it from the process.
        run_defaults: other defaults for the options of `run`, by parameter name.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack characters that a table has
    try:
        defaults = {"run": dict(run_defaults or {})}
        code = int(app(arguments, standalone_mode=False, default_map=defaults) or 0)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()  # what finds no room is told below, not by Python after its last line
        # Releases of Typer differ: some return the code of an interrupt, others raise it.
        return _stopped() if code == _INTERRUPTED else code
    except InputError as error:
        return _sentence(as_typed(str(error), arguments), 2)
    except BrokenPipeError:
        # Whoever reads our output has stopped, as `| head` does; there is nobody left to tell.
        _discard_output()
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _stopped()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if not _flushed():
            _discard_output()
        where = error.filename or "the output"
        return _sentence(f"cannot write {where}: {error.strerror}; make room there, or write elsewhere", 2)
    except Exception as error:
        # Typer's own usage errors know their exit code and sentence; their class has moved between releases.
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):
            return _usage_error(error)
        raise


def _flushed() -> bool:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        return False
    return True


def _discard_output() -> None:
    """Let Python's last flush, which no handler of errors sees, succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stopped() -> int:
    return _sentence("stopped; what was finished is kept, the same command goes on from there", _INTERRUPTED)


def _usage_error(error: Any) -> int:
    message = str(error.format_message())
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        # Typed without arguments: the help explains itself, and nothing went wrong.
        print(message)
        return 0
    path = context.command_path if context is not None else "concept-depth"
    return _sentence(f"{message.rstrip('.')}; type '{path} --help' for what is allowed", error.exit_code)


def _sentence(text: str, code: int) -> int:
    print(f"concept-depth: {' '.join(text.split())}", file=sys.stderr)
    return code

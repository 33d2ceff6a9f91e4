"""The command line: which command is where, in the order of the help, and how commands end.

A command's options stand in ``command.py`` of its folder of ``coke/tools``.
"""

from __future__ import annotations

import io
import sys

import typer

import coke.tools.bench.command as bench
import coke.tools.datasets.command as datasets
import coke.tools.demo.command as demo
import coke.tools.evaluation.command as evaluation
import coke.tools.export.command as exporting
import coke.tools.features.command as features
import coke.tools.page.command as page
import coke.tools.runs.command as runs
import coke.tools.training.command as training
from coke.distributed.out_of_memory import is_out_of_memory
from coke.tools.messages import fail, say
from coke.tools.path_arguments import HomeGroup, with_local_paths

app = typer.Typer(
    name="coke",
    cls=HomeGroup,
    help="Unsupervised visual representation learning by online constrained k-means.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it takes longer than everything else of a start
    context_settings={"max_content_width": 120},
)
app.command()(datasets.ingest)
app.command("index")(datasets.index_file)
app.command()(datasets.verify)
app.command()(datasets.inspect)
app.command(cls=training.ResumeCommand)(training.train)
app.command()(runs.runs)
app.command()(page.report)
app.command("bench-epoch")(bench.bench_epoch)
app.command()(features.embed)
app.command()(features.cluster)
app.command()(features.assign)
app.command()(exporting.export)
app.command()(demo.demo)
app.add_typer(evaluation.eval_app, name="eval")
for command in (*app.registered_commands, *evaluation.eval_app.registered_commands):
    assert command.callback is not None
    command.callback = with_local_paths(command.callback)


def main() -> None:
    """Entry point. A user's mistake ends in one line and exit status 2, a failing machine in 1, a
    run that a signal has stopped in 75, a rank that lost the others in 76.
    """
    from coke.tools.runs.interruption import STOPPED_STATUS, RunStopped

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the locale cannot spell
    try:
        app()
    except RunStopped as stopped:
        say(str(stopped), "stopped")
        sys.exit(STOPPED_STATUS)
    except ValueError as error:
        fail(str(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        fail(f"memory ran out ({said})", 2)
    except OSError as error:
        fail(str(error), getattr(error, "exit_status", 1))

"""The command line: parse, build a config, call one function of ``coke.tools``.

A file per command; this one joins them, in the order of the help, and says how they end.
"""

from __future__ import annotations

import sys

import typer

from coke.tools.bench import command as bench_epoch
from coke.tools.datasets import command as ingest
from coke.tools.datasets import index_command as index_beton
from coke.tools.datasets import inspect_command as inspect
from coke.tools.datasets import verify_command as verify
from coke.tools.demo import command as demo
from coke.tools.evaluation.command import eval_app
from coke.tools.features import cluster_command as cluster
from coke.tools.features import command as embed
from coke.tools.messages import fail, say
from coke.tools.runs import command as runs
from coke.tools.training import command as train

app = typer.Typer(
    name="coke",
    help="Unsupervised visual representation learning by online constrained k-means.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it takes longer than everything else of a start
    context_settings={"max_content_width": 120},
)
app.command()(ingest.ingest)
app.command("index")(index_beton.index_file)
app.command()(verify.verify)
app.command()(inspect.inspect)
app.command(cls=train.ResumeCommand)(train.train)
app.command()(runs.runs)
app.command("bench-epoch")(bench_epoch.bench_epoch)
app.command()(embed.embed)
app.command()(cluster.cluster)
app.command()(demo.demo)
app.add_typer(eval_app, name="eval")


def main() -> None:
    """Entry point. A user's mistake ends in one line and exit status 2, a failing machine in 1, a
    run that a signal has stopped in 75, a rank that lost the others in 76.
    """
    from coke.tools.runs.interruption import STOPPED_STATUS, RunStopped

    try:
        app()
    except RunStopped as stopped:
        say(str(stopped), "stopped")
        sys.exit(STOPPED_STATUS)
    except ValueError as error:
        fail(str(error), 2)
    except OSError as error:
        fail(str(error), getattr(error, "exit_status", 1))

"""A run that runs out of memory all the same ends in one line, and can go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coke.config.machine import MachineConfig
from coke.distributed.out_of_memory import is_out_of_memory
from coke.tools.runs.checkpoint import list_checkpoints
from coke.tools.runs.run_folder import RunFolder


@contextmanager
def memory_errors(run: RunFolder, machine: MachineConfig) -> Iterator[None]:
    """Turns the errors of allocators into a message that says what to do.

    Raises:
        ValueError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ValueError(f"memory ran out ({said}). {_remedy(run, machine)}") from error


def _remedy(run: RunFolder, machine: MachineConfig) -> str:
    saves = [] if machine.checkpoint_activations else ["machine.checkpoint_activations=true"]
    if list_checkpoints(run.checkpoints):
        options = "".join(f" --set {setting}" for setting in saves)
        with_less = f", which needs less with{options}" if options else ""
        return f"The run is saved in {run.path}: go on with --resume{with_less}, or on more ranks"
    return (
        "Nothing was learned yet: start again with more --accumulate, a smaller --batch-size"
        f"{' or --set ' + saves[0] if saves else ''}, in another --out"
    )

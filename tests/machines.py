"""Runs the fast tests as on other machines, two at a time: `make test-machines`.

    python -m tests.machines [NAME ...]

Each environment joins several things that a test's outcome must not depend on. An environment that
cannot be made here is listed with the reason. The exit status is 1 if a test failed in any.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tests.support.pretended_machine import BF16, CORES, GPU, WITHOUT

OPTIONAL = (
    "pyarrow,safetensors,ray,sklearn,scipy,s3fs,moto,aiohttp,timm,tensorboard,wandb,ffcv,onnx,"
    "onnxscript,onnxruntime"
)
UNKNOWN_UID = 54321
SETPRIV = (  # the user may read all files, so that an interpreter in root's home can be run
    "setpriv",
    f"--reuid={UNKNOWN_UID}",
    f"--regid={UNKNOWN_UID}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
SHARED_MEMORY = Path("/dev/shm")
AT_A_TIME = 2  # the smallest machine that these run on has two cores
ONE_CORE = str(min(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else "0"
SUMMARY = re.compile(r"^\d+ (passed|failed|error|skipped|deselected).* in .*s")


class CannotBeMadeError(Exception):
    """This machine lacks what the environment needs; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One pretended machine.

    Attributes:
        variables: of the environment; None removes one. ``{scratch}`` is a folder of its own.
        command: stands before the tests' command.
        needs: raises CannotBeMadeError where the environment cannot be made.
        part: the tests to run; by default all fast ones.
    """

    name: str
    about: str
    variables: Mapping[str, str | None] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    needs: Callable[[Path], None] = lambda scratch: None
    part: tuple[str, ...] = ()


def needs_taskset(scratch: Path) -> None:
    if shutil.which("taskset") is None:
        raise CannotBeMadeError("there is no taskset")


def needs_latin_1(scratch: Path) -> None:
    """Compiles the locale into the scratch folder, so that none must be installed."""
    if shutil.which("localedef") is None:
        raise CannotBeMadeError("there is no localedef")
    target = scratch / "locales" / "de_DE.ISO-8859-1"
    target.parent.mkdir()
    made = subprocess.run(
        ["localedef", "--no-archive", "-i", "de_DE", "-f", "ISO-8859-1", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode > 1:  # 1: it warned, but made the locale
        raise CannotBeMadeError(
            f"localedef cannot make de_DE.ISO-8859-1: {made.stderr.strip()[-200:]}"
        )
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == scratch.stat().st_dev:
        raise CannotBeMadeError(f"{SHARED_MEMORY} is not another file system")


def needs_root(scratch: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        raise CannotBeMadeError("only root, with setpriv, can run tests under another user id")
    os.chown(scratch, UNKNOWN_UID, UNKNOWN_UID)


ENVIRONMENTS = (
    Environment(
        name="small",
        about="1 core without bf16, C locale in ASCII, 40 columns, no HOME, 1 thread",
        variables={
            BF16: "0",
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "COLUMNS": "40",
            "HOME": None,
            "OMP_NUM_THREADS": "1",
        },
        command=("taskset", "-c", ONE_CORE),
        needs=needs_taskset,
        part=(  # not the arithmetic of clusters, orders and views: nothing of this touches it
            *("tests/files", "tests/config", "tests/distributed", "tests/model", "tests/tools"),
            *("tests/pipeline/sources", "tests/pipeline/containers", "tests/pipeline/images"),
            *("tests/pipeline/dataset", "tests/pipeline/loading", "tests/pipeline/remote"),
            *("tests/pipeline/cache", "tests/test_cli.py", "tests/test_encodings.py"),
        ),
    ),
    Environment(
        name="large",
        about="64 cores with bf16, de_DE.ISO-8859-1, 200 columns, TMPDIR on another file system",
        variables={
            BF16: "1",
            CORES: "64",
            "LC_ALL": "de_DE.ISO-8859-1",
            "LOCPATH": "{scratch}/locales",
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "7",
            "TMPDIR": str(SHARED_MEMORY),
        },
        needs=needs_latin_1,
        part=(
            *(
                "tests/files",
                "tests/config",
                "tests/model",
                "tests/distributed",
                "tests/test_cli.py",
            ),
            *("tests/pipeline/containers", "tests/pipeline/sources", "tests/pipeline/loading"),
            *("tests/tools/datasets", "tests/tools/training", "tests/tools/export"),
            *("tests/tools/features", "tests/tools/page", "tests/tools/evaluation"),
            "tests/test_cli.py",
        ),
    ),
    Environment(
        name="gpu",
        about="a GPU that torch reports, C.UTF-8, 2 cores with bf16",
        variables={GPU: "1", BF16: "1", CORES: "2", "LC_ALL": "C.UTF-8"},
        part=(
            *("tests/model", "tests/distributed", "tests/test_cli.py"),
            *("tests/tools/training", "tests/tools/bench", "tests/tools/evaluation"),
        ),
    ),
    Environment(
        name="bare",
        about="none of the optional packages",
        variables={WITHOUT: OPTIONAL},
        part=(
            *("tests/clustering/test_estimator.py", "tests/clustering/test_scikit_learn_ways.py"),
            *("tests/pipeline/sources", "tests/pipeline/remote", "tests/pipeline/loading"),
            *("tests/tools", "tests/test_cli.py"),
        ),
    ),
    Environment(
        name="nobody",
        about="a user id without passwd entry and without HOME",
        variables={"HOME": None, "USER": None, "LOGNAME": None},
        command=SETPRIV,
        needs=needs_root,
        part=(
            *("tests/files", "tests/distributed", "tests/pipeline/cache", "tests/pipeline/remote"),
            *("tests/tools/runs", "tests/tools/datasets", "tests/tools/training"),
            "tests/test_cli.py",
        ),
    ),
)


def run(environment: Environment, scratch: Path, console: Console) -> tuple[bool, str]:
    """Whether all tests passed, and pytest's last line; what failed is shown."""
    variables = dict(os.environ)
    variables.setdefault("TMPDIR", str(scratch))
    for name, value in environment.variables.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value.replace("{scratch}", str(scratch))
    tests = [
        *(sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"),
        f"--basetemp={scratch / 'tests'}",
        *environment.part,
    ]
    done = subprocess.run(
        [*environment.command, *tests],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    lines = done.stdout.splitlines()
    last = next((line for line in reversed(lines) if SUMMARY.match(line)), "no summary")
    if done.returncode != 0:
        console.print(escape(done.stdout), highlight=False, soft_wrap=True)
    return done.returncode == 0, last


def main(names: list[str], console: Console) -> int:
    """Runs the environments of these names, or all; returns the exit status."""
    unknown = set(names) - {e.name for e in ENVIRONMENTS}
    if unknown:
        known = ", ".join(e.name for e in ENVIRONMENTS)
        console.print(f"unknown environments {', '.join(sorted(unknown))}; there are {known}")
        return 2
    chosen = [e for e in ENVIRONMENTS if not names or e.name in names]

    def attempt(environment: Environment) -> tuple[bool, str]:
        passed, line = tried(environment, console)
        console.print(line, highlight=False, soft_wrap=True)
        return passed, line

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        results = list(pool.map(attempt, chosen))
    console.print("", *(line for _, line in results), sep="\n", highlight=False, soft_wrap=True)
    return 0 if all(passed for passed, _ in results) else 1


def tried(environment: Environment, console: Console) -> tuple[bool, str]:
    """False if a test failed there; a line on the environment and what happened in it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coke-machine-") as scratch:
        try:
            environment.needs(Path(scratch))
            passed, last = run(environment, Path(scratch), console)
            result = "passed " if passed else "FAILED "
            result += f"({last}; {time.monotonic() - started:.0f} s)"
        except CannotBeMadeError as reason:
            passed, result = True, f"not run: {reason}"
    return passed, f"{environment.name:8}{environment.about}: {result}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))

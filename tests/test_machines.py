"""`make test-machines`: a failure in any environment is the command's, and pretences are seen."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests import machines
from tests.machines import CannotBeMadeError, Environment
from tests.support.pretended_machine import BF16, CORES, GPU, MEMORY, WITHOUT

CHECK = """
import os


def test_variables():
    assert os.environ["SEEN"] == "yes" and "HOME" not in os.environ
"""


def cannot(scratch: Path) -> None:
    raise CannotBeMadeError("the moon is missing")


def shown(monkeypatch: pytest.MonkeyPatch, *names: str, **environments: Environment) -> str:
    """Output and exit status of the command with these environments."""
    monkeypatch.setattr(machines, "ENVIRONMENTS", tuple(environments.values()))
    console = Console(file=io.StringIO(), width=200)
    status = machines.main(list(names), console)
    return f"{console.file.getvalue()}status {status}"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_each_environment_is_listed_and_one_that_fails_fails_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    (tmp_path / "test_it.py").write_text(CHECK, encoding="utf-8")
    part = (str(tmp_path / "test_it.py"),)
    good = Environment(name="good", about="a", variables={"SEEN": "yes", "HOME": None}, part=part)
    bad = Environment(name="bad", about="b", variables={"SEEN": "no"}, part=part)
    moon = Environment(name="moon", about="c", needs=cannot, part=part)
    text = shown(monkeypatch, good=good, moon=moon)
    assert "good    a: passed (1 passed" in text and text.endswith("status 0")
    assert "moon    c: not run: the moon is missing" in text
    text = shown(monkeypatch, bad=bad, good=good)
    assert "bad     b: FAILED (1 failed" in text and "good    a: passed" in text
    assert text.endswith("status 1")
    assert shown(monkeypatch, "good", bad=bad, good=good).endswith("status 0")
    assert "unknown environments sun; there are bad" in shown(monkeypatch, "sun", bad=bad)


@pytest.mark.slow
def test_coke_sees_the_pretended_machine() -> None:
    code = (
        "import tests, importlib.util, torch\n"
        "from coke.distributed.free_memory import free_memory\n"
        "from coke.distributed.workers import default_workers\n"
        "from coke.model.precision import has_native_bf16, resolve_device\n"
        "cpu = torch.device('cpu')\n"
        "print(default_workers(), has_native_bf16(cpu), resolve_device('auto'),\n"
        "      importlib.util.find_spec('pyarrow'), free_memory(cpu).size)\n"
    )
    for native in ("0", "1"):
        pretended = {BF16: native, CORES: "64", GPU: "1", WITHOUT: "pyarrow", MEMORY: "2GiB"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **pretended, "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["64", str(native == "1"), "cuda", "None", str(2 << 30)]

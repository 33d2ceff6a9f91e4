"""Settings that a user gave; all others are still to be chosen, by :mod:`coke.config.auto`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coke.config.config import Config
from coke.config.machine import MachineConfig
from coke.config.overrides import checked_settings, with_settings
from coke.config.run import RunConfig

#: Name of the preset that looks at data and machine, the command line's default.
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked for.

    Attributes:
        settings: by section, as in a TOML file; each one wins over what would be chosen.
        hours: time for the whole run, which decides the number of epochs; None for no limit.

    Raises:
        ValueError: a setting is unknown or of another type; ``hours`` is not positive, or the
            number of epochs is given, too.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    hours: float | None = None

    def __post_init__(self) -> None:
        checked_settings(Config(), self.settings)
        if self.hours is None:
            return
        if not 0 < self.hours < float("inf"):
            raise ValueError(f"hours is {self.hours}; give a positive number of hours")
        if self.given("optimizer.epochs") is not None:
            raise ValueError(
                f"--hours {self.hours:g} decides the number of epochs, and optimizer.epochs is "
                f"{self.given('optimizer.epochs')}: give one of them"
            )

    def given(self, key: str) -> Any:
        """The value of ``section.key``, or ``section.table.key``; None if it was not given."""
        found: Any = self.settings
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return None
            found = found[part]
        return found

    @property
    def preset(self) -> str:
        """The name of the preset."""
        return AUTO

    @property
    def machine(self) -> MachineConfig:
        """The section ``[machine]``, in which nothing is chosen."""
        return with_settings(MachineConfig(), self.settings.get("machine", {}), "machine.")

    @property
    def run(self) -> RunConfig:
        """The section ``[run]``, in which nothing is chosen."""
        return with_settings(RunConfig(), self.settings.get("run", {}), "run.")

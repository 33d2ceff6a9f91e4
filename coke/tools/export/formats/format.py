"""The interface of an export format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork


class Format(ABC):
    """A format that a backbone is exported in.

    Attributes:
        name: value of ``--format``.
        suffixes: those that OUT may have, the usual one first; none if OUT is a folder.
        files: names of all files that such a folder may hold, beside its card; none if OUT is a
            file.
        is_graph: whether the file runs by itself. It can then hold more than a backbone: the end of
            the pre-processing, and a classifier.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[frozenset[str]] = frozenset()
    is_graph: ClassVar[bool] = False

    @abstractmethod
    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        """Is asked before work starts.

        Raises:
            ValueError: the format cannot hold this network or takes no such setting, or a package
                is missing.
        """

    @abstractmethod
    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        """The bytes of all files by name, without the card.

        Args:
            name: name of OUT. A format of one file gives the file this name; beside it, names must
                begin with it. Names of a folder's files stand in ``files``.
        """

    @abstractmethod
    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        """Python code of about four lines that loads ``name`` as ``net``, for the card."""

    def remarks(self, network: TrainedNetwork, settings: ExportSettings) -> list[str]:
        """Paragraphs of Markdown for the card, below the code: what else a user must know."""
        return []

    def check_name(self, out: Path) -> None:
        """Raises ValueError if OUT has a suffix of something else."""
        if self.suffixes and out.suffix not in self.suffixes:
            usual = out.with_suffix(self.suffixes[0]).name if out.suffix else ""
            raise ValueError(
                f"{out} ends in no suffix of --format {self.name} "
                f"({', '.join(self.suffixes)}); give a name such as "
                f"{usual or out.name + self.suffixes[0]}"
            )

"""What the checkers of recordings share: settings, the model they listen with, and how it is loaded."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from data_prep.synthesis.stage import BackendError
from omnichat.file_hashes import weights_hash


class CheckerSettings(Protocol):
    """What the settings of every checker have."""

    @property
    def kind(self) -> str:
        """Which checker."""

    @property
    def model(self) -> str:
        """Its folder or file; what a server calls it; "" where the kind brings one."""


Settings = TypeVar("Settings", bound=CheckerSettings)


class Checker(ABC, Generic[Settings]):
    """A model that listens to recordings, here or behind a server.

    Attributes:
        settings: of the configuration.
        depends_on: names of the settings that a verdict hangs on, beside the model.
    """

    depends_on: ClassVar[tuple[str, ...]] = ("kind", "least")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def identity(self) -> Mapping[str, Any]:
        """What a verdict hangs on, as JSON; neither addresses nor devices.

        A model is known by its name and the hash of its files; one that only a server or other machines have, by its
        name alone.

        Raises:
            BackendError: its files cannot be read.
        """
        found = {name: getattr(self.settings, name) for name in self.depends_on}
        path = Path(self.settings.model)
        if self.settings.kind != "http" and self.settings.model and path.exists():
            try:
                found["weights"] = weights_hash(path)
            except OSError as error:
                raise BackendError(f"{path}: cannot be read ({error}); correct the section gates") from None
        return found | {"model": path.name}

    @abstractmethod
    async def open(self) -> None:
        """Load the model, or connect to it.

        Raises:
            BackendError: there is none, or no package for it.
        """

    async def close(self) -> None:
        """End what `open` started."""
        return None


class Loaded(ABC):
    """A checker that listens with a model of this machine; stands before the kind of checker among its bases."""

    async def open(self) -> None:
        """See `Checker.open`."""
        await asyncio.to_thread(self._load)

    @abstractmethod
    def _load(self) -> None:
        """Load the model and what it needs, as `open` says."""

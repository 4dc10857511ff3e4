"""A run's folder: `config.yaml`, `ledger.sqlite`, `blobs/`, and in the end `store/` and the report."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_prep.synthesis.config import CONFIG_FILE, FREE, Config, ConfigError, check, differing, read_yaml, write_config
from data_prep.synthesis.ledger import LEDGER_FILE


class FolderError(ValueError):
    """A folder that cannot be worked in; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of a run lies."""

    root: Path

    @property
    def ledger(self) -> Path:
        """What became of every item."""
        return self.root / LEDGER_FILE

    @property
    def blobs(self) -> Path:
        """Recordings by the hash of their bytes."""
        return self.root / "blobs"

    @property
    def store(self) -> Path:
        """What `train.py` reads."""
        return self.root / "store"

    @property
    def pilot(self) -> Path:
        """The page for the check by hand."""
        return self.root / "pilot.html"

    @property
    def configured(self) -> bool:
        """Whether there is a run."""
        return (self.root / CONFIG_FILE).is_file()

    def config(self) -> Config:
        """The run's config.

        Raises:
            FolderError: there is no run, or its config is no longer valid.
        """
        path = self.root / CONFIG_FILE
        if not self.configured:
            raise FolderError(f"{self.root}: holds no run; start one with `run {self.root} recipe=NAME`")
        try:
            return check(read_yaml(path))
        except ConfigError as error:
            raise FolderError(f"{path}: {error}") from None

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Only one driver at a time; others wait."""
        with (self.root / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def enter(root: Path, config: Config, change: bool = False) -> RunFolder:
    """The folder for a run of this config, made where it is missing.

    A run may grow: more scripts are no other config.

    Args:
        root: of the folder.
        config: to run; kept in the folder.
        change: takes a config that gives other results: what still fits is kept, the rest is made anew.

    Raises:
        FolderError: it holds a run of another config, or something else.
    """
    folder = RunFolder(root)
    if folder.configured:
        old = folder.config()
        grown = config.scripts > old.scripts  # the first n scripts of a longer run are those of a run of n
        changes = differing(old, config, (*FREE, "scripts") if grown else FREE)
        if changes and not change:
            listed = "\n  ".join(changes)
            raise FolderError(
                f"{root}: holds a run of another config:\n  {listed}\n"
                "`resume` goes on with the old one; --change makes what differs anew; or take another folder"
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FolderError(f"{root}: is not empty and holds no run; take another folder")
    root.mkdir(parents=True, exist_ok=True)
    folder.blobs.mkdir(exist_ok=True)
    write_config(root / CONFIG_FILE, config)
    return folder

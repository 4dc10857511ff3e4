"""The ledger: one SQLite file per run folder that knows every item and what became of it.

An item is pending, leased to a driver, done or rejected. It leaves `leased` in the transaction that holds its result,
so a driver that is killed loses what it had in hand and nothing else, and what is done is never done again. Several
drivers may work on one ledger; the file must lie on a disk of the host they run on (SQLite's WAL).
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from data_prep.synthesis.leases import LEASES_TABLE, LOST_DRIVERS
from data_prep.synthesis.stage import Cost
from data_prep.synthesis.work import Outcome, Task

LEDGER_FILE = "ledger.sqlite"
FORMAT = 1  # of the tables
MAX_LOSSES = 3  # workers that an item may take with it
BATCH = 1_000  # rows in a transaction
STATUSES = ("pending", "leased", "done", "rejected")
COSTS = tuple(Cost.__slots__)

_TABLES = f"""
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    id TEXT NOT NULL PRIMARY KEY,
    stage TEXT NOT NULL,
    number INTEGER NOT NULL,                  -- of the first script that needs it: the order of work
    input TEXT NOT NULL,
    wanted INTEGER NOT NULL DEFAULT 1,        -- 0: of an older config or version; kept, but neither made nor counted
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN {STATUSES}),
    owner TEXT,                               -- the driver that leases it
    attempts INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,        -- workers that died at it
    refusals TEXT NOT NULL DEFAULT '[]',      -- reason of each attempt that failed
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    output TEXT,
    {" ".join(f"{name} REAL NOT NULL DEFAULT 0," for name in COSTS)}
    seconds REAL NOT NULL DEFAULT 0,
    started REAL,
    finished REAL,
    worker TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS items_to_claim ON items (stage, wanted, status, losses, number, id);
{LEASES_TABLE}
"""
_Any = TypeVar("_Any")


class LedgerError(RuntimeError):
    """The ledger cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item to be made.

    Attributes:
        id: see `seeds.Namer`.
        number: of its script.
        input: JSON.
    """

    id: str
    number: int
    input: str


@dataclass(frozen=True, slots=True)
class Result:
    """A finished item: `output` is JSON, or None where it was rejected."""

    id: str
    number: int
    input: str
    output: str | None
    reason: str
    message: str


class Ledger:
    """The ledger of a run folder. One per thread; closed by `close` or a `with` block.

    Args:
        path: of the file; made where it is missing.

    Raises:
        LedgerError: no ledger of ours, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode = WAL")
            # A commit survives the death of the process; one of the machine may undo the last, whole.
            self.connection.execute("PRAGMA synchronous = NORMAL")
            with self.transaction() as rows:
                for statement in _TABLES.split(";\n"):
                    rows.execute(statement)
                rows.execute("INSERT OR IGNORE INTO facts VALUES ('format', ?)", (str(FORMAT),))
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: {error}; is it the ledger of a run, and the disk not full?") from None
        if self.fact("format") != str(FORMAT):
            raise LedgerError(f"{path}: has tables of another version ({self.fact('format')}, here {FORMAT})")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Writers wait for each other."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            if self.connection.in_transaction:  # SQLite itself takes back what a full disk has cut
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def fact(self, name: str) -> str | None:
        """A fact of the run."""
        row = self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_fact(self, name: str, value: str) -> None:
        """Write a fact of the run down."""
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def want(self, stage: str, items: Iterable[Item]) -> int:
        """Make these the items of the stage, and set aside those that are not among them; how many there are."""
        rows = self.connection
        rows.execute("CREATE TEMP TABLE IF NOT EXISTS named (id TEXT NOT NULL PRIMARY KEY)")
        rows.execute("DELETE FROM named")
        for batch in batches(items, BATCH):
            with self.transaction():
                rows.executemany("INSERT OR IGNORE INTO named VALUES (?)", [(item.id,) for item in batch])
                rows.executemany(
                    "INSERT INTO items (id, stage, number, input) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET wanted = 1 WHERE NOT wanted",
                    [(item.id, stage, item.number, item.input) for item in batch],
                )
        with self.transaction():
            rows.execute(
                "UPDATE items SET wanted = 0 WHERE stage = ? AND wanted AND id NOT IN (SELECT id FROM named)", (stage,)
            )
        return int(rows.execute("SELECT count(*) FROM named").fetchone()[0])

    def settle(self, stage: str, verdicts: Iterable[tuple[Item, str, str]]) -> None:
        """Write down a stage that is a pure function: each item with reason and message, both "" where it passed."""
        with self.transaction() as rows:
            rows.execute("DELETE FROM items WHERE stage = ?", (stage,))
            rows.executemany(
                "INSERT OR REPLACE INTO items (id, stage, number, input, status, reason, message) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (item.id, stage, item.number, item.input, "rejected" if reason else "done", reason, message)
                    for item, reason, message in verdicts
                ),
            )

    def claim(self, stage: str, owner: str, count: int) -> list[Task]:
        """Lease up to `count` items to a driver, in their order; those that killed workers come last."""
        with self.transaction() as rows:
            found = rows.execute(
                "SELECT id, input, attempts, losses FROM items WHERE stage = ? AND wanted AND status = 'pending' "
                "ORDER BY losses, number, id LIMIT ?",
                (stage, count),
            ).fetchall()
            rows.executemany(
                "UPDATE items SET status = 'leased', owner = ? WHERE id = ?", [(owner, row[0]) for row in found]
            )
        return [Task(name, text, attempts, losses > 0) for name, text, attempts, losses in found]

    def commit(self, owner: str, outcomes: Sequence[Outcome]) -> int:
        """Write down what became of items; how many were still this driver's, and are now as told.

        A driver whose lease has lapsed may come too late: the item is another's by then, and its result is dropped.
        """
        now, count = time.time(), 0
        with self.transaction() as rows:
            for outcome in outcomes:
                if outcome.status == "lost":
                    count += self._lose(owner, outcome)
                    continue
                before = rows.execute("SELECT refusals FROM items WHERE id = ?", (outcome.id,)).fetchone()
                refusals = json.dumps([*json.loads(before[0]), *outcome.refusals]) if before else "[]"
                costs = [getattr(outcome.cost, name) for name in COSTS]
                cursor = rows.execute(
                    "UPDATE items SET status = ?, owner = NULL, attempts = ?, refusals = ?, reason = ?, message = ?, "
                    f"output = ?, {', '.join(f'{name} = {name} + ?' for name in COSTS)}, seconds = seconds + ?, "
                    "started = ?, finished = ?, worker = ? WHERE id = ? AND status = 'leased' AND owner = ?",
                    (
                        *(outcome.status, outcome.attempts, refusals, outcome.reason, outcome.message, outcome.output),
                        *(*costs, outcome.seconds, outcome.started, now, outcome.worker, outcome.id, owner),
                    ),
                )
                count += cursor.rowcount
        return count

    def _lose(self, owner: str, outcome: Outcome) -> int:
        rows = self.connection
        rows.execute(
            "UPDATE items SET status = 'pending', owner = NULL, losses = losses + 1 "
            "WHERE id = ? AND status = 'leased' AND owner = ?",
            (outcome.id, owner),
        )
        message = f"the worker died at it {MAX_LOSSES} times; {outcome.message}"
        return rows.execute(
            "UPDATE items SET status = 'rejected', reason = 'internal', message = ?, finished = ? "
            "WHERE id = ? AND status = 'pending' AND losses >= ?",
            (message, time.time(), outcome.id, MAX_LOSSES),
        ).rowcount

    def release(self, owner: str, ids: Sequence[str] | None = None) -> None:
        """Give leased items back: these, or all of the driver."""
        with self.transaction() as rows:
            if ids is None:
                rows.execute(
                    "UPDATE items SET status = 'pending', owner = NULL WHERE status = 'leased' AND owner = ?", (owner,)
                )
            else:
                rows.executemany(
                    "UPDATE items SET status = 'pending', owner = NULL "
                    "WHERE id = ? AND status = 'leased' AND owner = ?",
                    [(name, owner) for name in ids],
                )

    def reap(self, lost: Sequence[str]) -> int:
        """Give back what drivers that are no more have left leased; how many items."""
        with self.transaction() as rows:
            marks = ",".join("?" * len(lost))
            return rows.execute(
                "UPDATE items SET status = 'pending', owner = NULL WHERE status = 'leased' AND "
                f"(owner IN ({marks}) OR {LOST_DRIVERS})",
                (*lost, time.time()),
            ).rowcount

    def reopen(self, reason: str, stages: Sequence[str]) -> int:
        """Make rejected items of a reason pending again; their attempts are counted on, so that seeds are new."""
        return self.connection.execute(
            "UPDATE items SET status = 'pending', losses = 0, reason = '', message = '' "
            f"WHERE status = 'rejected' AND wanted AND reason = ? AND stage IN ({', '.join('?' * len(stages))})",
            (reason, *stages),
        ).rowcount

    def counts(self, stage: str) -> dict[str, int]:
        """Wanted items of a stage by status."""
        found = self.connection.execute(
            "SELECT status, count(*) FROM items WHERE stage = ? AND wanted GROUP BY status", (stage,)
        )
        return dict.fromkeys(STATUSES, 0) | dict(found.fetchall())

    def results(self, stage: str) -> Iterator[Result]:
        """Finished wanted items of a stage, in the order of their numbers and ids."""
        cursor = self.connection.cursor()
        cursor.execute(
            "SELECT id, number, input, output, reason, message FROM items WHERE stage = ? AND wanted "
            "AND status IN ('done', 'rejected') ORDER BY number, id",
            (stage,),
        )
        while rows := cursor.fetchmany(BATCH):
            yield from (Result(*row) for row in rows)

    def outputs(self, ids: Sequence[str]) -> dict[str, str | None]:
        """Output of each of the ids that is finished, None for a rejected one."""
        found: dict[str, str | None] = {}
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT id, output FROM items WHERE id IN ({marks}) AND status IN ('done', 'rejected')"
            found |= dict(self.connection.execute(query, part).fetchall())
        return found

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a reading query, for reports."""
        return self.connection.execute(sql, values).fetchall()


def batches(values: Iterable[_Any], size: int) -> Iterator[list[_Any]]:
    """The values in lists of `size`, the last one shorter."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch

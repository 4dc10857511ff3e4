"""Who works on a ledger: each driver holds one lease, renewed while it lives, and with it all items that it took."""

import os
import socket
import sqlite3
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

LEASES_TABLE = """
CREATE TABLE IF NOT EXISTS drivers (
    name TEXT NOT NULL PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, born TEXT NOT NULL, expires REAL NOT NULL
)
"""
# Owners without a lease that is still good; takes the time now.
LOST_DRIVERS = "owner NOT IN (SELECT name FROM drivers WHERE expires > ?)"


class Lease:
    """A driver's lease on what it claims, renewed by a thread of its own so that long work does not let it lapse.

    Args:
        path: of the ledger.
        seconds: for which the lease is good without being renewed. Where a driver is killed on this host, others see
            that at once; on another host they wait for so long.
    """

    def __init__(self, path: Path, seconds: float = 120) -> None:
        self.path, self.seconds = path, seconds
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._stop = threading.Event()
        self._renew()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        """End the lease."""
        self._stop.set()
        self._thread.join()
        with suppress(sqlite3.Error):
            self._execute("DELETE FROM drivers WHERE name = ?", (self.name,))

    def _keep(self) -> None:
        while not self._stop.wait(self.seconds / 4):
            with suppress(sqlite3.Error):  # a full disk: the driver meets it too, and tells
                self._renew()

    def _renew(self) -> None:
        pid = os.getpid()
        values = (self.name, socket.gethostname(), pid, born(pid), time.time() + self.seconds)
        self._execute("INSERT OR REPLACE INTO drivers VALUES (?, ?, ?, ?, ?)", values)

    def _execute(self, sql: str, values: tuple[str | int | float, ...]) -> None:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            connection.execute(sql, values)
        finally:
            connection.close()


def lost_drivers(connection: sqlite3.Connection) -> list[str]:
    """Drivers of this host whose process is gone, whatever their lease says."""
    here = socket.gethostname()
    rows = connection.execute("SELECT name, pid, born FROM drivers WHERE host = ?", (here,)).fetchall()
    return [name for name, pid, started in rows if born(pid) != started]


def living_drivers(connection: sqlite3.Connection) -> list[str]:
    """Drivers whose lease is good and whose process, where it can be seen, lives."""
    rows = connection.execute("SELECT name FROM drivers WHERE expires > ?", (time.time(),)).fetchall()
    return sorted({name for (name,) in rows} - set(lost_drivers(connection)))


def born(pid: int) -> str:
    """When a process started, in ticks since boot, so that a later one of the same number is not taken for it.

    "" where there is none; "?" where the system does not tell (no /proc).
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if os.path.isdir("/proc/self") else "?"
    except ProcessLookupError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # proc(5): state is field 3, starttime field 22

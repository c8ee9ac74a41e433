"""``metrics.csv``: every number of a run in one table that survives a resume."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class CsvLogger(Logger):
    """Append one row per call to ``metrics.csv``; the first column is the optimizer step.

    A resumed run drops the rows after its checkpoint and goes on below. New columns may appear at
    any time (a loss that starts late); the table is then written anew, whole or not at all.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []
        self._last: int | None = None

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one table per run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write one row.

        Args:
            metrics: name to value.
            step: optimizer steps taken so far.
        """
        step = int(step or 0)
        new = [name for name in sorted(metrics) if name not in self._columns]
        # the first row of this process may overlap with what a killed run wrote
        if new or self._last is None or step < self._last:
            rows = [row for row in self.rows() if int(row["step"]) < step or self._last == step]
            columns = list(dict.fromkeys([*(rows[0] if rows else ["step"]), *self._columns, *new]))
            self._write(columns, rows)
        self._last = step
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow({"step": step, **metrics})

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of the table as text by column; an empty list without a table."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            # a killed run may have cut its last row
            return [row for row in csv.DictReader(file) if None not in row.values() and row["step"]]

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, self.path)
        self._columns = columns

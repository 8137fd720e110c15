"""How far a command is, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final


class Progress:
    """A bar for each stage on stderr, once the work has taken two seconds, on a terminal only."""

    DELAY_S: Final = 2.0

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._bars: Any = None
        self._stages: dict[str, Any] = {}
        if sys.stderr.isatty():
            from threading import Timer

            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import (
                Progress as Bars,
            )

            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._timer = Timer(self.DELAY_S, self._bars.start)
            self._timer.daemon = True
            self._timer.start()
        return self._report_progress

    def _report_progress(self, stage: str, done: int, total: int) -> None:
        if self._bars is None:
            return
        if stage not in self._stages:
            self._stages[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._stages[stage], completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._timer.cancel()
            # A bar that starts after it was stopped would take the verdict's place on stdout.
            self._timer.join()
            self._bars.stop()

"""One progress bar on standard error: model, concept, stage, time left. In a log: one line a stage."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concept_depth.measure import Stage
    from concept_depth.sweep import Job


class Bar:
    """Shows how far a sweep is; call it as `run_sweep`'s `progress`.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._progress: Any = None
        self._task: Any = None
        self._last_line = ""

    def __enter__(self) -> Bar:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=Console(stderr=True),
                transient=True,
                # Concepts differ in length; an estimate over the last half minute alone would jump.
                speed_estimate_period=300.0,
            )
            self._progress.start()
            self._task = self._progress.add_task("preparing", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, job: Job, index: int, count: int, stage: Stage, fraction: float) -> None:
        """Take note that `fraction` of `stage` of the job at `index` of `count` is done."""
        if self.quiet:
            return
        text = f"{job.label}: {stage.label}"
        if self._progress is not None:
            done = (index + stage.overall(fraction)) / count
            self._progress.update(self._task, completed=done, description=text)
        elif text != self._last_line:
            print(f"[{index + 1}/{count}] {text}", file=sys.stderr, flush=True)
            self._last_line = text

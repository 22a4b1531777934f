"""What a person at the terminal sees: progress bars on stderr, tables on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from omni_mlflow.reporting.tables import Table
from omni_mlflow.terminal import errors

T = TypeVar("T")

_LOG_WIDTH = 160


class TerminalBar:
    """Progress bars on a terminal; silent where stderr is no terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def track(self, items: Iterable[T], *, description: str, total: int) -> Iterator[T]:
        advance = self.start(description, total=total)
        for done, item in enumerate(items, start=1):
            yield item
            advance(done)

    def start(self, description: str, *, total: int, done: int = 0) -> Callable[[int], None]:
        """Replace the bar that is shown; the returned function sets how much is done."""
        self.stop()
        self._progress.start()
        task = self._progress.add_task(description, total=total, completed=done)
        self._task = task

        def advance(count: int) -> None:
            self._progress.update(task, completed=count)

        return advance

    def stop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._progress.stop()


@contextmanager
def terminal_bar() -> Iterator[TerminalBar]:
    """Show progress on stderr; the last bar goes when the block is left."""
    bar = TerminalBar(errors())
    try:
        yield bar
    finally:
        bar.stop()


def print_table(table: Table) -> None:
    """Print a report's table on stdout; nothing where it has no rows."""
    if not table.rows:
        return
    console = Console()
    if not console.is_terminal:  # a log has no width of its own
        console.width = _LOG_WIDTH
    shown = RichTable(box=box.SIMPLE)
    for column, title in enumerate(table.header):
        shown.add_column(title, justify="right" if column in table.numeric else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)

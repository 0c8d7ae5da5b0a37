"""The one progress bar, and what is told beside it; all on stderr."""

import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Never

import click
from tqdm import tqdm

# tqdm's own, but for the time left: it knows only how many samples there are, not how long each is
FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}{postfix}]"


if TYPE_CHECKING:
    UntypedBar = tqdm[Never]
else:
    # generic only to type checkers
    UntypedBar = tqdm


class _Bar(UntypedBar):
    """A bar whose time left is told to it."""

    left_s: float | None = None

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What the bar is written from."""
        values = super().format_dict
        left_s = 0.0 if self.n == self.total else self.left_s
        left = "?" if left_s is None else tqdm.format_interval(left_s)
        return {**values, "left": left}


class BarProgress:
    """A bar with rate and time left; where stderr is no terminal, a line now and then instead."""

    def __init__(self) -> None:
        self._bar: _Bar | None = None
        self._unscored = 0

    def expect(self, n_trajectories: int) -> None:
        """Open the bar for so many trajectories; none is shown where there is nothing to do."""
        if n_trajectories:
            is_terminal = sys.stderr.isatty()
            self._bar = _Bar(
                total=n_trajectories,
                unit=" samples",
                file=sys.stderr,
                dynamic_ncols=is_terminal,
                mininterval=0.1 if is_terminal else 10.0,
                ascii=None if is_terminal else " -#",
                bar_format=FORMAT,
            )

    def left(self, seconds: float | None) -> None:
        """So long it will still take."""
        if self._bar is not None:
            self._bar.left_s = seconds

    def advance(self, *, scored: bool) -> None:
        """One sample further."""
        if self._bar is None:
            return
        if not scored:
            self._unscored += 1
            self._bar.set_postfix_str(f"{self._unscored} unscored", refresh=False)
        self._bar.update()

    def tell(self, message: str) -> None:
        """Print a message above the bar."""
        if self._bar is None:
            click.echo(message, err=True)
        else:
            self._bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

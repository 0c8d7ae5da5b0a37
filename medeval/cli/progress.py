"""The one progress bar, and what is told beside it; all on stderr."""

import sys
from typing import Never

import click
from tqdm import tqdm


class BarProgress:
    """A bar with rate and time left; where stderr is no terminal, a line now and then instead."""

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None
        self._unscored = 0

    def expect(self, n_trajectories: int) -> None:
        """Open the bar for so many trajectories; none is shown where there is nothing to do."""
        if n_trajectories:
            is_terminal = sys.stderr.isatty()
            self._bar = tqdm(
                total=n_trajectories,
                unit=" samples",
                file=sys.stderr,
                dynamic_ncols=is_terminal,
                mininterval=0.1 if is_terminal else 10.0,
                ascii=None if is_terminal else " -#",
            )

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

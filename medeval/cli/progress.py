"""The one progress bar, and the messages above it; all on stderr."""

import sys

from tqdm import tqdm


class ProgressBar:
    """A bar with rate and time left; where stderr is no terminal, a line every ten seconds.

    Nothing is shown where no trajectory is missing.
    """

    def __init__(self, n_missing: int) -> None:
        is_terminal = sys.stderr.isatty()
        self._unscored = 0
        self._bar = tqdm(
            total=n_missing,
            disable=n_missing == 0,
            unit=" samples",
            file=sys.stderr,
            dynamic_ncols=is_terminal,
            mininterval=0.1 if is_terminal else 10.0,
            ascii=None if is_terminal else " -#",
            # samples end in bursts: a mean over more of them keeps the time left steady
            smoothing=0.05,
        )

    def advance(self, *, scored: bool) -> None:
        """Move the bar by one trajectory, and count it where it is left unscored."""
        if not scored:
            self._unscored += 1
            self._bar.set_postfix_str(f"{self._unscored} unscored", refresh=False)
        self._bar.update()

    @staticmethod
    def tell(message: str) -> None:
        """Print a message above the bar, if there is one."""
        tqdm.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

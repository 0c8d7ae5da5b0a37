"""The next checkpoint's files, brought into the machine's page cache while another one runs."""

import os
import threading
from pathlib import Path

BLOCK_BYTES = 2**23


def read_ahead(directory: Path) -> threading.Thread:
    """Read a checkpoint's weight files in a thread of their own; failures do not matter here."""
    thread = threading.Thread(
        target=_read_files, args=(directory,), name="medeval-read-ahead", daemon=True
    )
    thread.start()
    return thread


def _read_files(directory: Path) -> None:
    # one buffer for all: what is read is for the cache alone
    buffer = bytearray(BLOCK_BYTES)
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with path.open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while file.readinto(buffer):
                    pass
        except OSError:
            return

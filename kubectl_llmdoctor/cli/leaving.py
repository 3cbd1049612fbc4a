"""The end of the process."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """Ends the process as it stands.

    Taking apart what was imported is a tenth of a short run, and what was read of a large cluster half a second.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # the reader has what it wants
    except OSError as error:
        os.write(2, f"error: standard output: {error.strerror}\n".encode())
        status = 3
    os._exit(status)

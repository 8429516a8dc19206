"""The kar-aug command, also as `python -m kar_aug`: what it is made of is long to import, and comes with an extra."""

from kar_aug._helpers.interrupts import leave_at_once

leave_at_once()

import os  # noqa: E402
import sys  # noqa: E402

from kar_aug.errors import MissingDependencyError  # noqa: E402


def main() -> None:
    """Run the command line; where its packages are not installed, say in one line which extra brings them."""
    _open_streams()
    try:
        from kar_aug.cli import main as command
    except ModuleNotFoundError as error:
        sys.stderr.write(f"kar-aug: {MissingDependencyError.named(error, 'cli')}\n")
        sys.exit(2)
    command(prog_name="kar-aug")


def _open_streams() -> None:
    """Standard streams that take all text: a closed one (`>&-`) takes it nowhere, one of ASCII with escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()

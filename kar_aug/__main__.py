"""The kar-aug command, also as `python -m kar_aug`: what it is made of comes with an extra."""

import sys

from kar_aug.errors import MissingDependencyError


def main() -> None:
    """Run the command line; where its packages are not installed, say in one line which extra brings them."""
    try:
        from kar_aug.cli import main as command
    except ModuleNotFoundError as error:
        sys.stderr.write(f"kar-aug: {MissingDependencyError.named(error, 'cli')}\n")
        sys.exit(2)
    command(prog_name="kar-aug")


if __name__ == "__main__":
    main()

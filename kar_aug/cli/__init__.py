"""The kar-aug command: each stage by itself, and all of them as a demonstration."""

from kar_aug.cli.main import main

__all__ = ["main"]

"""`python -m kar_aug` is the kar-aug command."""

from kar_aug.cli import main

main(prog_name="kar-aug")

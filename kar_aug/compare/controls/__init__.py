"""What could make a gain that is no knowledge, one control a file.

metadata   what the prompts show, through the same encoder    shuffled   the right vectors, each for another id
random     other vectors of the same lengths                  bigger     no vectors, and as many parameters
collaborative   what behaviour says of items, alone, and beside the vectors of each text

A control is a `Control`; a name of the registry `CONTROLS` stands for its class.
"""

from kar_aug.compare.additions import Control

__all__ = ["Control"]

"""Stages as functions on Arrow record batches, called by whatever engine has the batches: Ray Data, Spark, a loop.

render      rows of users or items, with their events, into prompts
ask         prompts into answers: looked up in the text cache first, asked where there is none, stored, then returned
encode      texts into vectors
gather      ids into the vectors of a store
columns     what the columns of these batches are called, and hold
worker      what a function opens once in each process, however often it is pickled

Each takes a batch and returns it with further columns, as many rows in the same order. A wrong row never raises: its
status is a column. Calling one again with the same batch gives the same and asks nothing: so retries, speculation
and restarts of an engine cost nothing, and an engine's own checkpoints are not needed for what is paid.
"""

from kar_aug.errors import MissingDependencyError

try:
    import pyarrow as _pyarrow  # noqa: F401 - every module here needs it
except ImportError:
    raise MissingDependencyError("pyarrow", "parquet") from None

from kar_aug.arrow.ask import Ask
from kar_aug.arrow.columns import ids_as_json, prompt_batch
from kar_aug.arrow.encode import Encode
from kar_aug.arrow.gather import Gather
from kar_aug.arrow.render import Render

__all__ = ["Ask", "Encode", "Gather", "Render", "ids_as_json", "prompt_batch"]

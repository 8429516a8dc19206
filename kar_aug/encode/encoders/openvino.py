"""Sentence-transformers models on OpenVINO: the same vectors to two or three decimals, about twice as fast.

The transformer is converted once when it is loaded, straight from torch, and takes the place of torch's in the
sentence-transformers model, whose own batches, pooling, normalisation and prompts stay. 16-bit arithmetic is used where
the CPU has it (AVX-512 BF16, AMX); with 32 bits, elsewhere, little is gained.

`SentenceTransformer(backend="openvino")` is no faster. It needs optimum-intel, which holds transformers below 5.6 and
huggingface-hub below 1.22, brings eight packages, and reports its use over the network. Measured in
benchmarks/results/encoding.md.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from kar_aug.encode.encoders import Options
from kar_aug.encode.encoders.locate import MINILM
from kar_aug.encode.encoders.sentence_transformer import SentenceTransformerEncoder
from kar_aug.errors import EncodingError, MissingDependencyError


class OpenVINOEncoder(SentenceTransformerEncoder):
    """A sentence-transformers model whose transformer runs on OpenVINO.

    Args:
        name: a name on the Hugging Face hub, or a folder.
        long_texts: "average" splits texts beyond the model's window, "cut" leaves the rest out.

    Raises:
        EncodingError: The model cannot be loaded or converted.
        MissingDependencyError: openvino or sentence-transformers is not installed.
    """

    def __init__(self, name: str = MINILM, *, long_texts: str = "average") -> None:
        super().__init__(name, long_texts=long_texts)
        openvino = _without_telemetry()
        try:
            precision = _move(self._model, openvino)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise EncodingError(
                f"Encoder {name!r} cannot be converted to OpenVINO: {reason}. Leave 'openvino:' out.",
                encoder=name,
            ) from None
        self.name = f"{self.name}+openvino-{precision}"  # vectors differ in the third decimal: not to be mixed


def _move(model: Any, openvino: Any) -> str:
    """Let the model's transformer run on OpenVINO; "bf16" or "f32", what it computes in."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    model.to("cpu")
    transformer = model[0].auto_model
    example = model.tokenizer(["one text", "another, longer one"], padding=True, return_tensors="pt")
    inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of branches that no text takes
        converted = openvino.convert_model(_hidden_states(transformer), example_input=inputs)
    core = openvino.Core()
    precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(converted, "CPU", settings)

    def forward(input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        hidden = compiled([input_ids.numpy(), attention_mask.numpy()])[0]
        return BaseModelOutput(last_hidden_state=torch.from_numpy(hidden).float())

    transformer.forward = forward
    return precision


def _hidden_states(transformer: Any) -> Any:
    """The last hidden states alone, whose conversion needs no dictionary."""
    import torch

    class HiddenStates(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    return HiddenStates().eval()


def _without_telemetry() -> Any:
    """OpenVINO, which tells its makers over the network that it was imported, and what it converts, unless it misses
    the package for that.
    """
    silenced = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise MissingDependencyError("openvino", "openvino") from None
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]
    return openvino


def load(name: str, options: Options) -> OpenVINOEncoder:
    """For the registry."""
    return OpenVINOEncoder(name, long_texts=options.long_texts)

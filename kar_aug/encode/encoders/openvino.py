"""Sentence-transformers models on OpenVINO: the same vectors to two or three decimals, about twice as fast.

The transformer is converted once when it is loaded, straight from torch; pooling, normalisation and prompts stay the
model's own. 16-bit arithmetic is used where the CPU has it (AVX-512 BF16, AMX); with 32 bits, elsewhere, little is
gained. Measured in benchmarks/results/encoding.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.encode.encoders import Options
from kar_aug.encode.encoders.locate import MINILM
from kar_aug.encode.encoders.long_texts import encode_in_pieces, token_starts
from kar_aug.encode.encoders.sentence_transformer import load_sentence_transformer, pooling_of, window_of
from kar_aug.errors import EncodingError, MissingDependencyError

_BATCH = 16


class OpenVINOEncoder:
    """A sentence-transformers model whose transformer runs on OpenVINO.

    Args:
        name: a name on the Hugging Face hub, or a folder.
        long_texts: "average" splits texts beyond the model's window, "cut" leaves the rest out.

    Raises:
        EncodingError: The model cannot be loaded or converted.
        MissingDependencyError: openvino or sentence-transformers is not installed.
    """

    def __init__(self, name: str = MINILM, *, long_texts: str = "average") -> None:
        self._model, called = load_sentence_transformer(name)
        self._compiled, precision = _compile(name, self._model)
        self.name = f"{called}+openvino-{precision}"  # vectors differ in the third decimal: not to be mixed
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.pooling, self.normalized = pooling_of(self._model)
        self.long_texts = "averaged" if long_texts == "average" else "cut"
        self.split = 0
        self._window = window_of(self._model)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension), float32."""
        if self._window is None or self.long_texts == "cut":
            return self._encode(list(texts))
        starts = token_starts(self._model.tokenizer)
        vectors, split = encode_in_pieces(texts, starts, self._window, self._encode, normalized=self.normalized)
        self.split += split
        return vectors

    def _encode(self, texts: list[str]) -> npt.NDArray[Any]:
        import torch

        prompt = self._model.prompts.get(self._model.default_prompt_name or "", "")
        order = np.argsort([len(text) for text in texts])  # neighbours of like length need little padding
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            features = self._model.preprocess([prompt + texts[i] for i in batch])
            hidden = self._compiled([features[name].numpy() for name in ("input_ids", "attention_mask")])[0]
            features["token_embeddings"] = torch.from_numpy(np.asarray(hidden, np.float32))
            with torch.inference_mode():
                for module in list(self._model)[1:]:
                    features = module(features)
            vectors[batch] = features["sentence_embedding"].numpy()
        return vectors


def _compile(name: str, model: Any) -> tuple[Any, str]:
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    except ImportError:
        raise MissingDependencyError("openvino", "openvino") from None
    import torch

    class Hidden(torch.nn.Module):
        """The last hidden state alone, whose conversion needs no dictionary."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer = getattr(model[0], "auto_model", None) or model[0].model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    try:
        example = model.tokenizer(["one text", "another, longer one"], padding=True, return_tensors="pt")
        inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
        # Not openvino.convert_model: that one reports over the network.
        frontend = FrontEndManager().load_by_framework("pytorch")
        model.to("cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of branches that no text takes
            decoder = TorchScriptPythonDecoder(Hidden().eval(), example_input=inputs)
        converted = frontend.convert(frontend.load(decoder))
        for place in converted.inputs:
            place.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
            place.get_node().set_element_type(openvino.Type.i64)
        converted.validate_nodes_and_infer_types()
        core = openvino.Core()
        precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": precision}
        return core.compile_model(converted, "CPU", settings), precision
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise EncodingError(
            f"Encoder {name!r} cannot be converted to OpenVINO: {str(error).splitlines()[0]}. Leave 'openvino:' out.",
            encoder=name,
        ) from None


def load(name: str, options: Options) -> OpenVINOEncoder:
    """For the registry."""
    return OpenVINOEncoder(name, long_texts=options.long_texts)

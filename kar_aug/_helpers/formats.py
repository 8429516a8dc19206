"""What a model can be written as for serving: see `kar_aug.models.export`."""

from __future__ import annotations

SAVED_MODEL, ONNX, TFLITE = FORMATS = ("savedmodel", "onnx", "tflite")

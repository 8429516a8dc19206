"""What serving is given: a model as a file (see `kar_aug.models.export`), vectors (see `kar_aug.online`)."""

from __future__ import annotations

SAVED_MODEL, ONNX, TFLITE = FORMATS = ("savedmodel", "onnx", "tflite")
VECTORS = ("raw", "augmented")  # as they were encoded, or as a trained model's experts made them

"""What serving is given: a model as a file (see `kar_aug.models.export`), vectors (see `kar_aug.online`)."""

from __future__ import annotations

import os
from pathlib import Path

from kar_aug._helpers.targets import check_folder, check_free, local
from kar_aug.errors import StoreError

SAVED_MODEL, ONNX, TFLITE = FORMATS = ("savedmodel", "onnx", "tflite")
VECTORS = ("raw", "augmented")  # as they were encoded, or as a trained model's experts made them

# What is in the folder of a model that is exported.
FILES = {ONNX: "model.onnx", TFLITE: "model.tflite"}
NOTE, ENCODINGS, EXTRA = "kar_aug.json", "encodings.json", "assets.extra"
_OF_TENSORFLOW = ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets", EXTRA)


def folder_for_model(where: Path | str) -> Path:
    """The folder that a model is to be exported to, links followed.

    Raises:
        ConfigError: It is no path.
        StoreError: It cannot be written to, or holds something else than an older export, which would be lost; or
            nothing can take its place, since another file system is there.
    """
    path = local(where).resolve()
    ours = (*FILES.values(), NOTE, ENCODINGS, *_OF_TENSORFLOW)
    if os.path.ismount(path):
        raise StoreError(
            f"{path} is a mount point, which nothing can take the place of. Name a folder in it.", path=path
        )
    check_folder(path)
    check_free(path, ours, notes=(NOTE, f"{EXTRA}/{NOTE}"))
    return path

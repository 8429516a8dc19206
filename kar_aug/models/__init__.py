"""What is done to whole models: add knowledge to one that exists, renew it, prestore it for serving, export it."""

from kar_aug.models.augment import attachment_points, augment, load_model, prestore, refresh

__all__ = ["attachment_points", "augment", "load_model", "prestore", "refresh"]

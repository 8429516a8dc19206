"""What is done to whole models.

augment   add knowledge to one that exists     change   prestore it for serving, renew it, load the model
find      where the layers are, and models with others in their place
export    a SavedModel                         join     vectors that come with each batch, for tables larger than memory
preprocessing  raw ids and values as inputs    encoded  vocabularies, buckets and scales, in TensorFlow
augmented  augmented vectors by id, as a store
"""

from kar_aug.cache.vectors.join import join
from kar_aug.models.augment import attachment_points, augment
from kar_aug.models.augmented import augmented_store
from kar_aug.models.change import load_model, prestore, refresh

__all__ = ["attachment_points", "augment", "augmented_store", "join", "load_model", "prestore", "refresh"]

"""What is done to whole models.

augment   add knowledge to one that exists     change   prestore it for serving, renew it, load the model
find      where the layers are, and models with others in their place
export    a SavedModel                         join     vectors that come with each batch, for tables larger than memory
preprocessing  raw ids and values as inputs    encoded  vocabularies, buckets and scales, in TensorFlow
augmented  augmented vectors by id, as a store      coverage  how much is known of the ids that a model reads
states  sums over users' events, kept and added to, and models that read these in place of events
versions  of vectors that a model learnt to read     wide_floats  of 64 bits where a runtime computes in none
vectors_as_inputs  models that vectors come to with each row, and a model in two parts: vectors by id, and a ranker
"""

from kar_aug.cache.vectors.join import join
from kar_aug.models.augment import attachment_points, augment
from kar_aug.models.augmented import augmented_store
from kar_aug.models.change import load_model, prestore, refresh
from kar_aug.models.states import UserStates, states_as_inputs
from kar_aug.models.vectors_as_inputs import Split, split, vectors_as_inputs
from kar_aug.models.versions import versions_of

__all__ = [
    "Split",
    "UserStates",
    "attachment_points",
    "augment",
    "augmented_store",
    "join",
    "load_model",
    "prestore",
    "refresh",
    "split",
    "states_as_inputs",
    "vectors_as_inputs",
    "versions_of",
]

"""Add knowledge to a Keras model that exists, train on, and make the model for serving. Runs as it stands.

The vectors are random here, so that the example needs nothing else; yours come from `kar-aug encode`.
"""

import tempfile

import numpy as np
import tensorflow as tf

from kar_aug import KnowledgeAugmentation, VectorStore, augment, prestore
from kar_aug.cache import StoreSpec

folder = tempfile.mkdtemp()
with VectorStore.writer(folder, StoreSpec(encoder="random", dimension=384)) as writer:
    writer.append(["tt0116282", "tt0086979"], ["text 1", "text 2"], np.random.default_rng(0).normal(size=(2, 384)))

# Your model: integer ids in, a click probability out.
item_id = tf.keras.Input((1,), name="item_id", dtype="int32")
embedded = tf.keras.layers.Flatten()(tf.keras.layers.Embedding(4, 8)(item_id))
hidden = tf.keras.layers.Dense(16, activation="relu")(embedded)
model = tf.keras.Model(item_id, tf.keras.layers.Dense(1, activation="sigmoid")(hidden))

# Ten lines: the store, aligned with your vocabulary (what your model calls 1 is vocabulary[1]), becomes a layer.
items = VectorStore.open(folder)
vocabulary = [
    None,
    "tt0116282",
    "tt0086979",
    "tt9999999",
]  # the last one has no knowledge: it gets a learned default
augmentation = KnowledgeAugmentation({"item_id": items.align(vocabulary)})
augmented = augment(model, augmentation)  # predicts what `model` predicts, until it is trained on

ids = np.asarray([[1], [2], [3]], "int32")
print("unchanged:", np.allclose(model.predict(ids, verbose=0), augmented.predict(ids, verbose=0), atol=1e-6))
augmented.compile("adam", "binary_crossentropy")
augmented.fit(ids, np.asarray([1, 0, 1]), epochs=5, verbose=0)
serving = prestore(augmented)  # no expert network is left: a look-up an id
print("same:", np.allclose(serving.predict(ids, verbose=0), augmented.predict(ids, verbose=0), atol=1e-5))

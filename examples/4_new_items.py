"""A new item gets knowledge without training: its text is encoded, and the model looks it up. Runs as it stands.

The texts are your own here, as editors wrote them: no language model is asked.
"""

import tempfile

import numpy as np
import tensorflow as tf

from kar_aug import KnowledgeAugmentation, VectorStore, prestore, refresh
from kar_aug.cache import Knowledge
from kar_aug.encode import encode
from kar_aug.testing import HashEncoder

STYLES = {"quiet": "a quiet slow drama of memory", "loud": "loud chases explosions and jokes"}


def texts(ids, styles):
    """What is known of items: the text, and where it comes from."""
    for item, style in zip(ids, styles, strict=True):
        yield Knowledge("item", item, STYLES[style], f"key {item}", "our editors", "1", None)


folder, encoder = tempfile.mkdtemp(), HashEncoder(16)
styles = ["quiet" if item % 2 else "loud" for item in range(40)]
encode(texts(range(40), styles), folder, encoder)

# A model that knows an item by nothing but its knowledge. Everybody likes what is quiet.
items = VectorStore.open(folder)
spare = [*range(40), 1000, 1001]  # two rows for items that are to come
augmentation = KnowledgeAugmentation({"item_id": items.align(spare)}, shared_experts=1, dedicated_experts=1)
item_id = tf.keras.Input((1,), name="item_id", dtype="int32")
fields = augmentation({"item_id": item_id})
clicked = tf.keras.layers.Dense(1, activation="sigmoid")(tf.keras.layers.Flatten()(fields["item_id"]))
model = tf.keras.Model(item_id, clicked)
model.compile(tf.keras.optimizers.Adam(0.02), "binary_crossentropy")
seen = np.arange(40)[:, None]
model.fit(seen, np.array([style == "quiet" for style in styles], "float32"), epochs=20, batch_size=8, verbose=0)

# Two items come: their texts are encoded into the same store, and the model takes its newest vectors.
new = np.array([[40], [41]])  # their rows in the vocabulary
print("before:", prestore(model).predict(new, verbose=0).ravel().round(2), "the same of both: nothing is known")
encode(texts([*range(40), 1000, 1001], [*styles, "quiet", "loud"]), folder, encoder)
serving = prestore(refresh(model, {"item_id": VectorStore.open(folder).align(spare)}))
after = serving.predict(new, verbose=0).ravel()
print("after:", after.round(2), "the quiet one is liked:", bool(after[0] > 0.5 > after[1]))

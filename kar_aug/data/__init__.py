"""What people bring, and what a CTR model reads of it.

tables    interactions, items and users, checked     split     history, train, validation and test, without leaks
features  samples: integer features, click histories, labels
"""

from kar_aug.data.split import PARTS, as_of, split_interactions
from kar_aug.data.tables import Tables, load_tables

__all__ = ["PARTS", "Tables", "as_of", "load_tables", "split_interactions"]

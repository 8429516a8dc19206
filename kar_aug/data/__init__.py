"""What people bring, and what a CTR model reads of it.

tables    interactions, items and users, checked     split     history, train, validation and test, without leaks
inputs    what a model is to read     features, samples  what it reads, and the rows; building makes them
encodings categories, buckets, scales    sequences  earlier events    negatives  drawn ones    labels  what a click is
reading   files of all kinds as frames or batches    types     columns of any type as the few that are kept
guessing  which of a person's files is which, and what models may read of their columns
ids, times                                           cells     one value, several, or none: who reads a cell asks here
"""

from kar_aug.data.split import PARTS, as_of, split_interactions
from kar_aug.data.tables import Tables, load_tables

__all__ = ["PARTS", "Tables", "as_of", "load_tables", "split_interactions"]

"""What people bring, and what a CTR model reads of it.

tables     interactions, items and users, checked    split      history, train, validation and test, without leaks
inputs     what a model is to read, as settings      features   what it has an input of
building   tables and split made into samples        samples    the rows, gathered when a batch is read
encodings  categories, buckets, scales               sequences  earlier events, as windows of one table
labels     what a click is                           negatives  drawn ones
prepared   samples in a folder, mapped into memory   guessing   which of a person's files is which
reading    files of all kinds, frames or batches     types      columns of any type as the few that are kept
ids, times                                           cells      one value, several, or none: who reads one asks here
room       where columns as long as a log are put: in memory, or in files mapped into it
"""

import warnings

from pandas.errors import PerformanceWarning

from kar_aug.data.split import PARTS, as_of, split_interactions
from kar_aug.data.tables import Tables, load_tables

__all__ = ["PARTS", "Tables", "as_of", "load_tables", "split_interactions"]

# Each column of a table is a block of its own, as `read_csv` makes it and as long ones lie in files: from a hundred on
# pandas advises against one more, and to copy all.
warnings.filterwarnings("ignore", "DataFrame is highly fragmented", PerformanceWarning, r"kar_aug\.")

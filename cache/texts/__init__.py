"""The text cache: raw answers by content, claims, batches that run, checks, Parquet."""

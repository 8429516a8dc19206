"""The text cache: raw answers by content, claims, batches that run, the ledger of what they cost, checks, Parquet."""

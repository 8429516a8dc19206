"""The vector store: a memory-mapped matrix, its ids, and the manifest that pins what made it."""

"""What both clients, of language models and of embeddings, know of servers: addresses, words, waits, sizes."""

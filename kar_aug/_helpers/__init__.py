"""What several rooms need and none of them is about; nothing here is public.

keras, tensorflow, quiet   which Keras this process computes with, and how much of it is heard
database, files, formats   SQLite and PostgreSQL, whole files or none, the formats of exports
targets                    where exports may be written
servers                    what both clients know of servers: addresses, words, waits, sizes
batched, times, toml       rows by the batch, moments as integers, TOML that is edited and not rewritten
processes, interrupts      children that end with their parent, and Ctrl-C
foreign, settings, stage   others' text made harmless to look at, settings' own checks, packages that can be called
"""

"""The stages of one kar.toml, joined: what each reads and writes, and where."""

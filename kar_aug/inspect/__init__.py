"""Looking at what a run made: the neighbours of a vector, a store as a picture."""

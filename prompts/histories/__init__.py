"""The events of users' histories: as rows, the chosen ones of many, and as summaries."""

"""The asv suite: how gradsim's own times move from revision to revision."""

"""How one process holds two versions of the same modules."""

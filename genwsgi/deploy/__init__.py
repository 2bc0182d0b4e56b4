"""One host: all workers take a release, or none does."""

"""Tools for maintainers. The job does not need them to run."""

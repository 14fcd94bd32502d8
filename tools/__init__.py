"""Maintainers' scripts: chapters to notebooks, notebooks to book."""

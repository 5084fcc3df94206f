"""Measurements of the template and of the project it generates: `python -m benchmarks`."""

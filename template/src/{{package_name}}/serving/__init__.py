"""The champion over HTTP: `python -m` this package starts the service."""

"""The pipeline: stages in plain Python, the domain they work on, and what they lean on."""

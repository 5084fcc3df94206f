"""The assets: the data that both pipelines make, and what each makes of it."""

"""The pipelines on Prefect."""

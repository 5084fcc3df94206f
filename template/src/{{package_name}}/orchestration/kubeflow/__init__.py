"""The pipelines on Kubeflow Pipelines."""

"""The pipelines as Kubeflow runs them."""

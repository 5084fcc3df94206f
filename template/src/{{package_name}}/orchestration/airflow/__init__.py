"""The pipelines on Airflow."""

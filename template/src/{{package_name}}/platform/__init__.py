"""What every stage leans on: settings, storage, tracking, alerts, metrics, drift."""

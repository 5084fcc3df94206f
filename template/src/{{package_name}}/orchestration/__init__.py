"""What runs the pipelines: one folder for the engine, and what any engine needs."""

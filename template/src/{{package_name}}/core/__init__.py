"""What every stage leans on: settings, storage, tracking, references, errors, time limits."""

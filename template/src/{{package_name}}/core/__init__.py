"""What every stage builds on: settings, storage, tracking, references, errors, time limits."""

"""Fault drills: what breaks runs, what is broken, and what must be so after it."""

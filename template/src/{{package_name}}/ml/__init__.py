"""Pure functions of machine learning: metrics, drift, plots."""

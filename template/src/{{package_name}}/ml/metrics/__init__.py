"""Metrics and plots of the prediction problem."""

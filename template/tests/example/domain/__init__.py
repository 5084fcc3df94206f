"""The example's data contract, features and prediction problem."""

"""What happens in years: what newer versions of the template change, and what a team does."""

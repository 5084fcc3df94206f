"""A domain of texts, whose candidates are made of what the template does not have."""

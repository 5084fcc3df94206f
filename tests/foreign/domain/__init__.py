"""A domain that has nothing of the sample: tumours, without a time and without a key."""

"""What our project is about. Ours.

Frozen: the domain of a team that has had the template since version 0.1.0. Never edit it. When a
test with it fails, ml/ has lost what teams use: bring that back, under its old name too.
"""

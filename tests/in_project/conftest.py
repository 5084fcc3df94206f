"""What is below runs inside a rendered project (tests/render/test_in_project.py), not here."""

collect_ignore_glob = ["*"]

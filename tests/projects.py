"""Goes with test_hostile_project.py, once that has moved to its topic: import support.projects."""

from .support.projects import Project, make_installed_project

__all__ = ["Project", "make_installed_project"]

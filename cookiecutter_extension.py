"""What the defaults in cookiecutter.json need: Copier's macros, and the filters these use."""

import os
import re
from pathlib import Path

from jinja2 import DictLoader, Environment
from jinja2.ext import Extension

MACROS = {
    f"includes/{path.name}": path.read_text(encoding="utf-8")
    for path in Path(__file__).parent.glob("includes/*.jinja")
}
# Hooks run in other folders, and need this one to find a template with a relative path.
CALLED_FROM = os.getcwd()


class CopierMacros(Extension):
    """Lets Cookiecutter import the macros in includes/ as Copier does."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.loader = DictLoader(MACROS)
        environment.filters["regex_search"] = lambda text, pattern: re.search(pattern, text)
        environment.filters["regex_replace"] = lambda text, pattern, by: re.sub(pattern, by, text)
        environment.globals["called_from"] = CALLED_FROM

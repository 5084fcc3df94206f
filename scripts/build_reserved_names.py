"""Build the list of names that a generated project or its package must not have.

A project called `airflow` would hide the real one. Taken are Python's keywords and standard
library, everything importable or installed in a generated project, the project's own folders,
and what later variants are planned to need.

    python scripts/build_reserved_names.py --environment .venv/bin/python python3.11 python3.12 …

Add names before a release, never after it: on `copier update`, an answer that the new list
refuses is replaced by its default, which renames a user's package.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "includes" / "reserved.jinja"

LANGUAGE = """
import json, keyword, sys
print(json.dumps([*sys.stdlib_module_names, *keyword.kwlist, *keyword.softkwlist]))
"""
INSTALLED = """
import json, importlib.metadata as m
# The project itself is installed from its folder.
own = {d.name for d in m.distributions() if d.read_text("direct_url.json")}
packages = m.packages_distributions()
modules = [name for name, homes in packages.items() if not own & set(homes)]
print(json.dumps([*modules, *(d.name for d in m.distributions() if d.name not in own)]))
"""
FOLDERS = (
    *("build", "config", "dags", "data", "definitions", "deploy", "dist", "docs", "flows"),
    *("includes", "notebooks", "pipelines", "plugins", "scripts", "src", "test", "tests", "var"),
)
PLANNED = (
    *("boto3", "botocore", "celery", "dagster", "dagster_celery", "dagster_k8s"),
    *("dagster_postgres", "dagster_webserver", "dask", "distributed", "docker", "fastapi"),
    *("fsspec", "kfp", "kfp_kubernetes", "kubernetes", "pip", "prefect", "prefect_dask"),
    *("prometheus_client", "psycopg", "psycopg2", "redis", "s3fs", "setuptools", "uv", "uvicorn"),
    *("wheel", "xgboost"),
)


def ask(python: str, program: str) -> list[str]:
    """Return the JSON list that `program` prints when run by the interpreter `python`."""
    done = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout))


def normalise(names: list[str]) -> list[str]:
    """Return the names as a package would be spelt, sorted, without those that cannot be one."""
    spelt = {re.sub(r"[-.]+", "_", name.lower()) for name in names}
    return sorted(name for name in spelt if re.fullmatch(r"[a-z][a-z0-9_]*", name))


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the list of reserved names.")
    parser.add_argument(
        "--environment", action="append", required=True, help="Python of a generated project"
    )
    parser.add_argument("pythons", nargs="+", help="one interpreter of each supported version")
    args = parser.parse_args()

    names = [*FOLDERS, *PLANNED]
    for python in args.environment:
        names += ask(python, INSTALLED)
    for python in args.pythons:
        names += ask(python, LANGUAGE)
    listed = "\n".join(f'  "{name}",' for name in normalise(names))
    TARGET.write_text(
        "{#- Written by scripts/build_reserved_names.py: do not edit. -#}\n"
        f"{{%- set reserved = [\n{listed}\n] -%}}\n"
    )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Stands in for Grafana, of which there is no package: it draws nothing.

Refuses to start when what is provisioned is not there or does not hold together; answers
/api/health as Grafana does.
"""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

PROVISIONING = Path(os.environ.get("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning"))


def provisioned(kind: str, key: str) -> list[dict[str, Any]]:
    """Return the data sources, or the folders with dashboards, of all provisioning files."""
    files = sorted((PROVISIONING / kind).glob("*.y*ml"))
    found = [entry for file in files for entry in yaml.safe_load(file.read_text())[key]]
    assert found, f"nothing is provisioned below {PROVISIONING / kind}"
    return found


def check() -> None:
    """Check that every dashboard can be read and asks a data source that there is.

    Raises:
        AssertionError: It does not hold together; says where.
        KeyError: A field is missing.
        ValueError: A file cannot be read.
    """
    sources = {source["uid"] for source in provisioned("datasources", "datasources")}
    for provider in provisioned("dashboards", "providers"):
        files = sorted(Path(provider["options"]["path"]).rglob("*.json"))
        assert files, f"no dashboard in {provider['options']['path']}"
        for file in files:
            dashboard = json.loads(file.read_text())
            assert dashboard["uid"], f"{file}: no uid"
            for panel in dashboard["panels"]:
                # A row only groups.
                if panel["type"] not in ("row", "text"):
                    source = panel["datasource"]["uid"]
                    assert source in sources or source.startswith("$"), f"{file}: source {source}"
            print(f"dashboard {dashboard['uid']}: {dashboard['title']}", flush=True)
    assert os.environ.get("GF_SECURITY_ADMIN_PASSWORD"), "the password would be Grafana's default"


class Handler(BaseHTTPRequestHandler):
    """Answers that the database is fine, and nothing else."""

    def do_GET(self) -> None:
        known = self.path == "/api/health"
        body = json.dumps({"database": "ok"} if known else {"message": "a stand-in"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    check()
    ThreadingHTTPServer(("", 3000), Handler).serve_forever()

"""config/pipeline.toml as it is written, for files that an engine parses again and again.

Standard library only. Stages take `load_settings`, which also reads the environment.
"""

from __future__ import annotations

import tomllib

from ..core.paths import config_file, project_root

CONFIG = tomllib.loads(config_file(project_root()).read_text())
PROJECT = CONFIG.get("project", {})
SCHEDULE = CONFIG.get("schedule", {})
LIMITS = CONFIG.get("limits", {})

"""What Dagster loads: everything that the files in defs/ define, also those that you add."""

from pathlib import Path

import dagster as dg

# At import, not in a function marked by `@dg.definitions`: steps are forked from a process that
# has imported this, and would each load it again.
defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)

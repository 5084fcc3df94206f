"""Steps to add: after validation, after promotion, after scoring. Yours.

Each is a function of the run and of what the stage before it returned, and becomes a separate
task on every engine, with the same retries, time limit and alerts as all others:

    def tell_colleagues(run: Run, promotion: PromotionRef) -> dict[str, Any]:
        ...
        return {"told": 3}

The files that a reference names are read with `storage.read_parquet` and `storage.path_of` of
core/, since a `uri` is an address below the artefact root.

Return something small: nothing, or a dict that JSON can hold. Import heavy libraries inside the
function, since the engines read this file whenever they load a pipeline.
"""

from __future__ import annotations

AFTER_VALIDATE = ()
AFTER_PROMOTE = ()
AFTER_SCORE = ()

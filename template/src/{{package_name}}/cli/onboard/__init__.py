"""From an unknown table to a first draft of all the team's files, and a model.

`look` measures the table, `infer` proposes what its columns are for, `profile_page` shows both,
`write` puts it into files, and `command` runs these in turn.
"""

"""From a table that nobody here has seen to a first draft of all that is the team's, and a model.

`look` measures the table, `infer` proposes what its columns are for, `profile_page` shows both,
`write` puts it into files, and `command` does these in turn.
"""

"""The path of a default step stays readable: the file changes rarely."""

from step_path import changes, mean_changes, paths

BEFORE = 249
"""Changes of file on a default step before the library moved into rooms."""


def test_the_path_of_a_default_step_has_half_the_changes_of_file():
    found = paths()
    assert mean_changes(found) <= BEFORE / 2
    assert changes(found["measures h"]) <= 0.6 * BEFORE
    assert changes(found["uses h again"]) <= BEFORE / 5

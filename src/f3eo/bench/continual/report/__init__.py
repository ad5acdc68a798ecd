"""The page of a stream study: tables, matrices, curves, tests, claims and goals, from its rows."""

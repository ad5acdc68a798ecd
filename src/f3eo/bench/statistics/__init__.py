"""Statistics of runs: intervals, tests, ranks, profiles and the goals counted from them."""

"""What a study of many methods on many tasks says: scores, tests, ranks, goals, and a page."""

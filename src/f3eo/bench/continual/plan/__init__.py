"""The plan of a study of streams: prices, tuning, results."""

"""Plans: comparisons and studies, their search spaces, choices and variants."""

"""F3EO in the loops of others: one file each, which alone imports its framework (docs/loops.md)."""

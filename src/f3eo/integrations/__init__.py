"""F3EO in the loops that people have: one package for each, imported by nothing else here."""

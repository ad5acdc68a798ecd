"""Per-sample gradients of the recorded operations, and their norms."""

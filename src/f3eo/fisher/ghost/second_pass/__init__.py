"""The forward pass once more, every sample at parameters of its own."""

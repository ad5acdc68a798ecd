"""One forward pass, with every operation in which parameters meet samples."""

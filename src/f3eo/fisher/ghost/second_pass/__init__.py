"""The second pass: the forward pass with parameters of each sample's own."""

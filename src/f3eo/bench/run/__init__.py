"""One run: training, measurements, and its row."""

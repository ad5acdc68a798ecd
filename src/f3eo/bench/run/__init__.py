"""One run: training, measurement, and the row that it gives."""

"""One run of a learner on a stream: training, measurements, and the row that keeps them."""

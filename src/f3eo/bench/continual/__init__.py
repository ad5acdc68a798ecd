"""Learning of one task after another: streams of tasks, learners, runs, numbers and their page."""

"""What is compared: methods, spaces, tuning, and the plan of a study."""

"""The user's closure: its batch, one checked evaluation, and the state around it."""

"""`f3eo inspect`: what the instruments say of a trained model, on one page."""

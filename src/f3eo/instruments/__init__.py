"""Instruments: what the Fisher information of a model says about it, as plain numbers."""

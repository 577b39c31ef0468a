"""Trained models as source text for other programs."""

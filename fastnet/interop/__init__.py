"""Models from other programs, and for them."""

"""How time is taken: pinned cores, turns, and what is said of the machine."""

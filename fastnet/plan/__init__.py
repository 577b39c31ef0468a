"""Plans: from a graph of ops to programs of instructions on segments."""

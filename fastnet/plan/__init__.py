"""Plans: a graph of ops is compiled to programs of instructions on segments."""

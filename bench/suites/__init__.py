"""What is measured in a way of its own: fresh processes, sizes, threads, pytest-benchmark's suites."""

"""What is made from a run's times: ratios, the report's sections, plots."""

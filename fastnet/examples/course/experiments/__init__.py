"""A module for each experiment, which `fastnet.examples.course.found` finds here."""

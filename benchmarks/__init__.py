"""Measurements of the job. The job itself does not use them."""

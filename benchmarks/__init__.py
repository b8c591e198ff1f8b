"""What measures the job; not part of it."""

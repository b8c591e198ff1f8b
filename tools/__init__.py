"""What maintainers run by hand; nothing here is needed to run the job."""

"""One module per DVC stage. Stages only read and write the workspace; other packages do the work."""

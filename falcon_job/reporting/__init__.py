"""What people read: tables on the terminal and the model card."""

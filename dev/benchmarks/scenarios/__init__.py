"""What is measured, one scenario per module."""

"""What only a developer of this provider runs."""

"""What several environments verify with."""

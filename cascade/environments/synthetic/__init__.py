"""What the generators of synthetic rows share: rows, vocabulary, a world of stories, arithmetic."""

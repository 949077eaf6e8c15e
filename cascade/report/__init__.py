"""What came out: the result table for the terminal (`table`), and one HTML page with tables and figures (`page`)."""

"""What was said: conversations kept in one SQLite file, found again and exported."""

"""The tests: a folder for each part, beside what it shares."""

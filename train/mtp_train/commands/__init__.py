"""One module for each command of mtp-train, or for those that belong together."""

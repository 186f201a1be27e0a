"""Measurements that need more than `mtp-bench`: built by hand, run by hand, kept in LOG.md."""

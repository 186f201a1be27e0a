"""What mtp-convert does: each command makes a plan, or tells what is there."""

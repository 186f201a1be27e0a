"""What the target chooses, and so what stands of a draft. Knows rows of logits and ids alone."""

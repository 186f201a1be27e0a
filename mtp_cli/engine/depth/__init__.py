"""How far to draft: what a round costs, what survives, and so the depth. Pure but for the clock."""

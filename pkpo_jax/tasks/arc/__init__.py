"""ARC-AGI-1: from pairs of grids, find the rule and apply it to one more grid."""

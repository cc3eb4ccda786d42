"""What a run will cost, worked out without weights, data or accelerator: memory, work, seconds."""

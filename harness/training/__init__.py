"""Budgets, schedules, optimisers, checkpoints and the loop that trains."""

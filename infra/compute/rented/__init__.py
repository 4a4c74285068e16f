"""What every rented target shares: a machine per flow run, found by its label, followed to its end, and ended at its lease."""

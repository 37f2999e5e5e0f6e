"""The worker: a loop of turns, and the pool that runs activities."""

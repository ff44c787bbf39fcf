"""The mmengine Runner and what hangs on it: loop, optimizer wrapper, schedules, checkpoints, hooks."""

"""The mmengine Runner and what hangs on it: loop, optimizer wrapper, schedules, checkpoints, hooks."""

from medtune.compat import quiet_bitsandbytes

quiet_bitsandbytes()  # before mmengine and PEFT import it

"""Models that came with modelling code of their own, brought into transformers' classes without running that code."""

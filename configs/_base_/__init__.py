"""Base configs in five parts, and the pieces they share."""

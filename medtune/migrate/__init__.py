"""Configs of other frameworks as configs of medtune: read as text, never run."""

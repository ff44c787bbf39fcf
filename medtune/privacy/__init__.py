"""Identifiers of people in text: find them, and put others in their place."""

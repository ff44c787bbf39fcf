"""The built-in configs, installed as `medtune.configs`."""

"""labctl: one YAML file becomes a running, isolated, multi-VM security lab, and labctl proves the isolation."""

__version__ = "0.1.0"

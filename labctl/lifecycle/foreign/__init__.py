"""Other tools' descriptions of labs, translated into labctl's language."""

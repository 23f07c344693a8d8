"""The command line: parse, call one recipe of ``labctl.lifecycle``, print."""

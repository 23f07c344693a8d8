"""This computer: programs, files, processes, ports, network namespaces, terminals."""

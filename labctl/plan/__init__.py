"""From a spec to a plan: addresses, routes, firewall rules, expected flows, guest scripts. No I/O."""

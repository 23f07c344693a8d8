"""From a ``lab.yaml`` to frozen values: source, schema, rules, model, load."""

"""A class: one lab, a roster, an instance for every student or team, and verbs for all of them at once."""

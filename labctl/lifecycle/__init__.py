"""The recipe of each verb. The command line parses and prints; everything it does is a function here."""

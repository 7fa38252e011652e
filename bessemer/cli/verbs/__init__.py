"""One module per verb: NAME and command."""

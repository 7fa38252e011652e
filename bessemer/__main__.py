"""`python -m bessemer` is the command `bessemer`."""

from bessemer.cli.main import main

main()

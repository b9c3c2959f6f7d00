"""`python -m burnin`."""

from burnin.cli import main

main()

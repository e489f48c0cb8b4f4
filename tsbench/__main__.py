"""`python -m tsbench`: the same as the console script."""

from tsbench.cli import main

main()

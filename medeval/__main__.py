"""`python -m medeval`: the command line."""

from medeval.cli import main

if __name__ == "__main__":
    main()

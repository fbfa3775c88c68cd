"""`python -m qatie_cli` is `qatie`."""

from qatie_cli.cli import main

if __name__ == "__main__":
    main()

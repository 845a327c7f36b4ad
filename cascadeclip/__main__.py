"""`python -m cascadeclip` is the command `cascadeclip`."""

from cascadeclip.cli import main

if __name__ == "__main__":
    main()

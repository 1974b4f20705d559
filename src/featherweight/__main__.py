"""`python -m featherweight`: the same as `fw`."""

from featherweight.cli import main

if __name__ == "__main__":
    main()

"""`python -m harness`, for torchrun and for machines without the script on the path."""

from harness.cli import main

if __name__ == "__main__":
    main()

"""`python -m concept_depth` is the command `concept-depth`."""

from concept_depth.cli.main import main

if __name__ == "__main__":
    main()

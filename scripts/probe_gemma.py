"""Probe a Gemma model: python scripts/probe_gemma.py [CONCEPT…] [--size 270m] [OPTION…].

Every option of `concept-depth run` works too, and `accelerate launch` divides the work among processes.
"""

from concept_depth.cli.family import main

CHECKPOINTS = {
    # those of the paper
    "2b": "google/gemma-2b",
    "7b": "google/gemma-7b",
    # the current ones
    "270m": "gemma3-270m",
    "3-1b": "google/gemma-3-1b-pt",
    "3-4b": "google/gemma-3-4b-pt",
    "3-12b": "google/gemma-3-12b-pt",
    "3-27b": "google/gemma-3-27b-pt",
}

if __name__ == "__main__":
    main("Gemma", CHECKPOINTS, default="270m")

"""Probe a SmolLM2 model: python scripts/probe_smollm2.py [CONCEPT…] [--size 135m] [OPTION…].

Every option of `concept-depth run` works too, and `accelerate launch` divides the work among processes.
"""

from concept_depth.cli.family import main

CHECKPOINTS = {
    "135m": "smollm2-135m",
    "360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
}

if __name__ == "__main__":
    main("SmolLM2", CHECKPOINTS, default="135m")

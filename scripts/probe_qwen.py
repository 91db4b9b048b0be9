"""Probe a Qwen model: python scripts/probe_qwen.py [CONCEPT…] [--size 3-0.6b] [OPTION…].

Every option of `concept-depth run` works too, and `accelerate launch` divides the work among processes.
"""

from concept_depth.cli.family import main

CHECKPOINTS = {
    # those of the paper
    "1.5-0.5b": "Qwen/Qwen1.5-0.5B",
    "1.5-1.8b": "Qwen/Qwen1.5-1.8B",
    "1.5-4b": "Qwen/Qwen1.5-4B",
    "1.5-7b": "Qwen/Qwen1.5-7B",
    "1.5-14b": "Qwen/Qwen1.5-14B",
    # the current ones
    "3-0.6b": "Qwen/Qwen3-0.6B-Base",
    "3-1.7b": "Qwen/Qwen3-1.7B-Base",
    "3-4b": "Qwen/Qwen3-4B-Base",
    "3-8b": "Qwen/Qwen3-8B-Base",
    "3-14b": "Qwen/Qwen3-14B-Base",
}

if __name__ == "__main__":
    main("Qwen", CHECKPOINTS, default="3-0.6b")

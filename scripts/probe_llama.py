"""Probe a Llama model: python scripts/probe_llama.py [CONCEPT…] [--size 3.2-1b] [OPTION…].

Every option of `concept-depth run` works too, and `accelerate launch` divides the work among processes.
"""

from concept_depth.cli.family import main

CHECKPOINTS = {
    # those of the paper
    "2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "2-13b-chat": "meta-llama/Llama-2-13b-chat-hf",
    # the current ones
    "3.2-1b": "meta-llama/Llama-3.2-1B",
    "3.2-3b": "meta-llama/Llama-3.2-3B",
    "3.1-8b": "meta-llama/Llama-3.1-8B",
    "3.1-70b": "meta-llama/Llama-3.1-70B",
}

if __name__ == "__main__":
    main("Llama", CHECKPOINTS, default="3.2-1b")

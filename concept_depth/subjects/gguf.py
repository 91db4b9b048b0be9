"""A .gguf file, converted once to a local folder of safetensors and a tokenizer, so that it loads in a second."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.subjects.catalogue import GgufSource
from concept_depth.subjects.reasons import told_by

# Raised when a release converts differently, so that older folders are not used.
CONVERSION = 1
MAGIC = b"GGUF"


def converted_folder(source: GgufSource) -> tuple[Path, str]:
    """The folder of the converted model (made now if it is not there), and the SHA-256 of the .gguf file.

    Raises:
        InputError: the file is not a GGUF file, or holds what transformers cannot read.
    """
    if source.path is not None:
        _check_magic(source.path)
    digest = source.sha256 or file_hash(_path(source))
    folder = files.default_cache_dir() / "models" / f"gguf{CONVERSION}-{digest[:24]}"
    if not (folder / "config.json").is_file():
        _convert(source, folder)
    return folder, digest


def _path(source: GgufSource) -> Path:
    assert source.path is not None
    return source.path


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give an existing .gguf file") from error
    if magic != MAGIC:
        raise InputError(f"{path} is not a GGUF file (it does not begin with 'GGUF'); was it cut short?")


def _convert(source: GgufSource, folder: Path) -> None:
    """Convert into a folder beside, then rename it: it is whole or absent, also with two processes at work."""
    _remove_stale(folder.parent)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InputError(
            f"cannot write to {folder.parent}: {error.strerror}; set CONCEPT_DEPTH_CACHE to a folder of yours"
        ) from error
    try:
        path = source.path
        if path is None:
            path = workplace / "model.gguf"
            source.write_to(path)
        model, tokenizer = _read(path)
        target = workplace / "converted"
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
        umask = os.umask(0)
        os.umask(umask)
        for made in (target, *target.iterdir()):  # temporary folders are private; this one is to be shared
            made.chmod((0o777 if made.is_dir() else 0o666) & ~umask)
        with contextlib.suppress(OSError):  # another process was first, with the same content
            target.rename(folder)
        if not (folder / "config.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            target.rename(folder)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def converted_tokenizer(folder: Path) -> Any:
    """The tokenizer of a converted folder; faster than AutoTokenizer, which parses large files again."""
    from transformers import PreTrainedTokenizerFast

    described = files.read_json(folder / "tokenizer_config.json")
    options = {
        key: value
        for key, value in described.items()
        if (key.endswith("_token") and isinstance(value, str)) or key == "model_max_length"
    }
    template = folder / "chat_template.jinja"
    if template.is_file():
        options["chat_template"] = template.read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **options)


def _remove_stale(parent: Path, *, older_than: float = 86400.0) -> None:
    """Remove what processes that were killed long ago have left."""
    for left in parent.glob(".gguf*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > older_than:
                shutil.rmtree(left, ignore_errors=True)


def _read(path: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        # Its progress bar cannot be switched off otherwise.
        with contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(**where)
    except Exception as error:  # the readers of gguf and transformers raise anything at damaged files
        raise InputError(
            f"cannot read the GGUF file {path.name} ({told_by(error)}); it is damaged, or of an architecture that "
            "transformers cannot convert: use the original checkpoint"
        ) from error
    # The weights are plain numbers now; the mark of their quantisation would make saving refuse.
    model.hf_quantizer = None
    for mark in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, mark):
            delattr(model.config, mark)
    model.config.name_or_path = path.stem
    return model, tokenizer


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, remembered for its path, size and times of change.

    Copying tools set the time that a file names itself; the time that the system keeps (`ctime`) moves all the same.
    """
    stat = path.stat()
    stamp = files.content_key(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    memory = files.default_cache_dir() / "hashes" / f"{stamp}.json"
    if memory.is_file():
        with contextlib.suppress(InputError, KeyError, TypeError):
            remembered: str = files.read_json(memory)["sha256"]
            return remembered
    digest = files.sha256_of(path)
    with contextlib.suppress(InputError):  # a cache that cannot be written only costs time
        files.write_json(memory, {"sha256": digest})
    return digest

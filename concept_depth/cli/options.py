"""The options that several commands share, in the words of the Python API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from concept_depth.errors import InputError, did_you_mean


def path_of(text: str) -> Path:
    """The path that a text is.

    Raises:
        typer.BadParameter: it is empty, as a shell's unset variable is.
    """
    if not text.strip():
        raise typer.BadParameter("an empty text names nothing; give a path, as in runs/first")
    return Path(text)


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Bundled name (see 'models'), Hub id, local folder or .gguf file.",
        show_default=False,
    ),
]
ConceptsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CONCEPT",
        help="Bundled name (see 'concepts'), file, hub:org/name, paper:NAME; 'all' is every bundled one.",
        show_default=False,
    ),
]
ConceptArgument = Annotated[
    str,
    typer.Argument(metavar="CONCEPT", help="Bundled name, file, hub:org/name or paper:NAME.", show_default=False),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder for the results.", show_default=False, parser=path_of, metavar="DIR"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

_DATA, _MODEL, _PROBE = "Examples", "Model", "Probing"


def _option(names: str, text: str, panel: str) -> Any:
    return typer.Option(*names.split(), help=text, rich_help_panel=panel)


TextOption = Annotated[str, _option("--text", "Column of the text.", _DATA)]
LabelOption = Annotated[str, _option("--label", "Column of the label.", _DATA)]
GroupOption = Annotated[str | None, _option("--group", "Column of the group that no split may cut.", _DATA)]
SplitOption = Annotated[str | None, _option("--split", "Split of a Hub data set.", _DATA)]
TemplateOption = Annotated[
    str | None, _option("--template", "Text around every example, with {text} in it.", _DATA)
]
LimitOption = Annotated[int | None, _option("--limit", "Use at most so many examples (whole groups).", _DATA)]
DataDirOption = Annotated[str | None, _option("--data-dir", "Folder with the raw files of known sets.", _DATA)]
NoiseOption = Annotated[str | None, _option("--noise", "Perturb the texts: letters, typos, case, words, …", _DATA)]

RevisionOption = Annotated[str | None, _option("--revision", "Branch, tag or commit on the Hub.", _MODEL)]
DtypeOption = Annotated[str, _option("--dtype", "auto, float32, bfloat16 or float16.", _MODEL)]
QuantizationOption = Annotated[str | None, _option("--quantization", "int8, int4 or nf4.", _MODEL)]
AdapterOption = Annotated[str | None, _option("--adapter", "PEFT adapter on top of the model.", _MODEL)]
DeviceOption = Annotated[str, _option("--device", "auto, cpu, cuda, cuda:1, …", _MODEL)]
SiteOption = Annotated[
    str, _option("--site", "resid_post, resid_pre, resid_mid, attn_out, mlp_out or mlp_in.", _MODEL)
]
PositionOption = Annotated[
    str, _option("--position", "Token to read: last, first, mean, span or an integer.", _MODEL)
]
ChatOption = Annotated[bool, _option("--chat-template", "Wrap prompts in the chat template.", _MODEL)]
MaxLengthOption = Annotated[int | None, _option("--max-length", "Cut texts so that prompts fit.", _MODEL)]
TrustOption = Annotated[bool, _option("--trust-remote-code", "Run code that comes with the model.", _MODEL)]

CvOption = Annotated[
    str, _option("--cv", "Folds; groups stay whole. none: score the whole sample (for separable).", _PROBE)
]
RepeatsOption = Annotated[int, _option("--repeats", "Repetitions of the folds.", _PROBE)]
COption = Annotated[str, _option("--C", "nested, or one inverse penalty strength for all.", _PROBE)]
ScoringOption = Annotated[str, _option("--scoring", "balanced_accuracy, accuracy, f1, auroc, log_loss, …", _PROBE)]
PermutationsOption = Annotated[int, _option("--permutations", "Label permutations that decide 'never'.", _PROBE)]
ProtocolOption = Annotated[
    str | None, _option("--protocol", "'paper': exactly the protocol of Jin et al.", _PROBE)
]
SeedOption = Annotated[int, _option("--seed", "Seed of folds, permutations and bootstrap.", _PROBE)]
RuleOption = Annotated[
    str, _option("--rule", "within:0.9, peak, onset, jump, converge, centre, separable.", _PROBE)
]
MinGainOption = Annotated[float, _option("--min-gain", "Least gain over the majority class.", _PROBE)]
ReferencesOption = Annotated[
    bool, _option("--references/--no-references", "Compare with embeddings, words and random weights.", _PROBE)
]
AnchoringOption = Annotated[
    bool, _option("--anchoring", "Also ask the model itself, zero-shot (two classes).", _PROBE)
]


def number_or_word(value: str) -> Any:
    """A value of an option that is a number or a word: `-1` → int, `0.5` → float, `last` → str."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Callback of `--config`: the file's keys become the defaults of the command's options.

    Raises:
        InputError: the file is absent, is not TOML, or has a key that is no option of the command.
    """
    if path is None:
        return None
    import tomllib

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; give a TOML file with options in it, as in seed = 1"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    # Keys are the long flags without their dashes, or the name of an argument.
    known = {
        flag.lstrip("-"): str(parameter.name)
        for parameter in context.command.params
        for flag in parameter.opts
        if parameter.name not in ("config", "help") and (flag.startswith("--") or flag == parameter.name)
    }
    twice = [key for key in data if "_" in key and key.replace("_", "-") in data]
    if twice:
        raise InputError(f"{path}: {twice[0]} is given twice, with a dash and with an underscore; leave one out")
    data = {key if key in known else key.replace("_", "-"): value for key, value in data.items()}
    unknown = sorted(set(data) - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise InputError(
            f"{path}: there is no option {unknown[0]!r}; {hint}the options are {', '.join(sorted(known))}"
        )
    context.default_map = {**(context.default_map or {}), **{known[key]: value for key, value in data.items()}}
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with these options as keys; what is typed wins.",
        is_eager=True,
        callback=load_config,
    ),
]

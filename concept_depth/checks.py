"""What can be known to be wrong before a model is loaded: names, settings, and whether they fit the examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.measure import Settings, read_concept

if TYPE_CHECKING:
    from concept_depth.concepts.concept import Concept


def check_job(model: str, concept: str, settings: Settings) -> Concept:
    """Resolve and check everything that can be known before a model is loaded; gives the concept.

    Raises:
        InputError: the model or concept is not to be found, or settings or groups do not fit.
    """
    from concept_depth.depth import check_min_gain
    from concept_depth.extraction.batches import check_batch_tokens
    from concept_depth.probing.protocol import check_settings, check_values
    from concept_depth.rules import check_rule
    from concept_depth.subjects.anchoring import check_two_classes
    from concept_depth.subjects.huggingface import check_max_length, resolve
    from concept_depth.subjects.loading import check_loading
    from concept_depth.subjects.sites import check_site_and_position

    check_rule(settings.rule)
    check_min_gain(settings.min_gain)
    check_batch_tokens(settings.batch_tokens)
    check_max_length(settings.max_length)
    check_loading(dtype=settings.dtype, device=settings.device, quantization=settings.quantization)
    check_site_and_position(settings.site, settings.position)
    _check_adapter(settings.adapter)
    loaded = read_concept(concept, settings)
    check_values(
        scoring=settings.scoring,
        protocol=settings.protocol,
        repeats=settings.repeats,
        C=settings.C,
        standardize=settings.standardize,
        permutations=settings.permutations,
        random_state=settings.seed,
    )
    try:
        check_settings(
            labels=loaded.labels,
            groups=loaded.groups,
            classes=loaded.classes,
            permutations=settings.permutations,
            **settings.probing_part(),
        )
    except InputError as error:  # it speaks of numbers of examples, and a plan can hold many concepts
        raise InputError(f"{loaded.name}: {error}") from error
    _check_rule_fits(settings, loaded)
    if settings.position == "span" and loaded.spans is None:
        raise InputError(f"{loaded.name} has no spans, which position 'span' needs; take another position")
    if settings.anchoring:
        check_two_classes(loaded)
    resolve(model, revision=settings.revision)
    return loaded


def _check_adapter(adapter: str | None) -> None:
    """Refuse an adapter that is written as a path of nothing; others may be names on the Hub."""
    if adapter is not None and adapter.startswith((".", "/", "~")) and not files.exists(files.local_path(adapter)):
        raise InputError(f"there is no adapter {adapter}; give its folder, or its id on the Hub")


def _check_rule_fits(settings: Settings, concept: Concept) -> None:
    """Refuse rules that cannot be read off what the settings give.

    Raises:
        InputError: `onset` without permuted labels; `separable` of a split sample, or of other than two classes.
    """
    from concept_depth.rules import NO_NULLS, NO_WHOLE_SAMPLE

    if settings.rule == "onset" and (settings.permutations == 0 or settings.protocol is not None):
        raise InputError(NO_NULLS)
    if settings.rule != "separable":
        return
    if settings.protocol is not None:
        raise InputError("the rule 'separable' has no place in protocol='paper', which splits; leave protocol out")
    if settings.cv is not None:
        raise InputError(NO_WHOLE_SAMPLE)
    if len(concept.classes) != 2:
        raise InputError(
            f"{concept.name} has {len(concept.classes)} classes, and the rule 'separable' is for two; take another rule"
        )

"""Linear probes as scikit-learn estimators: logistic regression and the difference of class means.

`LogisticProbe` minimises, over (w, c) of the standardised features x̃ and with s_i = ±1 for the two classes,

    ½ ‖w‖² + C Σ_i a_i log(1 + exp(-s_i (x̃_i · w + c)))

(scikit-learn's objective; for more classes the multinomial one, see `multinomial.py`). `coef_` and `intercept_`
have the scaler folded in: decision(x) = x · coef + intercept on the features as given. Importing this module loads
no torch; fitting does. Choosing C, splitting and scoring are not here: see `scores.py`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from concept_depth.errors import InputError

FloatArray = npt.NDArray[np.floating[Any]]
FORMAT = 1


class _LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What every linear probe shares: decisions, predictions, files."""

    coef_: FloatArray
    intercept_: FloatArray
    classes_: npt.NDArray[Any]
    n_features_in_: int

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:
        """Log-odds of the second class (n,); for K > 2 classes one column of scores each (n, K).

        Args:
            X: (n, d) features as they were given to `fit`.
        """
        check_is_fitted(self)
        X_ND: FloatArray = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores: FloatArray = X_ND @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """The most probable class of each row (n,).

        Args:
            X: (n, d) features as they were given to `fit`.
        """
        scores = self.decision_function(X)
        index = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(1)
        chosen: npt.NDArray[Any] = self.classes_[index]
        return chosen

    def predict_log_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Log-probabilities of the classes (n, K).

        Args:
            X: (n, d) features as they were given to `fit`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return -np.stack([np.logaddexp(0, scores), np.logaddexp(0, -scores)], 1)
        peak = scores.max(1, keepdims=True)
        log_p: FloatArray = scores - peak - np.log(np.exp(scores - peak).sum(1, keepdims=True))
        return log_p

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Probabilities of the classes (n, K).

        Args:
            X: (n, d) features as they were given to `fit`.
        """
        return np.asarray(np.exp(self.predict_log_proba(X)))

    def save(self, path: str | Path, card: Mapping[str, Any] | None = None) -> Path:
        """Write the probe as safetensors, and beside it, for reading, its card as JSON.

        Args:
            path: the file; `.safetensors` is added where it has no such ending.
            card: what a later user must know: layer, site, position, fingerprints, threshold …

        Returns:
            The file written.

        Raises:
            InputError: the card is no JSON, or the folder cannot be written.
        """
        import torch

        from concept_depth.files import write_json, write_tensors

        check_is_fitted(self)
        path = Path(path)
        path = path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")
        described = {
            "format": FORMAT,
            "kind": type(self).__name__,
            "classes": self.classes_.tolist(),
            "parameters": {
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in self.get_params(deep=False).items()
            },
            "fit": {
                name: np.asarray(getattr(self, name)).tolist() for name in self._outcome if hasattr(self, name)
            },
            "card": dict(card or {}),
        }
        tensors = {
            "coef": torch.from_numpy(np.ascontiguousarray(self.coef_, np.float64)),
            "intercept": torch.from_numpy(np.ascontiguousarray(self.intercept_, np.float64)),
        }
        try:
            json.dumps(described, allow_nan=False)  # before anything is written
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the probe's card must hold text, finite numbers and lists only ({error}); give None for NaN"
            ) from error
        write_tensors(path, tensors, described)
        write_json(path.with_suffix(".json"), described)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a probe that `save` wrote; its card is in `card_`.

        Args:
            path: the safetensors file.

        Raises:
            InputError: the file is absent, is no probe, or is a probe of another kind.
        """
        from concept_depth.files import exists, read_metadata, read_tensors

        path = Path(path)
        if not exists(path, Path.is_file):
            raise InputError(
                f"there is no probe at {path}; name the .safetensors file that LogisticProbe.save wrote"
            )
        try:
            described, tensors = read_metadata(path), read_tensors(path)
        except Exception as error:
            raise InputError(f"{path} is no safetensors file ({error}); was it cut short?") from error
        if described.get("kind") != cls.__name__ or described.get("format") != FORMAT:
            raise InputError(
                f"{path} holds {described.get('kind') or 'no probe'} (format {described.get('format')}), "
                f"and {cls.__name__} reads format {FORMAT} of its own kind"
            )
        probe = cls(**described["parameters"])
        probe.coef_, probe.intercept_ = tensors["coef"].numpy(), tensors["intercept"].numpy()
        probe.classes_ = np.asarray(described["classes"])
        probe.n_features_in_ = probe.coef_.shape[1]
        for name, value in described["fit"].items():
            setattr(probe, name, np.asarray(value) if isinstance(value, list) else value)
        probe.card_ = described["card"]
        return probe

    _outcome: ClassVar[tuple[str, ...]] = ()

    def _prepare(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None
    ) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
        """Checked rows that bear weight, their class indices and their weights; sets `classes_`."""
        X_ND: FloatArray
        X_ND, y_N = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y_N)
        weight: FloatArray = _check_sample_weight(sample_weight, X_ND, dtype=np.float64, ensure_non_negative=True)
        rows = weight > 0
        self.classes_, index = np.unique(y_N[rows], return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a probe needs examples of at least two classes, and y holds {len(self.classes_)} class"
                " among the rows of positive weight"
            )
        # Equal rows become one, in sorted order: neither the order nor the repetition of rows changes a digit.
        merged, inverse = np.unique(np.column_stack([index, X_ND[rows]]), axis=0, return_inverse=True)
        total = np.bincount(inverse.reshape(-1), weight[rows]).astype(np.float64)
        return merged[:, 1:].astype(X_ND.dtype), merged[:, 0].astype(np.int64), total


def _checked_standardize(value: Any) -> bool | str:
    """The setting as Python's own bool or "scale": 0 and numpy's False equal False, and are not it."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str) and value == "scale":
        return value
    raise InputError(f"standardize={value!r} is none of True, False, 'scale'; give one of them")


def moments(X: FloatArray, weight: FloatArray, standardize: bool | str) -> tuple[FloatArray, FloatArray]:
    """What to subtract and to divide by, in float64: mean (d,) and deviations (d,).

    Args:
        X: (n, d).
        weight: (n,) positive weights; a row of weight 2 counts as two rows.
        standardize: True: every feature by its deviation; "scale": all by one scalar; False: nothing is changed.

    Returns:
        Shift and scale. Features that are constant but for rounding are divided by infinity: their last digit,
        however small, would tell classes too.
    """
    share = weight / weight.sum()
    mean = share @ X.astype(np.float64)
    variance = share @ (X - mean) ** 2
    constant = np.sqrt(variance) <= 10 * np.finfo(X.dtype).eps * np.abs(X).max(0)
    if standardize is False:
        mean, variance = np.zeros_like(mean), np.ones_like(variance)
    elif standardize == "scale":
        variance = np.full_like(variance, variance.mean())
    return mean, np.where(constant, np.inf, np.sqrt(variance))


class LogisticProbe(_LinearProbe):
    """L2-regularised logistic regression with the standardisation folded in.

    Args:
        C: inverse penalty, > 0; scikit-learn's.
        standardize: True (each feature to mean 0 and deviation 1), "scale" (one scalar for all), False.
        tol: relative distance of the objective from its minimum.
        max_iter: most evaluations of objective and gradient.
        device: "auto" (a GPU where there is one), or torch's name of a device.

    Attributes:
        coef_: (1, d), or (K, d) for K > 2 classes, on the features as given.
        intercept_: (1,) or (K,).
        classes_: (K,).
        n_iter_: (1,) evaluations.
        grad_norm_: largest entry of the gradient of objective / (C Σ a), in standardised features.
        objective_: the value of the minimised objective.
        converged_: whether the tolerance was reached; a ConvergenceWarning says so too.
    """

    _outcome = ("n_iter_", "grad_norm_", "objective_", "converged_")

    def __init__(
        self,
        C: float = 1.0,
        *,
        standardize: bool | str = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        device: str = "auto",
    ) -> None:
        self.C = C
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit to the rows of X.

        Args:
            X: (n, d) features; float64 is fitted in float64, all else in float32.
            y: (n,) classes, of any type that sorts.
            sample_weight: (n,) non-negative weights; 0 leaves a row out.

        Returns:
            The probe itself.

        Raises:
            InputError: a parameter is out of its range.
        """
        import torch

        from concept_depth.probing.logistic import solve_logistic

        standardize = _checked_standardize(self.standardize)
        X_ND, index, weight = self._prepare(X, y, sample_weight)
        shift, scale = moments(X_ND, weight, standardize)
        K = len(self.classes_)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        found = solve_logistic(
            ((X_ND - shift) / scale).astype(X_ND.dtype, copy=False),
            index,
            C=self.C,
            sample_weight=weight,
            tol=self.tol,
            max_iter=self.max_iter,
            device=device,
            n_classes=max(2, K),
        )
        coef = np.asarray(found.coef, np.float64).reshape(X_ND.shape[1], -1).T
        self.coef_ = coef / scale
        self.intercept_ = np.asarray(found.intercept, np.float64).reshape(-1) - self.coef_ @ shift
        self.n_iter_ = np.asarray(found.n_iter).reshape(-1)
        self.grad_norm_ = float(found.grad_norm[0])
        self.objective_ = float(found.objective[0])
        self.converged_ = bool(found.converged[0])
        if not self.converged_:
            warnings.warn(self._why(X_ND, index), ConvergenceWarning, stacklevel=2)
        return self

    def _why(self, X: FloatArray, index: npt.NDArray[np.int64]) -> str:
        """What to tell the user of a fit that did not converge."""
        told = (
            f"LogisticProbe(C={self.C}) did not reach tol={self.tol} in {int(self.n_iter_.max())} evaluations "
            f"(gradient {self.grad_norm_:.1e})"
        )
        scores = X @ self.coef_.T + self.intercept_
        right = ((scores[:, 0] > 0) == (index == 1)) if scores.shape[1] == 1 else scores.argmax(1) == index
        if right.all():
            return told + "; the classes are separable, so that weights grow without bound with C: lower C"
        return told + "; raise max_iter, or lower C"


class MassMeanProbe(_LinearProbe):
    """The difference of class means as a probe: nearest mean, after standardisation.

    With class means μ_k and the pooled variance σ² within classes (one number), class k scores
    (x̃ · μ_k - ½ ‖μ_k‖²) / σ²: the log-likelihood of spherical Gaussians of equal width. For two classes that is
    the direction μ_1 - μ_0 with the threshold half way (Marks and Tegmark 2023, "mass-mean probing").

    Args:
        standardize: True (each feature to mean 0 and deviation 1), "scale" (one scalar for all), False.

    Attributes:
        coef_: (1, d), or (K, d) for K > 2 classes, on the features as given.
        intercept_: (1,) or (K,).
        classes_: (K,).
    """

    def __init__(self, *, standardize: bool | str = True) -> None:
        self.standardize = standardize

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit to the rows of X.

        Args:
            X: (n, d) features.
            y: (n,) classes, of any type that sorts.
            sample_weight: (n,) non-negative weights; 0 leaves a row out.

        Returns:
            The probe itself.

        Raises:
            InputError: a parameter is out of its range.
        """
        standardize = _checked_standardize(self.standardize)
        X_ND, index, weight = self._prepare(X, y, sample_weight)
        shift, scale = moments(X_ND, weight, standardize)
        scaled = (X_ND - shift) / scale
        share = np.zeros((len(self.classes_), len(scaled)))
        share[index, np.arange(len(scaled))] = weight
        means = share @ scaled / share.sum(1, keepdims=True)
        # Features divided by infinity are constants: they are no part of the width.
        moving = np.isfinite(scale)
        apart = ((scaled - means[index])[:, moving] ** 2).sum(1) / max(int(moving.sum()), 1)
        within = float(weight @ apart / weight.sum())
        spread = within if within > 0 else 1.0
        coef = means / spread
        intercept = -0.5 * (means**2).sum(1) / spread
        if len(self.classes_) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_ = coef / scale
        self.intercept_ = intercept - self.coef_ @ shift
        return self

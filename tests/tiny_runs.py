"""Training runs that take seconds."""

from __future__ import annotations

from pathlib import Path

from qatie_cli.data.clean import CleanPhotos, DegradedSource
from qatie_cli.training import run as training
from qatie_cli.training.recipe import Recipe
from qatie_cli.training.run import Setting

TINY = Recipe(
    width=4,
    tone_steps=3,
    steps=6,
    qat_steps=4,
    batch=2,
    crop=32,
    tone_batch=2,
    validate_every=3,
    validation_share=0.2,
    tone_dropout=0.5,
    distillation=0.5,
)


def train(photos: CleanPhotos, recipe: Recipe, out: Path, *, init=None, **options) -> training.Finished:
    """A run on good photos, in the folder `out`."""
    source = DegradedSource(photos, recipe.degradation, recipe.seed, recipe.crop)
    return training.train(source, recipe, Setting(out, init=init), **options)

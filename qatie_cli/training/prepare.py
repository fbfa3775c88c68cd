"""From options to a run: recipe, first weights, device, process group and photos."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qatie_cli import engines, files, parsing
from qatie_cli.data import clean as clean_photos
from qatie_cli.data import paired, validation
from qatie_cli.data.clean import CleanPhotos, DegradedSource
from qatie_cli.data.layouts import SkippedFile
from qatie_cli.data.paired import Pairs, PairSource
from qatie_cli.data.source import Source
from qatie_cli.data.store import SHARE_OF_FREE, Store
from qatie_cli.data.validation import ValidationSet
from qatie_cli.enhance import memory
from qatie_cli.errors import DataError, UsageError
from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import THUMBNAIL_PX
from qatie_cli.model.shipped import locate
from qatie_cli.training import distributed, run
from qatie_cli.training.recipe import FINE_TUNING, Recipe, read_table
from qatie_cli.training.reporting import Progress
from qatie_cli.training.run import Finished, Setting

LEFT_OUT_FILE = "left-out.csv"
VALIDATION_LEFT_OUT_FILE = f"validation-{LEFT_OUT_FILE}"
_QAT_SHARE = 5  # with `qat` alone, the quantization-aware stage has this part of the float stage's steps


@dataclass(frozen=True)
class Options:
    """The options of a run. None leaves a setting to the recipe file, the initial weights or the defaults."""

    out: Path
    data: Path | None = None  # pairs to learn from, or
    clean: Path | None = None  # good photos to degrade
    val: Path | None = None  # pairs to validate on
    folders: str | None = None  # as input/target
    init: str | None = None  # name or path of weights
    recipe: Path | None = None
    width: int | None = None
    steps: int | None = None
    tone_steps: int | None = None
    batch: int | None = None
    crop: int | None = None
    seed: int | None = None
    qat: bool = False
    settings: tuple[str, ...] = ()  # any of the recipe, as NAME=VALUE
    resume: bool = False
    device: str = "auto"
    tensorboard: bool = False
    workers: int = 0  # processes that prepare samples; with 0 a thread does

    @property
    def overrides(self) -> dict[str, int]:
        """Settings of the recipe that are options of their own."""
        names = ("width", "steps", "tone_steps", "batch", "crop", "seed")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.steps is not None and self.tone_steps is None and self.recipe is None:
            given["tone_steps"] = self.steps
        return given

    def notes(self) -> dict[str, str]:
        """What a run records about its data; absolute paths, so that it can be resumed from any folder.

        Raises:
            UsageError: a name is not UTF-8.
        """
        paths = {"data": self.data, "clean": self.clean, "val": self.val}
        notes = {name: str(path.resolve()) for name, path in paths.items() if path is not None}
        notes |= {name: text for name, text in (("folders", self.folders), ("init", self.init)) if text is not None}
        if self.init is not None and Path(self.init).is_file():
            notes["init"] = str(Path(self.init).resolve())
        for value in notes.values():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise UsageError(f"The name {value} is not UTF-8 and cannot be recorded.", "Rename it.") from None
        return notes


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start; `photos` and `validation_set` are what its folders contain."""

    source: Source
    recipe: Recipe
    setting: Setting
    resume: bool
    photos: Pairs | CleanPhotos
    validation_set: ValidationSet | None

    def train(
        self,
        on_progress: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Finished:
        """Train; see `run.train`."""
        return run.train(
            self.source,
            self.recipe,
            self.setting,
            resume=self.resume,
            on_progress=on_progress,
            should_stop=should_stop,
        )


@contextlib.contextmanager
def prepare(
    options: Options,
    *,
    on_start: Callable[[int], None] = lambda count: None,
    on_read: Callable[[], None] = lambda: None,
) -> Iterator[Prepared]:
    """Everything that a run needs, within the process group that it trains in.

    Skipped files are listed in OUT/left-out.csv, those of a validation folder in OUT/validation-left-out.csv.

    Args:
        on_start: called with the number of pairs before they are read.
        on_read: called after each pair.

    Raises:
        QatieError: the options contradict each other, or name weights, devices or photos that cannot be used.
    """
    device = engines.best_device() if options.device == "auto" else options.device
    engines.check_device(device)
    recipe, notes, init = _settled(options)
    with distributed.join(device) as (group, place):
        setting = Setting(options.out, group, place, init, notes, options.tensorboard, options.workers)
        run.check(recipe, setting, options.resume)  # before spending hours on reading photos
        if ("data" in notes) == ("clean" in notes):
            raise UsageError("Training needs photos.", "Give either --data PAIRS or --clean PHOTOS.")
        store = Store(int(memory.free_bytes() * SHARE_OF_FREE / group.local_size), recipe.longest)
        folders = notes.get("folders")
        validated = validation.load(Path(notes["val"]), store, folders) if "val" in notes else None
        if validated is not None and group.leads:
            _list_skipped(validated.skipped, options.out / VALIDATION_LEFT_OUT_FILE)
        photos: Pairs | CleanPhotos
        source: Source
        if "clean" in notes:
            photos, source = _degraded(Path(notes["clean"]), store, recipe, validated)
        else:
            photos = paired.load(
                Path(notes["data"]),
                store,
                recipe.validation_share,
                recipe.seed,
                recipe.crop,
                folders=folders,
                separate_validation=validated is not None,
                on_start=on_start,
                on_read=on_read,
            )
            source = PairSource(photos, recipe.seed, validated, _view_px(recipe), recipe.crop_scale)
            if group.leads:
                _list_skipped(photos.skipped, options.out / LEFT_OUT_FILE)
        yield Prepared(source, recipe, setting, options.resume, photos, validated)


def _degraded(
    folder: Path, store: Store, recipe: Recipe, validated: ValidationSet | None
) -> tuple[CleanPhotos, DegradedSource]:
    """The good photos of a folder, and the source that degrades them."""
    share, separate = recipe.validation_share, validated is not None
    photos = clean_photos.load(folder, store, share, recipe.seed, separate_validation=separate)
    shown = _view_px(recipe), recipe.tone_sampling, recipe.crop_scale, recipe.detail
    return photos, DegradedSource(photos, recipe.degradation, recipe.seed, recipe.crop, validated, *shown)


def _view_px(recipe: Recipe) -> int:
    return recipe.config.tone.learnt.view_px if recipe.config.tone else THUMBNAIL_PX


def _settled(options: Options) -> tuple[Recipe, dict[str, str], Weights | None]:
    """Recipe, notes and initial weights: as recorded if a run is resumed by its folder alone, else from the options."""
    notes, given = options.notes(), options.overrides
    if options.resume and not (given or options.settings or options.recipe or options.qat or notes):
        recipe, notes = run.recorded(options.out)
        return recipe, notes, checkpoint.read(locate(notes["init"])) if "init" in notes else None
    init = None
    defaults: dict[str, object] = {}
    if options.init is not None:
        path = locate(options.init)
        init = checkpoint.read(path)
        defaults = FINE_TUNING | _shape(init)
        notes["init_sha256"] = files.sha256(path)
    recipe = merged(defaults | read_table(options.recipe) | given, options.settings)
    if options.qat and not recipe.qat_steps:
        recipe = dataclasses.replace(recipe, qat_steps=max(1, recipe.steps // _QAT_SHARE))
    return recipe, notes, init


def _shape(init: Weights) -> dict[str, object]:
    """The part of a recipe that must match the weights it starts from."""
    table: dict[str, object] = dataclasses.asdict(init.config.network) | {"tone": init.config.tone is not None}
    stage = init.config.tone
    if stage is not None:
        table |= {"tone_channels": stage.channels, "tone_bins": stage.bins, "tone_quantiles": stage.quantiles}
        table |= {"tone_grid": stage.grid, "tone_depth": stage.depth, "tone_guide": stage.guide}
        table |= {"tone_hold": stage.hold, "tone_clarity": stage.clarity, "tone_darkening": stage.darkening}
    return table


def merged(table: Mapping[str, object], settings: Sequence[str]) -> Recipe:
    """The recipe of a table whose settings are overridden by texts such as `rate=1e-3` or `loss.psnr_y=2`.

    Raises:
        UsageError: a text is not a setting, or the recipe is invalid.
    """
    values = dict(table)
    for text in settings:
        name, equals, value = text.partition("=")
        section, dot, inner = name.strip().partition(".")
        try:
            parsed = parsing.from_toml(f"value = {value}")["value"]
        except ValueError:
            takes_words = isinstance(getattr(Recipe, name.strip(), None), str)
            parsed = value.strip() if takes_words else None  # whose quotes the shell took
        if not equals or parsed is None:
            raise UsageError(f"Invalid setting '{text}'.", "Write it as name=value, as in rate=1e-3.")
        if dot and isinstance(part := values.get(section, {}), dict):
            values[section] = part | {inner: parsed}
        else:
            values[name.strip()] = parsed
    try:
        return Recipe.from_table(values)
    except (ValueError, TypeError) as error:
        raise UsageError(f"The recipe cannot be used: {error}.") from error


def _list_skipped(skipped: Sequence[SkippedFile], path: Path) -> None:
    if not skipped:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_csv(path, ("file", "reason"), ((s.file, s.reason) for s in skipped))
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror}.", "Choose another --out.") from error

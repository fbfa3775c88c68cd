"""The recipe: every setting of a run, from a TOML file and back."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qatie_cli import parsing
from qatie_cli.data.clean import ToneSampling
from qatie_cli.data.degradation import DegradationConfig
from qatie_cli.data.detail import DetailConfig
from qatie_cli.data.full_frames import FullFrameConfig
from qatie_cli.data.rendering import RenderingConfig
from qatie_cli.data.sampling import CropScale
from qatie_cli.data.uneven_light import LightConfig
from qatie_cli.errors import UsageError
from qatie_cli.model.config import Guide, ModelConfig, NetworkConfig, ToneConfig
from qatie_cli.training.losses import LossWeights

_Numbers = LossWeights | FullFrameConfig | RenderingConfig | DetailConfig
# Sections whose settings are all numbers.
_OF_NUMBERS: dict[str, type[_Numbers]] = {
    "loss": LossWeights,
    "full_frames": FullFrameConfig,
    "rendering": RenderingConfig,
    "detail": DetailConfig,
}


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run. On a CPU, equal recipes and photos give equal weights."""

    width: int = 16
    residual: bool = True  # the paper's ablations, see `NetworkConfig`
    fusion_refiner: bool = True
    encoder_refiner: bool = True
    tone: bool = True
    keep_network: bool = True  # whether a run that starts from weights keeps their network, or their tone stage only
    tone_channels: int = 0  # of the tone stage's first convolution, 0 for no convolutions
    tone_bins: int = 32  # of the histograms it sees, 0 for none
    tone_quantiles: bool = True  # whether it also sees quantiles
    tone_grid: int = 0  # cells along each side of the photo that it decides gains for: 8, 16, 32, or 0 for none
    tone_depth: int = 8  # of those cells along their guide
    tone_guide: Guide = "luma"  # by what pixels find their gain: luma, or the largest channel
    tone_steps: int = 3000  # the tone stage alone, on whole photos at thumbnail size
    steps: int = 2500  # the network in float, behind the finished tone stage
    qat_steps: int = 0  # the network with int8's rounding
    mixed_precision: bool = False  # bfloat16 convolutions of the network; up to twice as fast where the CPU has them
    batch: int = 16
    # Crops whose gradients are computed at once, None for all that a process has. Bounds memory; with the same number,
    # runs on more or fewer processes agree to 1e-5 (what differs is the order of summation).
    micro_batch: int | None = None
    crop: int = 128
    crop_whole: float = 0.35  # share of crops that show the whole frame
    crop_reduction: float = 0.0  # by which the others are reduced at most; 0 for as far as the whole frame
    tone_batch: int = 64
    tone_dropout: float = 0.0  # of the tone stage's hidden features
    tone_smoothness: float = 0.4  # weight of the differences between the gains of neighbouring cells
    tone_colour: float = 1.0  # share of what it decides about colours that is kept when it is trained
    tone_cast: float = 1.0  # share of how it tints grays that is kept then
    # Share of the gains of each layer of its grid, the darkest first, that is kept when it is trained; () for all.
    tone_gains: tuple[float, ...] = ()
    # What the finished stage does by rules (`model.tone_fine`); none of it while anything is trained. They need a grid.
    tone_hold: float = 0.0  # share of a brightening that smooth shadows and bright skin do not get, highlights in part
    tone_clarity: float = 0.0  # share of local contrast that is added behind the network
    tone_darkening: float = 1.0  # share kept of what darkens photos that are neither overexposed nor veiled
    tone_rate: float = 1e-3  # AdamW learning rates at the top of each stage's schedule
    rate: float = 2e-3
    qat_rate: float = 2e-4
    weight_decay: float = 1e-4
    warm_up: float = 0.05  # share of a stage
    clip: float = 1.0  # gradient norm
    ema: float = 0.998
    agreement: float = 1.0  # QAT only: L1 between the rounded and the float output of the same weights
    distillation: float = 0.0  # QAT only: L1 between the rounded output and that of the float stage's weights
    validation_share: float = 0.1
    validate_every: int = 500
    longest: int | None = None  # photos are reduced to this long side when they are read
    seed: int = 0
    loss: LossWeights = LossWeights()
    degradation: DegradationConfig = DegradationConfig()
    full_frames: FullFrameConfig = FullFrameConfig()
    light: LightConfig = LightConfig()
    rendering: RenderingConfig = RenderingConfig()
    detail: DetailConfig = DetailConfig()

    def __post_init__(self) -> None:
        if min(self.width, self.batch, self.tone_batch, self.validate_every) < 1:
            raise ValueError("width, batch sizes and the validation interval must be at least 1")
        if not all(math.isfinite(v) for v in dataclasses.asdict(self).values() if isinstance(v, float)):
            raise ValueError("every setting must be a finite number")
        if (
            min(self.tone_rate, self.rate, self.qat_rate, self.clip) <= 0
            or min(self.weight_decay, self.agreement, self.distillation) < 0
        ):
            raise ValueError(
                "learning rates and clip must be above 0; weight_decay, agreement, distillation at least 0"
            )
        _ = self.crop_scale  # raises ValueError for an impossible scale
        _ = self.config  # raises ValueError for an impossible tone stage
        if not 0 <= self.seed < 2**31:
            raise ValueError("the seed must be at least 0 and below 2^31")
        if self.micro_batch is not None and (self.micro_batch < 1 or self.batch % self.micro_batch):
            raise ValueError(f"a batch of {self.batch} is not a multiple of micro_batch {self.micro_batch}")
        if self.longest is not None and self.longest < self.crop:
            raise ValueError("photos cannot be reduced to less than a crop")
        shares = {"warm_up": self.warm_up, "ema": self.ema, "tone_dropout": self.tone_dropout}
        if wrong := [name for name, value in shares.items() if not 0 <= value < 1]:
            raise ValueError(f"{', '.join(wrong)} must be at least 0 and below 1")
        for name in ("tone_colour", "tone_cast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, not {getattr(self, name)}")
        if self.tone_gains and len(self.tone_gains) != (self.tone_depth if self.tone_grid else 0):
            raise ValueError("tone_gains needs a number for each of the tone_depth layers of a grid")
        if not all(isinstance(share, float | int) and 0 <= share <= 1 for share in self.tone_gains):
            raise ValueError(f"tone_gains must lie in 0..1, not {list(self.tone_gains)}")
        if not 0 < self.validation_share < 1:
            raise ValueError("the validation share must lie between 0 and 1")
        if self.crop % 8 or self.crop < 32:
            raise ValueError(f"crops must be a multiple of 8 and at least 32 pixels wide, not {self.crop}")
        if min(self.tone_steps, self.steps, self.qat_steps) < 0:
            raise ValueError("numbers of steps cannot be negative")

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """Stages in their order with their numbers of steps."""
        tone_steps = self.tone_steps if self.tone else 0
        return (("tone", tone_steps), ("float", self.steps), ("qat", self.qat_steps))

    def to_table(self) -> dict[str, Any]:
        """Plain values, as in a TOML file."""
        table = dataclasses.asdict(self)
        return table | {"degradation": self.degradation.to_table(), "light": self.light.to_table()}

    def to_toml(self) -> str:
        """The recipe as a TOML file that `from_table` takes back."""
        table = self.to_table()
        plain = {name: value for name, value in table.items() if value is not None and not isinstance(value, dict)}
        lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
        for section in (name for name, value in table.items() if isinstance(value, dict)):
            lines += ["", f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in table[section].items())]
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_table(table: dict[str, Any]) -> Recipe:
        """The inverse of `to_table`; names left out keep their defaults.

        Raises:
            ValueError: an unknown name, or a value of the wrong type.
        """
        known = {f.name for f in dataclasses.fields(Recipe)}
        if unknown := sorted(set(table) - known):
            raise ValueError(f"unknown setting {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        for name, value in values.items():
            if not isinstance(value, _KINDS[name]) or (isinstance(value, bool) and _KINDS[name] is not bool):
                raise ValueError(f"{name} = {value!r} has the wrong type")
        for name, kind in _OF_NUMBERS.items():
            if name in values:
                values[name] = _of_numbers(kind, values[name], name)
        for name, ranges in (("degradation", DegradationConfig), ("light", LightConfig)):
            if name in values:
                values[name] = ranges.from_table(values[name])
        return Recipe(**values)

    @property
    def crop_scale(self) -> CropScale:
        """How much of a frame the network's crops show."""
        return CropScale(self.crop_whole, self.crop_reduction)

    @property
    def tone_sampling(self) -> ToneSampling:
        """How the tone stage's samples are made of good photos."""
        return ToneSampling(self.full_frames, self.light, self.rendering)

    @property
    def config(self) -> ModelConfig:
        """The model that is trained."""
        stage = None
        if self.tone:
            stage = ToneConfig(
                channels=self.tone_channels,
                bins=self.tone_bins,
                quantiles=self.tone_quantiles,
                grid=self.tone_grid,
                depth=self.tone_depth,
                guide=self.tone_guide,
                hold=self.tone_hold,
                clarity=self.tone_clarity,
                darkening=self.tone_darkening,
            )
        network = NetworkConfig(self.width, self.residual, self.fusion_refiner, self.encoder_refiner)
        return ModelConfig(network, stage)


def _of_numbers(kind: type[_Numbers], table: dict, name: str) -> _Numbers:
    """A section of a recipe whose settings are all numbers.

    Raises:
        ValueError: an unknown name, or a value that is not a number.
    """
    known = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(table) - known):
        raise ValueError(f"unknown {name} {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    for setting, value in table.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ValueError(f"{name}.{setting} = {value!r} is not a number")
    return kind(**table)


def _kind(default: object) -> type | tuple[type, ...]:
    if isinstance(default, float):
        return (float, int)
    if default is None:
        return (int, type(None))
    return dict if dataclasses.is_dataclass(default) else type(default)


# What a TOML file may hold under each name.
_KINDS = {f.name: _kind(f.default) for f in dataclasses.fields(Recipe)}

# Lower default rates for training from good weights.
FINE_TUNING = {"tone_rate": 3e-4, "rate": 3e-4, "qat_rate": 3e-4}


def read_table(path: Path | None) -> dict[str, Any]:
    """The table of a recipe's TOML file; empty for None.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    if path is None:
        return {}
    try:
        table = parsing.from_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # bad TOML, or not UTF-8
        raise UsageError(f"The recipe {path} is not TOML: {error}.") from error
    table.pop("run", None)  # a run's config.toml also records its data
    return table


def read_degradation(path: Path | None) -> DegradationConfig:
    """The [degradation] of a recipe's TOML file; the defaults for None.

    Raises:
        UsageError: the file cannot be read, or its degradations are invalid.
    """
    try:
        return DegradationConfig.from_table(read_table(path).get("degradation", {}))
    except (ValueError, TypeError) as error:
        raise UsageError(f"The recipe cannot be used: {error}.") from error

"""The model's configuration, as stored in a weights file, and constants that need no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

SIZE_MULTIPLE = 8  # three halvings: height and width of the network's input must be multiples of this
LEAKY_SLOPE = 0.2
NORM_EPS = 1e-5
OPTIONS = ("residual", "fusion_refiner", "encoder_refiner")  # of NetworkConfig: what the paper leaves out in turn

THUMBNAIL_PX = 64  # side of the thumbnail that the tone stage's statistics are taken from
# A stage that decides for the whole photo only sees every fourth pixel of every fourth row of an area-averaged view of
# this side: a thumbnail that keeps lamps and letters, which averaging would wash out.
GLOBAL_VIEW_PX = 256
# One that decides from place to place sees all of a view of this side; its statistics, every second pixel.
LOCAL_VIEW_PX = 128
LARGEST_GAIN_EV = 1.5
# One that also decides pixel by pixel of its view (`ToneConfig.fine`) sees a view of this side; the same stage as with
# a view of 128 px sees means of 2 x 2 pixels of it.
FINE_VIEW_PX = 256
# By what a pixel finds its gain among those of its place: its luma, or its largest channel (HSV's value), by which a
# deep blue sky and a red leaf count as bright as they look.
Guide = Literal["luma", "largest"]

# Ranks of the order statistics, as shares of the pixels: the ends say where black and white lie.
QUANTILES = (0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997)
DARK_AND_BRIGHT = (0.01, 0.99)  # ranks of the lumas whose contrast decides how far a photo is toned
# Contrast up to which a photo is left alone, and from which the decision is applied in full.
FLAT, FULL = 0.15, 0.3
# Blocks of this side of a view have texture where their luma deviates by this share of its mean.
TEXTURE_BLOCK, TEXTURED = 8, 0.05
# Share of textured blocks up to which a photo is left alone, and from which the decision is applied in full.
SMOOTH, STRUCTURED = 0.2, 0.42

# What is decided pixel by pixel (`tone_fine`). Radii in pixels of the view, the first two in those of one of half its
# side: of the base layer that smooth shadows are found by, of windows in which bright skin is averaged, and of the base
# layer that local contrast stands out from. Variance of luma above which a base layer takes an edge for one.
HOLD_PX, FACE_PX, BASE_PX, BASE_EPSILON = 4, 1, 2, 0.01
# Shadows are base lumas below the first of these, entirely below the second. Where that share of them is smooth, a
# photo begins to keep its smooth ones, and keeps them; where its mean luma rises so much, it does not, and begins to.
# Skin begins to be bright at the first of these lumas, and is at the second.
SHADOW, SMOOTH_SHARE, UNDEREXPOSED = (0.3, 0.2), (0.04, 0.12), (0.12, 0.06)
BRIGHT_SKIN = (0.5, 0.75)
# Highlights begin, and are entirely so, at these values. This share of the hold is taken from what changes them, and no
# more than so much of what curves do.
HIGHLIGHT, HIGHLIGHT_SHARE, MOST_HELD = (0.6, 0.9), 0.5, 0.12
# Local contrast: deviation of luma at which half of it is added, and from which on it is half again; base lumas from
# which on it is added and added in full; how much less of it skin gets, and gray: carpets, asphalt, paper.
FAINT, BUSY, LIT, SKIN_CLARITY, GRAY_CLARITY = 0.028, 0.06, (0.15, 0.6), 0.85, 0.5
# Skin, 0 outside the outer limits and 1 within the inner ones: its hue from red (0) to yellow (1), and its saturation;
# in the light it is paler.
WARMTH = (0.0, 0.12, 0.75, 0.95)
SKIN, PALE_SKIN = (0.1, 0.18, 0.62, 0.75), (0.06, 0.12, 0.62, 0.75)
# Gray is less saturated than the first of these, entirely so below the second.
GRAY = (0.2, 0.1)
# A photo is darkened where its mean luma falls by this much. It is overexposed where this share of it is clipped,
# between these values of the largest channel, and veiled where its 1% of luma lies so high: begins to be, and is.
DARKENED, CLIPPED_SHARE, CLIPPED, VEILED = 0.02, (0.01, 0.05), (0.985, 0.995), (0.18, 0.24)


def rank_indices(ranks: Sequence[float], pixels: int) -> list[int]:
    """Indices of these ranks (shares of the pixels) among sorted values, smallest first."""
    return [math.ceil(share * pixels) - 1 for share in ranks]


@dataclass(frozen=True)
class NetworkConfig:
    """Width `c` of the paper (16, 24, 32 or 64 there; any positive number here), and its three ablations.

    The ablations are those of the authors' code (GenAI4E/QATIE, `HybridMixUNetAblation`): without the residual the
    network's output is the enhanced photo; without a refiner its two blocks are 3x3 convolutions with a LeakyReLU.
    """

    width: int = 16
    residual: bool = True  # the network's output is added to its input
    fusion_refiner: bool = True  # refinement blocks behind the decoder's fusions
    encoder_refiner: bool = True  # refinement blocks behind the encoder's gates

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"network width must be at least 1, not {self.width}")
        if wrong := [name for name in OPTIONS if not isinstance(getattr(self, name), bool)]:
            raise ValueError(f"{', '.join(wrong)} of the network must be true or false")

    @property
    def plain(self) -> tuple[str, ...]:
        """Names of the blocks with a plain convolution instead of a refinement block."""
        encoder = () if self.encoder_refiner else ("refine1", "refine2")
        return encoder + (() if self.fusion_refiner else ("decode2", "decode1"))

    @property
    def described(self) -> str:
        """The width, and what is left out, for people."""
        left_out = [f"no {name.replace('_', ' ')}" for name in OPTIONS if not getattr(self, name)]
        return ", ".join([f"width {self.width}", *left_out])

    def to_table(self) -> dict:
        """Plain values; options at their defaults are omitted, as in files from before they existed."""
        return {"width": self.width} | {name: False for name in OPTIONS if not getattr(self, name)}


@dataclass(frozen=True)
class ToneConfig:
    """Sizes of the tone stage."""

    knots: int = 17  # of each curve, evenly spaced over the sRGB-encoded range 0..1
    channels: int = 16  # of the first convolution; the next ones have 2, 4 and 4 times as many; 0 for none of them
    bins: int = 0  # of the histograms of red, green, blue and luma; 0 for none
    quantiles: bool = False  # of red, green, blue, luma and each pixel's largest and smallest channel
    grid: int = 0  # cells along each side of the photo that gains are decided for: 8, 16 or 32; 0 for none
    depth: int = 8  # cells of the grid along its guide
    guide: Guide = "luma"
    hold: float = 0.0  # share of a brightening that smooth shadows and bright skin do not get, 0..1; needs a grid
    clarity: float = 0.0  # share of local contrast that is added behind the network; needs a grid
    darkening: float = 1.0  # share kept of what darkens photos that are neither overexposed nor veiled, 0..1

    def __post_init__(self) -> None:
        if self.knots < 2 or self.channels < 0 or self.bins < 0:
            raise ValueError(f"a tone stage needs at least 2 knots and no negative numbers, not {self}")
        if self.bins == 1 or not (self.channels or self.bins or self.quantiles):
            raise ValueError("a tone stage needs channels, 2 bins or more, or quantiles to see a photo by")
        if self.grid and (self.grid not in (8, 16, 32) or self.depth < 2 or not self.channels or not self.statistics):
            raise ValueError(
                "a grid has 8, 16 or 32 cells a side, 2 or more along its guide, and needs channels and statistics: "
                f"{self}"
            )
        if self.guide not in get_args(Guide):
            raise ValueError(f"the guide of a grid is luma or largest, not {self.guide}")
        if not (0 <= self.hold <= 1 and 0 <= self.darkening <= 1 and self.clarity >= 0):
            raise ValueError(f"hold and darkening lie in 0..1, and clarity is at least 0: {self}")
        if self.fine and not self.grid:
            raise ValueError("hold, clarity and darkening need a grid")

    def to_table(self) -> dict:
        """Plain values; later settings are omitted at their defaults, as in files from before they existed."""
        later = {"guide": "luma", "hold": 0.0, "clarity": 0.0, "darkening": 1.0}
        return {name: value for name, value in asdict(self).items() if later.get(name) != value}

    @property
    def fine(self) -> bool:
        """Whether it decides something by rules, too, for every pixel of its view."""
        return self.hold > 0 or self.clarity > 0 or self.darkening < 1

    @property
    def learnt(self) -> ToneConfig:
        """The same without what is decided by rules: that of the stage while it is trained."""
        return replace(self, hold=0.0, clarity=0.0, darkening=1.0)

    @property
    def statistics(self) -> int:
        """Number of statistics it sees."""
        return (8 * self.bins + 6 if self.bins else 0) + (6 * len(QUANTILES) if self.quantiles else 0)

    @property
    def view_px(self) -> int:
        """Side of the square view of the photo that the stage is given."""
        if self.fine:
            return FINE_VIEW_PX
        return LOCAL_VIEW_PX if self.grid else THUMBNAIL_PX

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels in front of and behind each of its convolutions over the view; empty where it has none."""
        c = self.channels
        if not c:
            return ()
        widths = (3, c, 2 * c, 4 * c, 4 * c)
        # With a grid, halved until a pixel stands for one of its cells.
        return widths[: (LOCAL_VIEW_PX // self.grid).bit_length()] if self.grid else widths

    @property
    def seen(self) -> int:
        """Number of values that the decision is made from."""
        pooled = 8 * self.channels if self.grid else 2 * self.widths[-1] if self.channels else 0
        return pooled + self.statistics

    @property
    def hidden(self) -> int:
        """Number of hidden features."""
        return 4 * (self.channels or 16)


@dataclass(frozen=True)
class ModelConfig:
    """What a weights file says of its own structure."""

    network: NetworkConfig = NetworkConfig()
    tone: ToneConfig | None = None

    def to_table(self) -> dict:
        """Plain values for a JSON header."""
        return {"network": self.network.to_table(), "tone": None if self.tone is None else self.tone.to_table()}

    @staticmethod
    def from_table(table: dict) -> ModelConfig:
        """The inverse of `to_table`; unknown or missing names raise TypeError or KeyError."""
        if extra := set(table) - {"network", "tone"}:
            raise KeyError(f"unknown stage {', '.join(sorted(extra))}")
        stage = table["tone"]
        return ModelConfig(NetworkConfig(**table["network"]), None if stage is None else ToneConfig(**stage))

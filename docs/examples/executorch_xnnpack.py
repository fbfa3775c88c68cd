"""Enhance a photo with a model in ExecuTorch: python executorch_xnnpack.py MODEL.pte PHOTO OUTPUT.

The photo is resized to the size that the model was exported for.
"""

import sys

import numpy as np
import torch
from executorch.runtime import Runtime
from PIL import Image

file, source, target = sys.argv[1:]
method = Runtime.get().load_program(file).load_method("forward")
height, width = method.metadata.input_tensor_meta(0).sizes()[-2:]
side = method.metadata.input_tensor_meta(1).sizes()[-1]
photo = Image.open(source).convert("RGB").resize((width, height))
averaged = photo.resize((128, 128) if side == 128 else (256, 256), Image.Resampling.BOX)
thumbnail = averaged.resize((side, side), Image.Resampling.NEAREST)
given = [torch.tensor(np.array(x)).permute(2, 0, 1)[None] / 255 for x in (photo, thumbnail)]
enhanced = method.execute([x.contiguous() for x in given])[0][0].permute(1, 2, 0)
Image.fromarray((enhanced * 255).round().byte().numpy()).save(target)

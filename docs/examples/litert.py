"""Enhance a photo with an int8 model in LiteRT: python litert.py MODEL.tflite PHOTO OUTPUT."""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

file, source, target = sys.argv[1:]
photo = np.asarray(Image.open(source).convert("RGB"))
height, width = photo.shape[:2]
padded = np.pad(photo, ((0, -height % 8), (0, -width % 8), (0, 0)), "edge")
model = Interpreter(file)
side = int(model.get_input_details()[1]["shape"][1])
averaged = Image.fromarray(photo).resize((128, 128) if side == 128 else (256, 256), Image.Resampling.BOX)
thumbnail = np.asarray(averaged.resize((side, side), Image.Resampling.NEAREST))
model.resize_tensor_input(model.get_input_details()[0]["index"], (1, *padded.shape))
enhanced = model.get_signature_runner()(photo=padded[None], thumbnail=thumbnail[None])["enhanced"]
Image.fromarray(enhanced[0, :height, :width]).save(target)

"""Libraries that collect usage data, imported with that turned off. Nothing else imports them.

onnxruntime 1.32 writes an ID of the machine to ~/.cache/Microsoft as soon as it is imported, and beside it events for
mobile.events.data.microsoft.com with the kind of processor, the system and the path of the program.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported; "0" of the user's own stays

import onnxruntime

__all__ = ["onnxruntime"]

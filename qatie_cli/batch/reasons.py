"""Why a photo failed, in one line: the file, what happened, what to do."""

from __future__ import annotations

import errno

from qatie_cli.batch.planning import Task
from qatie_cli.errors import QatieError

_ADVICE = {
    errno.ENOSPC: "Make room and run the same command again.",
    errno.EDQUOT: "Make room and run the same command again.",
    errno.EACCES: "Check the folder's permissions.",
    errno.EROFS: "The file system is read-only; choose another folder with -o.",
    errno.ENAMETOOLONG: "Choose a folder with a shorter path with -o.",
    errno.EISDIR: "A folder has that name; remove it or choose another folder with -o.",
    errno.ENOTDIR: "A file is in the place of a folder; remove it or choose another folder with -o.",
    errno.EEXIST: "A file is in the place of a folder; remove it or choose another folder with -o.",
}


def of(task: Task, error: Exception) -> str:
    """The reason for a failure in one line: the file, what happened, what to do."""
    if isinstance(error, QatieError):
        line = error.one_line()
        return line if str(task.source) in line or str(task.output) in line else f"{task.source}: {line}"
    if isinstance(error, MemoryError):
        return f"{task.source} does not fit into memory. Allow smaller tiles with --max-memory."
    if isinstance(error, OSError):
        advice = _ADVICE.get(error.errno or 0, "")
        return f"{task.output} could not be written: {error.strerror or error}. {advice}".strip()
    return f"{task.source} could not be enhanced: {type(error).__name__}: {' '.join(str(error).split())}"

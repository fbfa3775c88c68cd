"""Machine code from LLVM's intermediate representation: compiled once for this processor, then kept on disk.

llvmlite, which numba brings along, does it; importing it takes a tenth of the time that numba takes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import platform
from collections.abc import Callable, Iterable
from pathlib import Path

from qatie_cli import files
from qatie_cli.home import user_folder

_OLDEST = (20, 0, 0)  # LLVM's version in llvmlite 0.45; the one before has pointers of another kind
CHANNELS = 16  # that convolutions compute at once, and features have multiples of
Function = Callable[[int], None]  # of the address of its arguments; other Python threads run meanwhile
_DIGEST_BYTES = hashlib.sha256().digest_size
_ENGINES: list[object] = []  # own the code that functions point to


@functools.cache
def runs_on_bytes() -> bool:
    """Whether this processor adds 64 products of bytes and looks up 64 bytes at once, and llvmlite is here.

    These are AVX-512 VNNI and VBMI: Intel's from 2019 on where they have AVX-512, and AMD's from Zen 4 on. Only on
    Linux: code for other systems was never tried.
    """
    if platform.system() != "Linux":
        return False
    try:
        from llvmlite import binding

        features = binding.get_host_cpu_features()
        if binding.llvm_version_info < _OLDEST:
            return False
    except Exception:  # not only ImportError: a damaged library raises OSError, an unknown processor RuntimeError
        return False
    return all(features.get(name, False) for name in ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"))


def functions(source: Callable[[], str], names: Iterable[str], key: bytes) -> dict[str, Function]:
    """Functions by name of the module that `source` writes, compiled for this processor.

    The code is kept in the user's data folder. A file that is damaged is made anew; where none can be written,
    everything is compiled each time.

    Args:
        key: whatever `source` depends on.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()
    processor, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    about = [key, Path(__file__).read_bytes(), repr((binding.llvm_version_info, processor, features)).encode()]
    path = user_folder() / "machine-code" / f"{hashlib.sha256(b'|'.join(about)).hexdigest()[:32]}.o"
    # Without vectors of 512 bits LLVM halves those of the source.
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=processor, features=f"{features},-prefer-256-bit", opt=3
    )
    code = _kept(path)
    if code is None:
        code = _compiled(source(), machine)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(path, hashlib.sha256(code).digest() + code)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    return {name: kind(engine.get_function_address(name)) for name in names}


def _kept(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]:
            return content[_DIGEST_BYTES:]
    return None


def _compiled(source: str, machine) -> bytes:
    from llvmlite import binding

    module = binding.parse_assembly(source)
    module.verify()
    # Without the passes that rewrite the source: they took twice the time of what they are followed by and saved 1%.
    return bytes(machine.emit_object(module))

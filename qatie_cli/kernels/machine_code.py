"""Machine code from LLVM's intermediate representation, compiled once for this processor and cached on disk.

It uses llvmlite, a dependency of numba that imports ten times as fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from qatie_cli import files
from qatie_cli.home import user_folder

Instructions = Literal["avx512", "avx2"]
_NEEDED: dict[Instructions, tuple[str, ...]] = {
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"),
    "avx2": ("avx2", "fma"),
}
_OLDEST = (20, 0, 0)  # of LLVM, in llvmlite 0.45; older ones have typed pointers
CHANNELS = 16  # per vector; features have multiples of it
Function = Callable[[int], None]  # takes the address of its arguments; runs without the GIL
_DIGEST_BYTES = hashlib.sha256().digest_size
_ENGINES: list[object] = []  # own the code that functions point to


@functools.cache
def instructions() -> Instructions | None:
    """The vector instructions that convolutions are compiled for here; None if they are not, or without llvmlite.

    AVX-512 needs VNNI and VBMI, which Intel's processors with AVX-512 have since 2019 and AMD's since Zen 4. AVX2 with
    FMA has nearly every x86 processor since 2015. Linux only: untested elsewhere.
    """
    if platform.system() != "Linux":
        return None
    try:
        from llvmlite import binding

        features = binding.get_host_cpu_features()
        if binding.llvm_version_info < _OLDEST:
            return None
    except Exception:  # not only ImportError: a damaged library raises OSError, an unknown processor RuntimeError
        return None
    for name, needed in _NEEDED.items():
        if all(features.get(feature, False) for feature in needed):
            return name
    return None


def functions(source: Callable[[], str], names: Iterable[str], key: bytes) -> dict[str, Function]:
    """Compile the module that `source` returns for this processor; its functions by name.

    The code is cached in the user's data folder. A damaged file is replaced; if none can be written, the module is
    compiled each time.

    Args:
        key: everything that the result of `source` depends on.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()
    # By default LLVM splits 512-bit vectors into halves on some processors.
    vectors = "-prefer-256-bit" if instructions() == "avx512" else "-avx512f"
    processor, features = binding.get_host_cpu_name(), f"{binding.get_host_cpu_features().flatten()},{vectors}"
    about = [key, Path(__file__).read_bytes(), repr((binding.llvm_version_info, processor, features)).encode()]
    path = user_folder() / "machine-code" / f"{hashlib.sha256(b'|'.join(about)).hexdigest()[:32]}.o"
    machine = binding.Target.from_default_triple().create_target_machine(cpu=processor, features=features, opt=3)
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
    # No optimization passes on the module: they took twice as long as code generation and saved 1%.
    return bytes(machine.emit_object(module))

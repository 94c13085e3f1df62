"""Coverage-guided search in the reading of files, with atheris: ``atheris_files.py FOLDER [options of libFuzzer]``.

FOLDER gets the files that the search begins with. The search ends at the first error that is none of the library's.
"""

import importlib.util
import sys
from pathlib import Path


def main(folder, *options):
    import atheris

    package = Path(importlib.util.find_spec("elman").submodule_search_locations[0])
    # Numba cannot compile what was instrumented.
    compiled = [f"elman.{part}" for part in ("jit", "kernels", "cells")]
    compiled += [f"{part}.{file.stem}" for part in compiled for file in package.glob(f"{part[6:]}/*.py")]
    with atheris.instrument_imports(include=["elman", "zipfile", "json", "numpy.lib"], exclude=compiled):
        import fuzz_files

        import elman

    folder = Path(folder)
    path = folder.parent / "damaged"

    def read(data):
        path.write_bytes(data)
        for load in (elman.load_model, elman.Forecaster.load):
            try:
                load(path)
            except elman.errors.BadFile as error:
                assert str(error).startswith("path: ")

    folder.mkdir(exist_ok=True)
    for make, _, _ in fuzz_files.KINDS.values():
        make(folder)
    atheris.Setup([sys.argv[0], str(folder), *options], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

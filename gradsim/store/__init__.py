"""Result files: written whole, read with suspicion, verified byte by byte.

The only package that imports h5py.
"""

from gradsim.store.reader import is_complete, open_result
from gradsim.store.unfinished import find_unfinished, parts_path
from gradsim.store.verify import verify_file
from gradsim.store.writer import ResultWriter

__all__ = ["ResultWriter", "find_unfinished", "is_complete", "open_result", "parts_path", "verify_file"]

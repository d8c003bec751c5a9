"""A clock that a test can move: `time.time` of a process that is started with this folder in PYTHONPATH.

Python imports it before anything else. CHAOS_CLOCK names a file of eight bytes, seconds as a double, which are added
to the machine's clock; whoever writes the file moves the clock of a process that runs, at once.
"""

import mmap
import os
import struct
import time

_name = os.environ.get("CHAOS_CLOCK")
if _name:
    with open(_name, "rb") as _file:
        _offset = mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)
    _machine = time.time
    _read = struct.Struct("d").unpack_from

    def _moved() -> float:
        seconds: float = _read(_offset)[0]
        return _machine() + seconds

    time.time = _moved

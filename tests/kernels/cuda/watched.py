"""A detector of races: every entry that the threads of a block read and write, between one barrier and the next.

Run under numba's CUDA simulator. An entry is raced for if one thread changes it and another reads it, or writes another
value, without a barrier between the two, whatever the order in which they happened to do so this time. All threads may
write the same value, and read it after they have written it themselves: that is how what is the same for all is kept.
"""

import threading

import numpy as np

_lock = threading.Lock()
_entries = {}
_epochs = threading.local()
_state = {"run": 0}
races = []


class Entry:
    """Who has touched an entry since the last barrier."""

    def __init__(self, epoch, before):
        self.epoch, self.before = epoch, before
        self.readers, self.writers = set(), {}


def same(a, b):
    """Whether two values are the same, NaN as well."""
    return bool(a == b) or bool(a != a and b != b)


def epoch():
    """The run, the block and how many barriers this thread has passed."""
    from numba.cuda.simulator import kernel

    block = kernel._get_kernel_context().blockIdx.x
    here = (_state["run"], block)
    if getattr(_epochs, "here", None) != here:
        _epochs.here, _epochs.count = here, 0
    return (*here, _epochs.count)


def passed():
    """This thread has passed a barrier."""
    epoch()
    _epochs.count += 1


def begin():
    """A new run of a kernel."""
    _state["run"] += 1
    _entries.clear()
    races.clear()


def _entry(address, now, value):
    found = _entries.get(address)
    if found is None or found.epoch != now:
        found = _entries[address] = Entry(now, value)
    return found


def _note(kind, name, entry, thread):
    import traceback

    frames = [f"{f.name}:{f.lineno}" for f in traceback.extract_stack()[:-3] if "gradsim" in f.filename][-4:]
    races.append(f"{kind} {name} by thread {thread}: {' > '.join(frames)}")


def read(address, name, value):
    """This thread reads an entry."""
    now, thread = epoch(), threading.current_thread().threadIdx.x
    with _lock:
        own = _entry(address, now, value)
        if thread not in own.writers:
            own.readers.add(thread)
            if any(not same(v, own.before) for w, v in own.writers.items() if w != thread):
                _note("read", name, own, thread)


def written(address, name, before, value):
    """This thread writes an entry."""
    now, thread = epoch(), threading.current_thread().threadIdx.x
    with _lock:
        own = _entry(address, now, before)
        own.writers[thread] = value
        changed = not same(value, own.before)
        others = [v for w, v in own.writers.items() if w != thread]
        if (changed and own.readers - {thread}) or any(not same(v, value) for v in others):
            _note("write", name, own, thread)


class Watched(np.ndarray):
    """An array whose entries are watched."""

    def __array_finalize__(self, other):
        self.named = getattr(other, "named", "?")

    def _address(self, key):
        index = key if isinstance(key, tuple) else (key,)
        offset = sum((int(k) % n) * s for k, n, s in zip(index, self.shape, self.strides, strict=True))
        return self.__array_interface__["data"][0] + offset

    def __getitem__(self, key):
        value = super().__getitem__(key)
        if not isinstance(value, np.ndarray):
            read(self._address(key), self.named, value)
        return value

    def __setitem__(self, key, value):
        index = key if isinstance(key, tuple) else (key,)
        if len(index) == self.ndim and all(not isinstance(k, slice) for k in index):
            before = super().__getitem__(key)
            super().__setitem__(key, value)
            written(self._address(key), self.named, before, super().__getitem__(key))
        else:
            super().__setitem__(key, value)


def watch(array, name):
    """The same memory, watched."""
    found = array.view(Watched)
    found.named = name
    return found


class Record:
    """A record whose fields are watched."""

    def __init__(self, record, name):
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_named", name)

    def __getattr__(self, field):
        value = getattr(self._record, field)
        read((id(self._record), field), f"{self._named}.{field}", value)
        return value

    def __setattr__(self, field, value):
        before = getattr(self._record, field)
        setattr(self._record, field, value)
        written((id(self._record), field), f"{self._named}.{field}", before, getattr(self._record, field))


class Records:
    """An array of records, one a chain or one a layer of a chain, watched."""

    def __init__(self, array, name):
        self._array, self._name = array, name
        watched = (lambda i: Records(array[i], name)) if array.ndim > 1 else (lambda i: Record(array[i], name))
        self._kept = [watched(i) for i in range(len(array))]

    def __getitem__(self, index):
        return self._kept[index]

    def __len__(self):
        return len(self._kept)

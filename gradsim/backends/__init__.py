"""Who executes a block: threads of this process (`local`) or a GPU (`cuda`)."""

from gradsim.backends.local import LocalBackend

__all__ = ["LocalBackend"]

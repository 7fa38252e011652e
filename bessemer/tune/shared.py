"""Memory that a process shares with its children: pieces of a file that has neither a name nor a place on a disk."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the shared memory."""

    offset: int
    nbytes: int


class Shared:
    """The memory; a child makes its own of the same `handle`."""

    def __init__(self, handle: int | None = None) -> None:
        self.handle = os.memfd_create("bessemer") if handle is None else handle
        self._size = 0

    def room(self, nbytes: int) -> Piece:
        """A new piece, of zeros."""
        piece = Piece(self._size, nbytes)
        self._size += -(-nbytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        os.ftruncate(self.handle, self._size)
        return piece

    def put(self, array: np.ndarray) -> Piece:
        """A new piece with the elements of an array, in C order."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        piece = self.room(data.nbytes)
        self.bytes(piece)[:] = data
        return piece

    def bytes(self, piece: Piece) -> np.ndarray:
        """The bytes of a piece, mapped for as long as the array lives."""
        if not piece.nbytes:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(self.handle, piece.nbytes, offset=piece.offset), np.uint8)

    def clear(self) -> None:
        """Give the memory back. Nobody may touch a piece any more."""
        os.ftruncate(self.handle, 0)
        self._size = 0

    def close(self) -> None:
        """Give back the handle too."""
        os.close(self.handle)

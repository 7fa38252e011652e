"""Streams, which order work on a GPU, and events, which mark points in them."""

from __future__ import annotations

from typing import Any

from bessemer.device.cuda_api import Api
from bessemer.device.cuda_graph import Capture


class Stream:
    """A queue of work on the device."""

    def __init__(self, api: Api, handle: Any, own: bool) -> None:
        self.api, self.handle, self._own = api, handle, own
        self.recording: Capture | None = None

    def synchronize(self) -> None:
        """Wait for what was queued."""
        self.api.call("cuStreamSynchronize", self.handle)

    def wait(self, event: Event) -> None:
        """Let what is queued from now on wait for `event`."""
        self.api.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def capture(self) -> Capture:
        """A context manager: launches and copies on this stream become nodes of a graph, and nothing runs."""
        return Capture(self)

    def close(self) -> None:
        """Destroy the stream, if it was made here."""
        if self._own:
            self.api.call("cuStreamDestroy", self.handle)
            self._own = False


class Event:
    """A point in a stream."""

    def __init__(self, api: Api, timing: bool) -> None:
        self._api = api
        self.handle = api.call("cuEventCreate", 0 if timing else 2)  # CU_EVENT_DISABLE_TIMING

    def record(self, stream: Stream) -> None:
        """Mark the end of what is queued on `stream`."""
        self._api.call("cuEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until the point is reached."""
        self._api.call("cuEventSynchronize", self.handle)

    def milliseconds_since(self, start: Event) -> float:
        """Time between two events that were reached."""
        return float(self._api.call("cuEventElapsedTime", start.handle, self.handle))

    def close(self) -> None:
        """Destroy the event."""
        self._api.call("cuEventDestroy", self.handle)

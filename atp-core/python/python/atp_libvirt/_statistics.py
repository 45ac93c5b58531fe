"""Statistics: what VMs use, measured over an interval."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union, cast, overload

from . import _data, _native
from ._table import Table


class Statistics(Table):
    """The samples of VMs, in the order of hosts and VMs, of one round or of several: a sequence, and a table for data frames.

    Rates are per second, over the time since the round before. A VM that did not answer is ``stale``, and has what it had.
    Readers of the Arrow PyCapsule interface take it as it is: ``polars.DataFrame(statistics)``.
    """

    __slots__ = ("_native", "_rounds")

    def __init__(self, native: _native.Statistics, rounds: Sequence[Dict[str, Any]]) -> None:
        self._native = native
        self._rounds = rounds

    @classmethod
    def of(cls, rounds: Sequence[Statistics]) -> Statistics:
        """One table of several."""
        every = [one for statistics in rounds for one in statistics._rounds]
        return cls(_native.Statistics([json.dumps(one["round"]) for one in every]), every)

    def __len__(self) -> int:
        return len(self._native)

    @overload
    def __getitem__(self, index: int) -> _data.VmStatistics: ...
    @overload
    def __getitem__(self, index: slice) -> Statistics: ...
    def __getitem__(self, index: Union[int, slice]) -> Union[_data.VmStatistics, Statistics]:
        if isinstance(index, slice):
            return Statistics(self._native.select(list(range(len(self))[index])), self._rounds)
        text = self._native.item(range(len(self))[index])
        return cast("_data.VmStatistics", _data.reader(_data.VmStatistics)(json.loads(text)))

    def __iter__(self) -> Iterator[_data.VmStatistics]:
        return (self[index] for index in range(len(self)))

    @property
    def at(self) -> Optional[datetime]:
        """When the last round was begun."""
        if not self._rounds:
            return None
        return datetime.fromtimestamp(self._rounds[-1]["round"]["at_ms"] / 1000, timezone.utc)

    @property
    def hosts(self) -> List[_data.HostStatistics]:
        """The hosts, in the last round: those that did not answer are ``stale``."""
        hosts: List[Any] = self._rounds[-1]["round"]["hosts"] if self._rounds else []
        return [_data.reader(_data.HostStatistics)(host) for host in hosts]

    @property
    def not_found(self) -> List[str]:
        """The VMs that are selected by name and are on none of their hosts."""
        return list(self._rounds[-1]["not_found"]) if self._rounds else []

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._native.arrow_stream(requested_schema)

    def __repr__(self) -> str:
        return f"<Statistics {len(self)} samples in {len(self._rounds)} rounds>"


def read(text: str) -> Statistics:
    """A round, from JSON."""
    sampled = cast("Dict[str, Any]", json.loads(text))
    return Statistics(_native.Statistics([json.dumps(sampled["round"])]), [sampled])

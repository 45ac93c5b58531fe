"""Journals of runs, as ``atp journal show`` reads them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Union

from . import _native
from ._outcomes import Outcome, selector


@dataclass(frozen=True)
class JournalTarget:
    """A target of a journal."""

    #: The host.
    host: str
    #: The VM's name. None if the host is the target.
    vm: Optional[str]
    #: The VM's identity.
    uuid: Optional[str]
    #: ``never-started`` (nothing was done), ``started`` (its outcome is not recorded: it is not known what was done), ``lost`` (its
    #: records were lost to damage) or ``finished``.
    progress: str
    #: Its last outcome; None unless it finished.
    outcome: Optional[Outcome[Any]]

    @property
    def target(self) -> str:
        """The selector of this target alone: ``HOST/VM``, or ``HOST/`` if it is the host."""
        return selector(self.host, self.vm)


@dataclass(frozen=True)
class Journal:
    """What a journal says of its run."""

    #: The file.
    path: str
    #: The operation's name. Its parameters are in no journal, as they may be secret.
    op: str
    #: The version of the program that began it.
    version: str
    #: When it was begun (RFC 3339); empty if the file does not say so.
    begun_at: str
    #: When each later run went on with it.
    resumed_at: List[str]
    #: Bytes at the end that are no whole record: the last write was cut off, or a run is writing it now.
    torn_bytes: int
    #: Whether records before the end were lost to damage.
    has_lost: bool
    #: What was selected and could not be resolved to targets, as ``HOST``, ``VM`` or ``HOST/VM``.
    unresolved: List[str]
    #: The targets, by host and UUID.
    targets: List[JournalTarget]


def read_journal(file: Union[str, os.PathLike[str]]) -> Journal:
    """Reads the journal of a run, also of one that goes on just now. It needs no host, and changes nothing.

    :param file: The path that the run was given as ``journal=``, or as ``--journal``.
    :raises RequestError: It cannot be read, or is not a journal.

    >>> fleet.exec("h1/*", ["true"], journal="nightly.journal").raise_for_failures()
    <Outcomes 2 ok>
    >>> for target in read_journal("nightly.journal").targets:
    ...     print(target.target, target.progress, target.outcome.status)
    h1/vm1 finished ok
    h1/vm2 finished ok
    """
    report: Dict[str, Any] = json.loads(_native.journal(os.fspath(file)))
    report["targets"] = [_target(target) for target in report["targets"]]
    return Journal(**report)


def _target(target: Dict[str, Any]) -> JournalTarget:
    outcome = target["outcome"]
    read: Optional[Outcome[Any]] = None if outcome is None else Outcome(_native.Outcome(json.dumps(outcome)))
    return JournalTarget(target["host"], target["vm"], target["uuid"], target["progress"], read)

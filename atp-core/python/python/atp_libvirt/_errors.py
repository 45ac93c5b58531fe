"""Exceptions, each with what a program has to know to go on: kind, effect, whether a retry can help, and a hint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from ._outcomes import Outcomes


class AtpError(Exception):
    """The base of all exceptions of this package.

    >>> error = AtpError("no such host", kind="unknown-host", hint="check the spelling")
    >>> error.kind, error.effect, error.retryable
    ('unknown-host', 'none', False)
    >>> print(error)
    no such host (unknown-host; hint: check the spelling)
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unknown",
        effect: str = "none",
        retryable: bool = False,
        hint: Optional[str] = None,
        causes: Sequence[str] = (),
        libvirt: Optional[Tuple[int, int]] = None,
    ) -> None:
        super().__init__(message)
        #: What went wrong, in a sentence without its causes.
        self.message = message
        #: A stable word for the kind of the failure, to match on.
        self.kind = kind
        #: Whether anything happened to the target: ``none``, ``done`` or ``unknown``. Do not repeat what is ``unknown``.
        self.effect = effect
        #: Whether the same work may succeed later.
        self.retryable = retryable
        #: What a person can try.
        self.hint = hint
        #: The causes, the nearest first.
        self.causes = list(causes)
        #: libvirt's code and domain of the error, if libvirt raised it.
        self.libvirt = libvirt

    def __str__(self) -> str:
        text = ": ".join([self.message, *self.causes])
        hint = f"; hint: {self.hint}" if self.hint else ""
        return f"{text} ({self.kind}{hint})"

    def __reduce__(self) -> Any:
        return (_restore, (type(self), self.message, dict(self.__dict__)))


class ConfigError(AtpError):
    """The settings cannot be used. The message has a line for each problem."""


class RequestError(AtpError):
    """The request was refused before any target was worked on: a selector, a host or a parameter is wrong."""


class ServiceError(AtpError):
    """The service cannot be reached, or refused the request. With the effect ``unknown`` it may have done it: a run may go on there."""


class ClosedError(AtpError):
    """The fleet was closed, or the stream of bytes."""


class ForkedError(AtpError):
    """The fleet was made by the process that this one was forked from. Make a fleet of its own after the fork."""


class NotFreeError(AtpError):
    """Fewer VMs are free than were to be reserved. Nothing was reserved."""


class OutcomeError(AtpError):
    """Why the work on one target failed."""


class FailedOutcomes(AtpError):
    """Targets failed. Raised by :meth:`Outcomes.raise_for_failures`.

    Kind and hint are those of the first failure. The effect is ``unknown`` if that of any failure is.
    """

    def __init__(self, message: str, *, outcomes: Outcomes[Any], **fields: Any) -> None:
        super().__init__(message, **fields)
        #: The outcomes that failed.
        self.outcomes = outcomes

    def __str__(self) -> str:
        # Kind and hint of each are in its line.
        return self.message


#: Why a service does not do what is asked for, whatever that is.
_SERVICE = {
    "connection-refused",
    "not-authenticated",
    "panicked",
    "permission-denied",
    "rate-limited",
    "read-only",
    "request-timeout",
    "service-stopping",
    "storage-failed",
    "unknown",
}


def exception(
    kind: str,
    message: str,
    effect: str,
    retryable: bool,
    hint: Optional[str],
    causes: Sequence[str],
    libvirt: Optional[Tuple[int, int]],
    is_of_target: bool = False,
) -> AtpError:
    """The exception for an error of the extension module."""
    if kind == "invalid-config":
        of_kind: type[AtpError] = ConfigError
    elif kind == "aborted":
        of_kind = ClosedError
    elif is_of_target:
        of_kind = OutcomeError
    elif kind in _SERVICE or effect != "none":
        # Through a service a run may go on whose outcomes cannot be read any more.
        of_kind = ServiceError
    else:
        of_kind = RequestError
    return of_kind(
        message, kind=kind, effect=effect, retryable=retryable, hint=hint, causes=causes, libvirt=libvirt
    )


def forked() -> ForkedError:
    """The exception for a call in a process that was forked."""
    return ForkedError(
        "the fleet was made before this process was forked, and its threads are not here",
        kind="forked",
        hint="make a Fleet of its own in the forked process, or start processes by 'spawn' or 'forkserver'",
    )


def closed() -> ClosedError:
    """The exception for work that ended because its fleet was closed."""
    return ClosedError("the fleet was closed", kind="aborted", hint="keep the fleet open while work runs")


def stream_closed() -> ClosedError:
    """The exception for work on a stream of bytes that was closed."""
    return ClosedError("the stream was closed", kind="aborted", hint="open it again: fleet.attach or fleet.channel")


def not_read(what: str, seconds: Optional[float], last: bytes) -> OutcomeError:
    """The exception for what was not read from a stream of bytes: in so many seconds, or at all as the stream has ended."""
    is_late = seconds is not None
    came = f"; the last that came: {last!r}" if last else ""
    return OutcomeError(
        f"{what} within {seconds:g} s{came}" if is_late else f"{what} before the stream ended{came}",
        kind="condition-not-met",
        retryable=is_late,
        hint=None if is_late else "the VM was stopped, another client has taken the stream, or the fleet was closed",
    )


def nothing_selected() -> RequestError:
    """The exception for a run that was to do something and had no target."""
    return RequestError(
        "no VM was selected: nothing was done",
        kind="nothing-selected",
        hint="fleet.vms() shows which VMs there are; raise_for_failures(empty=True) accepts none",
    )


def failed(failures: Outcomes[Any], total: int) -> FailedOutcomes:
    """The exception for outcomes of which some failed."""
    lines = [f"{len(failures)} of {total} targets failed"]
    for outcome in failures[:8]:
        lines.append(f"  {outcome.target}: {outcome.status}: {outcome.error}")
    if len(failures) > 8:
        lines.append(f"  … and {len(failures) - 8} more")
    first = failures[0].error
    effects = {outcome.effect for outcome in failures}
    return FailedOutcomes(
        "\n".join(lines),
        outcomes=failures,
        kind=first.kind if first else "unknown",
        effect=next((effect for effect in ("unknown", "done") if effect in effects), "none"),
        retryable=all(outcome.error is not None and outcome.error.retryable for outcome in failures),
        hint=first.hint if first else None,
    )


def of_outcome(effect: str, error: dict[str, Any]) -> OutcomeError:
    """The exception for the error of an outcome, from JSON."""
    hint: Any = error.get("hint")
    libvirt = error.get("libvirt")
    return OutcomeError(
        error["message"],
        kind=error["kind"],
        effect=effect,
        retryable=error["retryable"],
        hint=hint if hint is None or isinstance(hint, str) else hint["text"],
        causes=error["causes"],
        libvirt=(libvirt["code"], libvirt["domain"]) if libvirt else None,
    )


def _restore(of_kind: type[AtpError], message: str, fields: dict[str, Any]) -> AtpError:
    """Makes an exception again that was sent between processes."""
    error = of_kind.__new__(of_kind)
    Exception.__init__(error, message)
    error.__dict__.update(fields)
    return error

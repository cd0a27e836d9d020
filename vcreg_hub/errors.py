"""The exceptions of this package.

VCRegError                      anything this package refuses or fails at; the command line exits with 1
 +- UsageError                  the call itself is wrong; the command line exits with 2
 |   +- UnknownNameError        a recipe, field, model, data set or release that does not exist
 |   +- ConfigError             a value that its field cannot take
 |   +- BlocksNotFoundError     no place in the model matches what was asked for
 +- AttachError                 the model cannot be hooked, or a watched step would not be exact
 +- DataError                   a folder, file or label that is not what the data set promises
 +- DivergedError               the loss is not finite
 +- PeerError                   another process of the run hangs or is gone
 +- WeightsNotFoundError        nobody has published those weights at the place looked at
 +- IntegrityError              a file differs from the hash recorded for it
 +- RunFolderError              a run folder that lacks a file or holds a broken one
 +- StorageError                nothing can be written there: a full disk, a folder that may only be read
 +- StoppedError                a signal asked a training to stop; the command line exits with 75
 +- HubError                    talking to a hub failed
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

# Characters of a wrong name that an error shows.
_SHOWN = 200


class VCRegError(Exception):
    """Base of every error this package raises on purpose.

    Its text has no control characters, and one line but for a list of failures (a bare VCRegError): names in it may
    come from a file or a hub that means harm, and end on a terminal or in a log.
    """

    exit_code = 1

    def __str__(self) -> str:
        lines = super().__str__().split("\n")
        return ("\n" if type(self) is VCRegError else "\\n").join(map(printable, lines))


class UsageError(VCRegError, ValueError):
    """The call asks for something impossible: the cure is in the call, not in the machine."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name missing from its table."""


class ConfigError(UsageError):
    """A value outside its field's range or type."""


class BlocksNotFoundError(UsageError, LookupError):
    """No module of the model answers to `where`, or an input is needed to find one."""


class AttachError(VCRegError, RuntimeError):
    """The model cannot be hooked, or the gradient of this step would not be exact."""


class DataError(VCRegError):
    """Data on disk break their data set's promise."""


class DivergedError(VCRegError):
    """The training loss is not finite."""


class PeerError(VCRegError):
    """Another process of the run hangs or is gone."""


class WeightsNotFoundError(VCRegError, LookupError):
    """No weights of that name at the place looked at."""


class IntegrityError(VCRegError):
    """A file's content differs from its record."""


class RunFolderError(VCRegError):
    """A run folder lacks a file, or holds a broken one."""


class StorageError(VCRegError, OSError):
    """Nothing can be written there: a full disk, a folder that may only be read."""


class StoppedError(VCRegError):
    """A signal asked a training to stop; the same call goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


class HubError(VCRegError):
    """A hub refused or failed."""


def unknown_name(kind: str, name: str, known: Iterable[str], cure: str = "") -> UnknownNameError:
    """The error for `name`, naming the nearest entries of `known` ("did you mean ...?").

    >>> str(unknown_name("recipe", "digit:atto", ["digits:atto", "moons:mlp"]))
    "unknown recipe 'digit:atto'; did you mean 'digits:atto'?"
    """
    known = list(dict.fromkeys(known))
    name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if nearest:
        hint = "did you mean " + " or ".join(repr(n) for n in nearest) + "?"
    elif len(known) <= 12:
        hint = "known: " + ", ".join(sorted(known))
    else:
        hint = f"{len(known)} are known"
    stop = "" if hint.endswith("?") else "."
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}" + (f"{stop} {cure}" if cure else ""))


def counted(count: int, noun: str, plural: str = "") -> str:
    """
    >>> counted(1, "class", "classes"), counted(1200, "clip")
    ('1 class', '1,200 clips')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def not_decoding(count: int, noun: str = "clip", plural: str = "") -> str:
    """
    >>> not_decoding(1), not_decoding(2, "training clip")
    ('1 clip does not decode', '2 training clips do not decode')
    """
    return f"{counted(count, noun, plural)} {'does' if count == 1 else 'do'} not decode"


def printable(text: str) -> str:
    r"""`text` with an escape for each control character, separator of lines and lone surrogate.

    >>> printable("a\x1b[2Jb"), printable("é")
    ('a\\x1b[2Jb', 'é')
    """
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's words that says something; the name of its class where it has no words.

    >>> first_line(ValueError("\\nno such name\\nTraceback")), first_line(KeyboardInterrupt())
    ('no such name', 'KeyboardInterrupt')
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def some(names: Collection[str], most: int = 5) -> str:
    """
    >>> some(["a", "b"]), some("abcdef", most=2)
    ('a, b', 'a, b and 4 more')
    """
    more = len(names) - most
    return ", ".join(list(names)[:most]) + (f" and {more:,} more" if more > 0 else "")

"""The error tree. What went wrong decides one thing only: is it worth trying again?

    EvergreenError
    ├── Permanent            no retry: the same input will fail the same way (exit 65, EX_DATAERR)
    │   ├── ManifestInvalid      the manifest has a typo or a contradiction
    │   ├── DataRefused          rows break the contract, or cannot be read at all
    │   ├── AccessRefused        a server does not know our keys, or withholds what we ask for
    │   ├── NotEnoughData        fewer labelled rows than the manifest asks for
    │   ├── ArtifactRejected     a model file is not what its digest or our allow-list says
    │   ├── NotBlessed           a version without a valid blessing was asked to go live
    │   ├── KeyInvalid           the key that signs, or one of those that are trusted, is none
    │   ├── RecordDamaged        a file by which a target is steered cannot be read
    │   └── RequestInvalid       a job was asked for something it cannot do
    ├── Temporary            retry: the world may have changed by then (exit 75, EX_TEMPFAIL)
    │   ├── ServiceUnavailable   a server does not answer
    │   ├── StorageUnavailable   a disk is full, or does not let us write
    │   └── Conflict             somebody else wrote first (compare-and-set lost)
    └── Unforeseen           an error that no code of ours knows (exit 70, EX_SOFTWARE)

Every message is one sentence that names the thing, the place and the fix.
"""

from typing import ClassVar


class EvergreenError(Exception):
    exit_code: ClassVar[int] = 1


class Permanent(EvergreenError):
    exit_code = 65


class Temporary(EvergreenError):
    exit_code = 75


class Unforeseen(EvergreenError):
    exit_code = 70


class ManifestInvalid(Permanent):
    pass


class DataRefused(Permanent):
    """`page` is the day's page in the site of Data Docs, where one was drawn."""

    def __init__(self, message: str, page: str | None = None) -> None:
        super().__init__(message)
        self.page = page


class AccessRefused(Permanent):
    pass


class NotEnoughData(Permanent):
    pass


class ArtifactRejected(Permanent):
    pass


class NotBlessed(Permanent):
    pass


class KeyInvalid(Permanent):
    pass


class RecordDamaged(Permanent):
    pass


class RequestInvalid(Permanent):
    pass


class ServiceUnavailable(Temporary):
    pass


class StorageUnavailable(Temporary):
    pass


class Conflict(Temporary):
    pass

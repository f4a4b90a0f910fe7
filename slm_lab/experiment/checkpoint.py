"""Checkpoints: everything that changes during a session, on disk, in a form that a crash at any moment cannot spoil.

A checkpoint is a folder. Its tensors lie in one safetensors file per component, the rest in `state.json`;
`manifest.json` names every file with its size and SHA-256. The folder is written under another name, flushed to disk
file by file, and renamed at the end: either all of it is there or nothing is. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slm_lab.lib.files import sync_folder

MANIFEST = "manifest.json"
STATE = "state.json"
TENSOR, ARRAY = "$tensor", "$array"
State = Mapping[str, Any]
"""Component -> nested dicts and lists of tensors, arrays and JSON values."""


class Checkpoints:
    """The checkpoints of one kind of one session, newest first to be read, the oldest deleted.

    Args:
        folder: where they lie.
        stem: their common name; each is `{stem}-{frame}`.
        keep: how many to keep.
    """

    def __init__(self, folder: Path, stem: str, keep: int) -> None:
        self.folder, self.stem, self.keep = folder, stem, keep

    def save(self, frame: int, state: State) -> Path:
        """Write `state` as the checkpoint of `frame`; then delete all but the newest `keep` up to that frame.

        What bears a later frame belongs to a course that a resume has left, and goes too.
        """
        final = self.folder / f"{self.stem}-{frame}"
        aside = self.folder / f".{final.name}.tmp"
        for left in self.folder.glob(f".{self.stem}-*.tmp"):  # by a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir(parents=True)
        _write_folder(aside, frame, state)
        if final.exists():  # the same frame again, after a resume
            shutil.rmtree(final)
        aside.rename(final)
        sync_folder(self.folder)
        there = self._newest_first()
        here = there.index(final)
        for path in [*there[:here], *there[here + self.keep :]]:
            shutil.rmtree(path, ignore_errors=True)
        return final

    def load(self, components: set[str] | None = None) -> tuple[int, dict[str, Any]] | None:
        """Read the newest valid checkpoint; a damaged one is named in a warning and passed over.

        Args:
            components: the components to read; all of them if None.

        Returns:
            (frame, state), or None where there is no valid checkpoint.
        """
        for path in self._newest_first():
            try:
                return _read_folder(path, components)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                logger.warning("checkpoint {} is damaged ({}); passed over", path, error)
        return None

    def exist(self) -> bool:
        """Tell whether there is any, valid or damaged."""
        return bool(self._newest_first())

    def _newest_first(self) -> list[Path]:
        found = [path for path in self.folder.glob(f"{self.stem}-*") if path.name[len(self.stem) + 1 :].isdigit()]
        return sorted(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)


def _write_folder(folder: Path, frame: int, state: State) -> None:
    plain = {}
    for component, tree in state.items():
        tensors: dict[str, torch.Tensor] = {}
        plain[component] = _take_tensors(tree, component, tensors)
        if tensors:
            save_file(tensors, folder / f"{component}.safetensors")
    (folder / STATE).write_text(json.dumps(plain))
    files = sorted(folder.iterdir())
    manifest = {"frame": frame, "files": {path.name: _fingerprint(path) for path in files}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))
    for path in [*files, folder / MANIFEST]:
        _fsync(path)
    sync_folder(folder)


def _read_folder(folder: Path, components: set[str] | None) -> tuple[int, dict[str, Any]]:
    manifest = json.loads((folder / MANIFEST).read_text())
    plain = json.loads((folder / STATE).read_text())
    wanted = plain.keys() if components is None else components & plain.keys()
    tensors: dict[str, torch.Tensor] = {}
    for name, fingerprint in manifest["files"].items():
        path = folder / name
        if name != STATE and path.stem not in wanted:
            continue
        if _fingerprint(path) != fingerprint:
            raise ValueError(f"{name} is not what the manifest says")
        if name != STATE:
            tensors |= load_file(path)
    return manifest["frame"], {component: _put_tensors(plain[component], tensors) for component in wanted}


def _take_tensors(tree: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `tree` with every tensor replaced by a reference, the tensors collected in `tensors`."""
    if isinstance(tree, torch.Tensor):
        tensors[path] = tree.detach().cpu().contiguous()
        return {TENSOR: path}
    if isinstance(tree, np.ndarray):
        tensors[path] = torch.from_numpy(np.asarray(tree, order="C"))
        return {ARRAY: path}
    if isinstance(tree, Mapping):
        return {key: _take_tensors(value, f"{path}/{key}", tensors) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_take_tensors(value, f"{path}/{index}", tensors) for index, value in enumerate(tree)]
    return tree.item() if isinstance(tree, np.generic) else tree


def _put_tensors(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(tree, dict):
        if tree.keys() == {TENSOR}:
            return tensors[tree[TENSOR]]
        if tree.keys() == {ARRAY}:
            return tensors[tree[ARRAY]].numpy()
        return {key: _put_tensors(value, tensors) for key, value in tree.items()}
    return [_put_tensors(value, tensors) for value in tree] if isinstance(tree, list) else tree


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _fsync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())

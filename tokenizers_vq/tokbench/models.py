"""Who reads the words and who compares the faces: offline models from wheels, or your own.

A reader is anything with ``name`` and ``read(crops) -> words``; an embedder anything with ``name``
and ``embed(picture, points, order) -> vector``. TokBench's own are docTR's PARSeq and insightface's
antelopev2; scores of other models have other names and are not comparable with its table. Models
may name their ``packages`` and the start of their weights' ``sha256``; results then say them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tokenizers_vq.errors import CheckpointError, MissingExtraError
from tokenizers_vq.tokbench.alignment import chip

BATCH = 16  # crops at once
READER_SHA256 = "48fc40f24f6d2a20"
EMBEDDER_SHA256 = "55533b28a95800a5"


class Reader(Protocol):
    """Reads words."""

    name: str

    def read(self, crops: Sequence[np.ndarray]) -> list[str]:
        """Return what each RGB crop ``(h, w, 3)`` uint8 says; empty for nothing."""


class Embedder(Protocol):
    """Describes faces by vectors whose cosine says whether they are one person's."""

    name: str

    def embed(
        self, picture: np.ndarray, points: Sequence[tuple[float, float]], order: str
    ) -> np.ndarray:
        """Return the vector of the face at five points of an RGB picture ``(H, W, 3)`` uint8."""


class PPOCR:
    """The recogniser PP-OCRv4 from the wheel ``rapidocr-onnxruntime``.

    Raises:
        MissingExtraError: the wheel is not installed.
        CheckpointError: it carries another model.
    """

    name = "PPOCRv4"
    packages, sha256 = ("rapidocr-onnxruntime", "onnxruntime"), READER_SHA256

    def __init__(self) -> None:
        folder = _folder("rapidocr_onnxruntime", "rapidocr-onnxruntime", "ocr")
        _verified(next((folder / "models").glob("*rec*.onnx")), READER_SHA256)
        from rapidocr_onnxruntime import RapidOCR

        self._recognise: Any = RapidOCR().text_rec

    def read(self, crops: Sequence[np.ndarray]) -> list[str]:
        """Return what each RGB crop says."""
        found: list[str] = []
        for start in range(0, len(crops), BATCH):
            reversed_ = [np.ascontiguousarray(c[..., ::-1]) for c in crops[start : start + BATCH]]
            lines, _ = self._recognise(reversed_)
            found += [str(line[0]) for line in lines]
        return found


class Dlib:
    """The face network of dlib from the wheel ``face_recognition_models``, centred.

    Plain cosines of its vectors are useless (0.83 for different people), so the mean vector of a
    fixed set of faces is taken off first: different people come to about 0, the same to 0.8.

    Raises:
        MissingExtraError: a wheel is not installed.
        CheckpointError: it carries another model.
    """

    name = "dlib"
    packages, sha256 = ("dlib-bin", "face_recognition_models"), EMBEDDER_SHA256

    def __init__(self) -> None:
        folder = _folder("face_recognition_models", "face_recognition_models", "face")
        path = folder / "models" / "dlib_face_recognition_resnet_model_v1.dat"
        _verified(path, EMBEDDER_SHA256)
        try:
            import dlib
        except ImportError as error:
            raise MissingExtraError(
                "package dlib not found; pip install 'tokenizers-vq[face]'"
            ) from error
        self._network: Any = dlib.face_recognition_model_v1(str(path))
        text = (files("tokenizers_vq.tokbench") / "dlib_mean.json").read_text()
        self._mean = np.array(json.loads(text)["mean"])

    def embed(
        self, picture: np.ndarray, points: Sequence[tuple[float, float]], order: str
    ) -> np.ndarray:
        """Return the centred vector of a face."""
        face = np.ascontiguousarray(chip(picture, points, order))
        vector = np.asarray(self._network.compute_face_descriptor(face)) - self._mean
        return np.asarray(vector, np.float64)


def _folder(module: str, package: str, extra: str) -> Path:
    """Return where a package lies, without importing it."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"package {package} not found; pip install 'tokenizers-vq[{extra}]'"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _verified(path: Path, sha256: str) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(sha256):
        raise CheckpointError(
            f"tokbench: expected a model whose sha256 starts with {sha256}; got {digest[:16]} in "
            f"'{path}'. Install the version named in pyproject.toml."
        )

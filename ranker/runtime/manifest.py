"""The manifest in ``model.onnx``: everything that a scorer needs, bound to the file by hashes."""

from __future__ import annotations

import hashlib
import json
from math import inf, isfinite
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ranker.errors import ModelFileError, one_line
from ranker.layouts import AnyLayout
from ranker.layouts.conversation import Conversation
from ranker.runtime import modelfile, weights_file
from ranker.runtime.weights_file import WeightsFile
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import Calibration
from ranker.text.tokenizer import TextTokenizer

ModelType = Literal["pointwise", "set_encoder", "shared_prompt", "ordered_pair", "armorm", "steamshp", "judge"]
"""As ``ranker.config`` names them; that package is for training and is not imported to score."""

LARGEST: Final = 10_000_000
"""Largest id or length that a manifest may hold."""

FORMAT_VERSION: Final = 5
READABLE: Final = (3, 4, 5)
"""Versions that are read; decoders of version 3, whose conversations were rendered otherwise, are refused by name."""
MANIFEST_KEY: Final = "ranker.manifest"
TOKENIZER_KEY: Final = "ranker.tokenizer.json"
DIGEST_KEY: Final = "ranker.manifest.sha256"


class Manifest(BaseModel):
    """Facts about the graph. Hashes are SHA-256 in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    type: ModelType = Field(description="as model.type of a training run names it")
    text: AnyLayout
    labels: tuple[str, ...]
    output: str = (
        "raw fp32 logits, higher is better; after a pairwise loss a difference of two is the log-odds of preference"
    )
    precision: Literal["fp32", "fp16", "int8", "int8-static"]
    backbone: str
    source: str
    source_sha256: str
    graph_sha256: str
    tokenizer_sha256: str
    weights: WeightsFile | None = Field(None, description="beside the file, where they do not fit in it")
    parity: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _is_within_bounds(self) -> Self:
        """Ids, lengths and the temperature are such as a model has."""
        for name, value in self.text:
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, int) and abs(number) > LARGEST for number in numbers):
                raise ValueError(f"text.{name} has a number beyond {LARGEST}")
        known = self.calibration
        if not (0 < known.temperature < inf and 0 < known.std < inf and isfinite(known.mean)):
            raise ValueError("calibration: expected a temperature and a standard deviation above 0")
        return self

    @property
    def weights_only(self) -> bool:
        """Whether only the weights are in 8 bits, and are multiplied in fp32."""
        quantization = self.parity.get("quantization")
        return isinstance(quantization, dict) and bool(quantization.get("weights_only"))


def metadata(manifest: Manifest, tokenizer: str) -> dict[str, str]:
    """The metadata entries that carry a manifest and a tokenizer."""
    text = manifest.model_dump_json()
    return {MANIFEST_KEY: text, DIGEST_KEY: sha256(text), TOKENIZER_KEY: tokenizer}


def read(path: Path, *, whole: bool = False) -> tuple[Manifest, TextTokenizer]:
    """Read and verify a model file: version, graph, tokenizer and manifest against their hashes.

    Args:
        path: the file.
        whole: whether weights beside the file are hashed too; their size and header are always compared.

    Raises:
        ModelFileError: the file is foreign, damaged, changed, or written by a newer version; the message says which.
    """
    manifest, tokenizer = _read(path)
    if manifest.weights is not None:
        weights_file.check(path, manifest.weights, whole=whole)
    elif modelfile.has_external_data(path):
        raise ModelFileError(f"{path}: takes weights from a file that its manifest does not name; export it again")
    try:
        return manifest, TextTokenizer(tokenizer, manifest.text.marker_ids)
    except Exception as error:  # the tokenizer's library raises no class of its own
        raise ModelFileError(f"{path}: the tokenizer cannot be read ({one_line(error)}); export it again") from error


def weights_of(path: Path) -> WeightsFile | None:
    """What lies beside a model file, which need not be there yet.

    Raises:
        ModelFileError: as in ``read``, of the model file itself.
    """
    return _read(path)[0].weights


def _read(path: Path) -> tuple[Manifest, str]:
    """A model file's manifest and tokenizer, whose hashes are those of the file."""
    entries, graph_sha256 = modelfile.read(path)
    text, tokenizer = entries.get(MANIFEST_KEY), entries.get(TOKENIZER_KEY)
    if text is None or tokenizer is None:
        raise ModelFileError(
            f"{path}: an ONNX model without a ranker manifest; export one with: ranker export CHECKPOINT -o model.onnx"
        )
    if sha256(text) != entries.get(DIGEST_KEY):
        raise _changed(path, "manifest")
    version = _version(path, text)
    if version not in READABLE:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        repair = "upgrade ranker-toolkit" if newer else "export the checkpoint again: ranker export"
        raise ModelFileError(f"{path}: manifest format {version}, this version reads {FORMAT_VERSION}; {repair}")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"{field}: {first['msg']}" if field else first["msg"]
        raise ModelFileError(f"{path}: manifest field {reason:.200}; export the model again") from error
    if manifest.tokenizer_sha256 != sha256(tokenizer):
        raise _changed(path, "tokenizer")
    if manifest.graph_sha256 != graph_sha256:
        raise _changed(path, "graph or weights")
    return manifest, tokenizer


def _version(path: Path, text: str) -> Any:
    """The format's version that a manifest says.

    Raises:
        ModelFileError: no manifest.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: its manifest is not valid JSON ({one_line(error)}); export it again") from error
    if not isinstance(values, dict):
        raise ModelFileError(f"{path}: its manifest is a {type(values).__name__}, expected an object; export it again")
    return values.get("format_version")


def described(path: Path) -> list[tuple[str, str]]:
    """What a model file is, as (name, text) rows for ``ranker inspect``.

    Raises:
        ModelFileError: as in ``read``.
    """
    manifest, tokenizer = read(path)
    layout = manifest.text
    date = layout.chat.now if isinstance(layout, Conversation) else None
    rows = [
        ("type", f"{manifest.type} on {manifest.backbone}"),
        ("labels", ", ".join(manifest.labels)),
        ("precision", manifest.precision),
        ("max_length", f"{layout.max_length} tokens"),
        ("layout", layout.layout),
        ("reads", repr(TextPipeline(layout, tokenizer).example())),
        ("source", f"{manifest.source} ({manifest.source_sha256[:12]})"),
        ("graph", manifest.graph_sha256[:12]),
    ]
    if manifest.weights is not None:
        rows.append(("weights", f"{manifest.weights.name} ({manifest.weights.size / 1e9:.2f} GB)"))
    return [*rows, *([] if date is None else [("date", f"{date:%Y-%m-%d} (the chat template writes it)")])]


def calibrate(path: Path, calibration: Calibration) -> None:
    """Write a calibration into a model file; its graph and tokenizer do not change.

    Raises:
        ModelFileError: as in ``read``.
    """
    manifest, tokenizer = read(path)
    changed = manifest.model_copy(update={"calibration": calibration})
    modelfile.write(path, path, metadata(changed, tokenizer.text))


def sha256(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(path: Path, part: str) -> ModelFileError:
    return ModelFileError(f"{path}: the {part} differs from its recorded SHA-256; copy the file again from its source")

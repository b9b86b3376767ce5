"""Reading a model file: a path, bytes or a `ModelProto` in, a checked `Source` out.

Everything that is wrong before the first node is looked at is found here: a file that is
missing, empty, cut off or of another kind, a model without a graph, an opset that is too old or
too new, and external data that is missing or lies outside the model's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from nncc.diagnostics import FrontendError, Location

OLDEST_OPSET = 7

ModelSource = str | Path | bytes | onnx.ModelProto

# First bytes of files that people take for ONNX models.
_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?): export it with torch.onnx.export"),
    (b"\x89HDF", "an HDF5 file (a Keras model?): convert it with tf2onnx"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x80\x02", "a Python pickle (a PyTorch checkpoint?): export it with torch.onnx.export"),
    (b"nncc ", "text of the nncc language: its file name should end in .nn"),
    (b"version https://git-lfs", "a git-lfs pointer: fetch the file with `git lfs pull`"),
)


@dataclass(frozen=True)
class Source:
    """A model and where it comes from; `folder` None: there is no place for external data."""

    model: onnx.ModelProto
    file: str
    folder: Path | None

    def error(self, message: str, node: str = "", help: str = "") -> FrontendError:
        """An error that names this file and, if given, a node in it."""
        return FrontendError(message, Location(self.file, node=node), help)


def read(source: ModelSource) -> Source:
    """The model, its file and its folder. Raises FrontendError."""
    if isinstance(source, onnx.ModelProto):
        return _checked(Source(source, "<model>", None))
    if isinstance(source, bytes):
        return _checked(Source(_parse(source, "<bytes>"), "<bytes>", None))
    path = Path(source)
    where = Location(str(path))
    if path.is_dir():
        raise FrontendError("is a folder, not an ONNX model", where)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise FrontendError(f"cannot be read: {e.strerror}", where) from e
    return _checked(Source(_parse(data, str(path)), str(path), path.resolve().parent))


def external_file(source: Source, entry: onnx.TensorProto) -> tuple[Path, int, int | None]:
    """File, offset and length of a tensor's external data.

    The file must exist and lie inside the model's folder, links followed: a model from
    elsewhere must not read what it does not own. Raises FrontendError.
    """
    fields = {e.key: e.value for e in entry.external_data}
    place = fields.get("location", "")
    what = f"external data of tensor '{entry.name}'"
    if source.folder is None:
        raise source.error(f"{what}: a model that is not a file has none; give its path")
    if not place or "\0" in place or Path(place).is_absolute() or ".." in Path(place).parts:
        raise source.error(f"{what}: '{place}' is not a path inside the model's folder")
    path = (source.folder / place).resolve()
    if not path.is_relative_to(source.folder):
        raise source.error(f"{what}: '{place}' leads out of the model's folder, to {path}")
    if not path.is_file():
        raise source.error(f"{what}: there is no file '{place}' beside the model")
    try:
        offset = int(fields.get("offset") or 0)
        length = int(fields["length"]) if fields.get("length") else None
    except ValueError as e:
        raise source.error(f"{what}: offset or length is not a number") from e
    size = path.stat().st_size
    if offset < 0 or (length or 0) < 0 or offset + (length or 0) > size:
        raise source.error(
            f"{what}: bytes {offset}..{offset + (length or 0)} are not in '{place}', "
            f"which has {size} bytes",
            help="is the file complete?",
        )
    return path, offset, length


def opset_of(model: onnx.ModelProto) -> int:
    """The model's version of the ONNX operator set; 0 if it does not say."""
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def _parse(data: bytes, file: str) -> onnx.ModelProto:
    for magic, kind in _OTHER_KINDS:
        if data.startswith(magic):
            raise FrontendError(f"is not an ONNX model but {kind}", Location(file))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as e:
        raise FrontendError(
            f"is not an ONNX model, or it is cut off ({len(data)} bytes)", Location(file)
        ) from e
    return model


def _checked(source: Source) -> Source:
    model = source.model
    if not model.HasField("graph") or not model.ir_version:
        raise source.error("is not an ONNX model: it has no graph")
    broken = next((t for t in _texts(model) if not isinstance(t, str)), None)
    if broken is not None:
        raise source.error(f"is damaged: the name {broken!r} in it is not UTF-8 text")
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not opset:
        if model.opset_import and all(n.domain not in ("", "ai.onnx") for n in model.graph.node):
            return source  # every op is of another domain
        raise source.error("does not say which version of the ONNX operator set it uses")
    if opset < OLDEST_OPSET:
        raise source.error(
            f"uses opset {opset}; nncc reads {OLDEST_OPSET} to {newest}",
            help="raise it with onnx.version_converter.convert_version",
        )
    if opset > newest:
        raise source.error(
            f"uses opset {opset}; nncc reads {OLDEST_OPSET} to {newest}",
            help="export it with an older opset, or update the package onnx",
        )
    return source


def _texts(message: Message) -> Iterator[object]:
    """Every string field of a message and of those in it; one that is not UTF-8 reads as bytes."""
    if isinstance(message, onnx.TensorProto):  # without its data, which reading would copy
        yield message.name
        for entry in message.external_data:
            yield from _texts(entry)
        return
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in (value,) if isinstance(value, (str, bytes, Message)) else value:
            if field.type == field.TYPE_STRING:
                yield item
            else:
                yield from _texts(item)

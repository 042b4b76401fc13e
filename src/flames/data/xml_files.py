"""XML from outside, read so that a file can neither pull in others nor grow in memory."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from flames.data.pictures import reading
from flames.errors import FlamesError

MOST_BYTES = 32 << 20
MOST_ELEMENTS = 2_000_000
MOST_DEEP = 50


def read_xml(path: Path) -> Element:
    """Return the root of an XML file; names of elements are without their namespaces.

    Raises:
        FlamesError: The file is damaged or far too large, or declares a document type (DTD), in
            which entities would be defined.
    """
    with reading(path):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise _too_large(path, f"{size / 1e6:.0f} MB")
        return _parsed(path, path.read_bytes())


def _parsed(path: Path, content: bytes) -> Element:
    builder = TreeBuilder()
    elements = depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal elements, depth
        elements, depth = elements + 1, depth + 1
        if elements > MOST_ELEMENTS:
            raise _too_large(path, f"more than {MOST_ELEMENTS} elements")
        if depth > MOST_DEEP:
            raise _too_large(path, f"elements within each other more than {MOST_DEEP} deep")
        builder.start(_local(name), attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(name))

    def doctype(*_: object) -> None:
        raise FlamesError(
            f"{path} declares a document type (DTD): entities could be defined there, so it is not "
            "read",
            "get the file again from where it came from: annotations need no DTD",
        )

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.Parse(content, True)
    return builder.close()


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _too_large(path: Path, what: str) -> FlamesError:
    return FlamesError(
        f"{path} holds {what}: far too large for annotations",
        "copy the file again from where it came from, or take it away",
    )

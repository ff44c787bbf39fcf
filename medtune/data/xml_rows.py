"""Rows of XML: MedQuAD's questions and answers, and the text of OpenStax modules (CNXML). No other XML is guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element

from medtune.data.records import Row
from medtune.errors import DataError
from medtune.limits import XML_BYTES

CNXML = "http://cnx.rice.edu/cnxml"
LEFT_OUT = {"metadata", "media", "iframe", "colspec"}  # of a module: what is no text
BLOCKS = {
    "title",
    "para",
    "item",
    "row",
    "caption",
    "list",
    "section",
    "table",
    "note",
    "figure",
    "exercise",
    "problem",
}
BLOCKS |= {
    "solution",
    "definition",
    "glossary",
    "content",
    "equation",
    "meaning",
    "newline",
    "quote",
    "example",
    "rule",
}


def read_xml(file: BinaryIO, name: str) -> Iterator[Row | DataError]:
    """Yield the rows of a MedQuAD document, or the one row of a CNXML module, `{"text": ...}`.

    A pair of MedQuAD is `{"question", "answer", "qtype", "focus", "source"}`, its origin "0000001.xml[0]". Pairs whose
    answer the publisher took out stay, with an empty answer, so that whoever drops them counts them.

    Raises:
        DataError: not XML, a DTD (entities may unpack without end), or a root element that is neither.
    """
    root = _parse(file, name)
    kind = _local(root)
    if any(_local(element) in ("QAPairs", "qaPairs") for element in root):
        yield from _medquad(root, name)
    elif kind == "document" and CNXML in root.tag:
        try:
            text = _text_of(root)
        except RecursionError:
            raise DataError(f"{name}: its elements are nested too deep to be read.") from None
        yield Row({"text": text}, name)
    else:
        shown = kind if re.fullmatch(r"[\w.-]{1,40}", kind) else "..."
        raise DataError(
            f"{name}: XML of another kind, with the root <{shown}>; known are MedQuAD (<QAPairs>) and CNXML "
            "(<document>). Turn it into csv or jsonl."
        )


def _parse(file: BinaryIO, name: str) -> Element:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    file.seek(0)
    data = file.read(XML_BYTES + 1)
    if len(data) > XML_BYTES:
        raise DataError(f"{name}: an XML document over {XML_BYTES >> 20} MB; cut it into several files.")
    try:
        return fromstring(data, forbid_dtd=True)
    except ParseError as fault:
        line, column = fault.position
        raise DataError(f"{name}:{line}:{column + 1}: broken XML. Fix that place of the file.") from None
    except DefusedXmlException:
        raise DataError(
            f"{name}: XML with a DTD, whose entities may unpack without end. Take <!DOCTYPE ...> out."
        ) from None
    except (ValueError, LookupError, RecursionError) as fault:  # an encoding that its first line names, or depth
        raise DataError(f"{name}: not readable XML ({type(fault).__name__}).") from None


def _local(element: Any) -> str:
    """Name of an element without its namespace; "" of a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _medquad(root: Element, name: str) -> Iterator[Row]:
    """Both spellings: <Document><QAPairs><QAPair>, and <doc><qaPairs><pair>."""
    focus = next((element.text for element in root if _local(element) in ("Focus", "doctitle-focus")), None) or ""
    source = root.get("source") or root.get("corpus") or ""
    pairs = [element for element in root.iter() if _local(element) in ("QAPair", "pair")]
    for index, pair in enumerate(pairs):
        parts = {_local(element).lower(): element for element in pair}
        question, answer = parts.get("question"), parts.get("answer")
        fields = {
            "question": "".join(question.itertext()).strip() if question is not None else "",
            "answer": "".join(answer.itertext()).strip() if answer is not None else "",
            "qtype": (question.get("qtype") or "") if question is not None else "",
            "focus": focus.strip(),
            "source": source,
        }
        yield Row(fields, f"{name}[{index}]")


def _text_of(root: Element) -> str:
    """Text of a module: a paragraph a line, an empty line between blocks, " | " between the cells of a table."""
    lines = (" ".join(line.split()) for line in "".join(_pieces(root)).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.removesuffix(" |") for line in lines)).strip()


def _pieces(element: Element) -> Iterator[str]:
    kind = _local(element)
    if kind and kind not in LEFT_OUT:
        block = kind in BLOCKS
        yield "\n\n" if block and kind not in ("item", "row", "newline") else "\n" if block else ""
        yield "- " if kind == "item" else ""
        yield _flat(element.text)
        for child in element:
            yield from _pieces(child)
            yield _flat(child.tail)
        yield "\n" if block else " | " if kind == "entry" else ""


def _flat(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")

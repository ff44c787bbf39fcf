"""Plain text by line, paragraph or file; XML of MedQuAD and CNXML; other XML is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.data import texts, xml_rows
from medtune.data.readers import read_data
from medtune.data.records import Row
from medtune.errors import DataError

TEXT = "\nFirst line\nof one.\n \n\nSecond\n"
MEDQUAD = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="1" source="GHR"><Focus>Fever</Focus><QAPairs>
<QAPair pid="1"><Question qid="1-1" qtype="information">What is &lt;fever&gt; ?</Question>
<Answer>Heat &amp; more.</Answer></QAPair>
<QAPair pid="2"><Question qid="1-2" qtype="treatment">How ?</Question><Answer></Answer></QAPair>
</QAPairs></Document>"""
CNXML = """<document xmlns="http://cnx.rice.edu/cnxml" xmlns:m="http://www.w3.org/1998/Math/MathML">
<title>Doses</title><metadata xmlns:md="x"><md:title>hidden</md:title></metadata><content>
<section><title>Units</title><para>One <term>milligram</term> is
 <m:math><m:mn>0.001</m:mn><m:mi>g</m:mi></m:math>.</para>
<list><item>first</item><item>second</item></list>
<table><tgroup><colspec/><tbody><row><entry>a</entry><entry>b</entry></row><row><entry>c</entry><entry>d</entry></row></tbody>
</tgroup></table></section></content></document>"""


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("suffix", [".txt", ".md"])
@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("line", [("First line", 2), ("of one.", 3), ("Second", 6)]),
        ("paragraph", [("First line\nof one.", 2), ("Second", 6)]),
        ("file", [("First line\nof one.\n \n\nSecond", 2)]),
    ],
)
def test_documents_are_lines_paragraphs_or_files(tmp_path, suffix, documents, expected):
    path = write(tmp_path / f"a{suffix}", TEXT)
    rows = read_data(path, documents=documents)
    assert list(rows) == [Row({"text": text}, f"a{suffix}:{line}") for text, line in expected]


def test_an_unknown_kind_of_document_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"documents='paragraf'; known are line, paragraph, file\. Did you mean 'paragraph'"
    ):
        read_data(write(tmp_path / "a.txt", TEXT), documents="paragraf")


def test_a_document_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "ROW_BYTES", 50)
    path = write(tmp_path / "a.txt", "short\n\n" + "some words\n" * 9)
    assert len(list(read_data(path))) == 10
    with pytest.raises(DataError, match=r"a\.txt:3: longer than"):
        list(read_data(path, documents="paragraph"))


def test_pairs_of_medquad_are_rows(tmp_path):
    first, second = read_data(write(tmp_path / "1.xml", MEDQUAD))
    assert first == Row(
        {
            "question": "What is <fever> ?",
            "answer": "Heat & more.",
            "qtype": "information",
            "focus": "Fever",
            "source": "GHR",
        },
        "1.xml[0]",
    )
    assert (second.fields["answer"], second.origin) == ("", "1.xml[1]")
    other = MEDQUAD.replace("QAPairs", "qaPairs").replace("QAPair ", "pair ").replace("QAPair>", "pair>")
    other = other.replace("Question", "question").replace("Answer", "answer").replace("Document", "doc")
    assert [row.fields["answer"] for row in read_data(write(tmp_path / "2.xml", other))] == ["Heat & more.", ""]


def test_a_module_of_cnxml_is_one_document(tmp_path):
    text = "Doses\n\nUnits\n\nOne milligram is 0.001g.\n\n- first\n\n- second\n\na | b\n\nc | d"
    assert list(read_data(write(tmp_path / "index.cnxml", CNXML))) == [Row({"text": text}, "index.cnxml")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<?xml version="1.0"?><rss><item>secret</item></rss>', r"a\.xml: XML of another kind, with the root <rss>"),
        ('<?xml version="1.0"?>\n<Document><QAPairs>secret</Document>', r"a\.xml:2:\d+: broken XML"),
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "secret">]><a>&x;</a>', "XML with a DTD"),
        ('<?xml version="1.0"?><!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "XML with a DTD"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', r"broken XML|not readable XML"),
        ("<Document>" * 200_000, r"broken XML|not readable XML"),
    ],
)
def test_other_xml_is_refused_in_a_line_that_quotes_nothing(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as fault:
        list(read_data(write(tmp_path / "a.xml", text)))
    assert "secret" not in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_document_of_xml_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(xml_rows, "XML_BYTES", 100)
    with pytest.raises(DataError, match="an XML document over"):
        list(read_data(write(tmp_path / "a.xml", MEDQUAD)))

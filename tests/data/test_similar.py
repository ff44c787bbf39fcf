"""Duplicates and overlaps: found where they are, exactly or nearly, in English and in Chinese, the same every time."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.cli import main
from medtune.data.overlap import COMMON, RUN, find_overlap
from medtune.data.records import Row
from medtune.data.similar import find_twins, num_bands, shingles
from medtune.data.words import Text, digest, language, leaves, texts, words
from medtune.errors import UsageError

ENGLISH = (
    "Take one tablet by mouth every morning with a full glass of water, and do not lie down for thirty minutes "
    "afterwards. If you miss a dose, skip it and take the next one at the usual time; never take two at once."
)
CHINESE = (
    "布洛芬缓释胶囊用于缓解轻至中度疼痛，如头痛、关节痛、偏头痛、牙痛、肌肉痛、神经痛、痛经，也用于普通感冒引起的发热。"
)
OTHER = "Store the vials in a refrigerator, between two and eight degrees, and protect them from light until use."


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def twins(rows: list[str], threshold: float | None = 0.8, seed: int = 0) -> list[tuple[int, int, str]]:
    """(row, the earlier row, kind) of each row that is left out."""
    found = find_twins(((str(i), text) for i, text in enumerate(rows)), threshold, seed)
    return [(int(twin.origin), int(twin.like), twin.kind) for twin in found if twin]


def jaccard(first: str, second: str) -> float:
    one, other = set(shingles(first)), set(shingles(second))
    return len(one & other) / len(one | other)


def test_case_width_spaces_and_punctuation_make_no_other_row():
    english = ENGLISH.upper().replace(",", "").replace("TABLET", "ＴＡＢＬＥＴ")
    assert twins([ENGLISH, CHINESE, english, CHINESE.replace("，", " , ")]) == [(2, 0, "exact"), (3, 1, "exact")]


def test_texts_without_words_are_told_apart():
    assert twins(["?!", "...", "?!"]) == [(2, 0, "exact")]


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_a_small_change_is_a_near_duplicate_and_a_large_one_is_not(text):
    near = text[:-3] + "高烧。" if text is CHINESE else text.replace("usual", "same")
    assert jaccard(text, near) > 0.8
    assert twins([text, OTHER, near]) == [(2, 0, "near")]
    assert twins([text, OTHER, near], threshold=None) == []
    assert twins([text, text[: len(text) // 2] + OTHER]) == []


def test_the_similarity_that_is_told_is_near_the_true_one():
    near = ENGLISH.replace("usual", "same")
    twin = list(find_twins([("a", ENGLISH), ("b", near)], 0.5))[1]
    assert twin is not None
    assert abs(twin.similarity - jaccard(ENGLISH, near)) < 0.12


def test_a_chain_of_small_changes_is_not_one_duplicate():
    tokens = [f"word{i}" for i in range(60)]
    rows = [" ".join([*tokens[i * 4 :], *(f"new{j}" for j in range(i * 4))]) for i in range(8)]
    assert all(jaccard(a, b) > 0.75 for a, b in itertools.pairwise(rows))
    left_out = twins(rows, 0.75)
    kept = [i for i in range(len(rows)) if i not in {row for row, _, _ in left_out}]
    assert 1 < len(kept) < len(rows)
    assert all(like in kept for _, like, _ in left_out)


def test_nearly_all_pairs_above_the_threshold_are_found():
    rng = random.Random(0)
    rows = []
    for i in range(200):
        tokens = [f"w{rng.randrange(5000)}" for _ in range(100)]
        changed = list(tokens)
        changed[rng.randrange(100)] = f"changed{i}"
        rows += [" ".join(tokens), " ".join(changed)]
    assert all(jaccard(rows[i], rows[i + 1]) > 0.9 for i in range(0, 400, 2))
    assert [(row, like) for row, like, _ in twins(rows)] == [(i + 1, i) for i in range(0, 400, 2)]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_a_pair_at_the_threshold(threshold):
    bands = num_bands(threshold)
    assert 1 - (1 - threshold ** (128 // bands)) ** bands >= 0.99
    assert bands == 1 or 1 - (1 - threshold ** (256 // bands)) ** (bands // 2) < 0.99


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        find_twins([], threshold)


def test_the_same_seed_gives_the_same_answer_and_another_one_another_estimate():
    rows = [("a", ENGLISH), ("b", ENGLISH.replace("usual", "same"))]
    estimates = [list(find_twins(rows, 0.5, seed))[1].similarity for seed in (0, 0, 1, 2)]
    assert estimates[0] == estimates[1]
    assert len(set(estimates)) > 1


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_has_words_a_digest_and_a_language(text):
    assert all(word == word.strip() and word for word in words(text))
    assert len(digest(text)) == 16
    assert language(text) in {"zh", "ja", "ko", "ru", "ar", "en", "latin", "other", "none"}
    assert shingles(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("阿司匹林（aspirin, acetylsalicylic acid）每日一次", "zh"),
        ("What is 布洛芬?", "en"),
        ("Die Tablette ist nicht mit Milch und Kaffee zu nehmen.", "latin"),
        ("Où est l'hôpital le plus près? À côté de l'église.", "latin"),
        ("Сколько раз в день?", "ru"),
        ("열이 있어요", "ko"),
        ("薬は一日三回飲んでください", "ja"),
        ("كم مرة في اليوم", "ar"),
        ("120/80; 36.6", "none"),
    ],
)
def test_the_language_is_told_by_script_and_small_words(text, wanted):
    assert language(text) == wanted


def test_leaves_name_the_path_of_every_text():
    fields = {"history": [["Hi", None]], "answer": {"text": "Yes"}, "n": 3}
    assert list(leaves(fields)) == [("history[0][0]", "Hi"), ("history[0][1]", ""), ("answer.text", "Yes")]


def test_texts_are_those_of_the_messages_or_of_all_fields():
    rows = [
        Row({"question": "Why?", "answer": "So.", "url": "x"}, "a:1"),
        Row({"note": "n", "url": "y"}, "a:2"),
    ]
    assert [(t.question, t.whole) for t in texts(rows)] == [("Why?", "Why?\nSo."), ("n\ny", "n\ny")]


# ---------------------------------------------------------------- overlap


def text(origin: str, whole: str, question: str | None = None) -> Text:
    return Text(Row({}, origin), whole if question is None else question, whole)


def shared(train: list[Text], test: list[Text]) -> list[tuple[str, str, str]]:
    (told,) = find_overlap(train, [test])
    assert told.num_rows == len(test)
    return [(row.origin, row.like, row.kind) for row in told.shared]


@pytest.mark.parametrize(("source", "joint"), [(words(ENGLISH), " "), (words(CHINESE), "")], ids=["en", "zh"])
def test_a_run_of_13_words_is_found_and_one_of_12_is_not(source, joint):
    def inside(number: int) -> str:
        return f"zz {joint.join(source[5 : 5 + number])} yy"

    train = [text("train:1", "unrelated words only"), text("train:2", joint.join(source))]
    assert shared(train, [text("test:1", inside(RUN))]) == [("test:1", "train:2", "run")]
    assert shared(train, [text("test:1", inside(RUN - 1))]) == []


def test_the_same_question_is_exact_whatever_the_answer():
    train = [text("train:1", "What is a fever? One thing.", "What is a fever?")]
    test = [text("test:1", "what is a FEVER\nAnother.", "what is a FEVER"), text("test:2", "Who?", "Who?")]
    assert shared(train, test) == [("test:1", "train:1", "exact")]


def test_boilerplate_of_many_training_rows_is_not_counted():
    train = [text(f"train:{i}", f"{ENGLISH} number{i}") for i in range(COMMON + 1)]
    (told,) = find_overlap(train, [[text("test:1", f"{ENGLISH} and more", "q")]])
    assert (told.shared, told.num_boilerplate) == ([], len(words(ENGLISH)) - RUN + 1)
    assert shared(train[:-1], [text("test:1", f"{ENGLISH} and more", "q")]) == [("test:1", "train:0", "run")]


def test_the_share_that_is_covered_is_of_the_test_rows_words():
    test = " ".join([*words(ENGLISH)[:20], *(f"new{i}" for i in range(20))])
    (told,) = find_overlap([text("train:1", ENGLISH)], [[text("test:1", test, "q")]])
    assert told.shared[0].covered == pytest.approx(0.5)
    assert (told.count("run"), told.count("exact"), told.count(covered=0.5), told.count(covered=0.51)) == (1, 0, 1, 0)


def test_short_rows_are_counted_and_several_test_sets_kept_apart():
    told = find_overlap([text("train:1", ENGLISH)], [[text("a:1", "short")], [text("b:1", ENGLISH, "q")], []])
    assert [(t.num_rows, t.num_short, len(t.shared)) for t in told] == [(1, 1, 0), (1, 0, 1), (0, 0, 0)]


# ---------------------------------------------------------------- the commands


def write(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return name


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_dedupe_writes_the_rows_that_stay_with_their_columns_and_a_report(capsys):
    rows = [
        {"question": "Dose?", "answer": ENGLISH, "id": 1},
        {"question": "dose", "answer": ENGLISH.upper(), "id": 2},
        {"question": "Dose?", "answer": ENGLISH.replace("usual", "same"), "id": 3},
        {"question": "Storage?", "answer": OTHER, "id": 4},
    ]
    name = write("in.jsonl", rows)
    assert main(["data", "dedupe", name, "out.jsonl", "--report", "pairs.jsonl"]) == 0
    assert capsys.readouterr().out == "out.jsonl: 2 of 4 rows; left out 1 exact, 1 near\n"
    assert read("out.jsonl") == [rows[0], rows[3]]
    assert [(p["origin"], p["like"], p["kind"]) for p in read("pairs.jsonl")] == [
        ("in.jsonl:2", "in.jsonl:1", "exact"),
        ("in.jsonl:3", "in.jsonl:1", "near"),
    ]
    assert "tablet" not in Path("pairs.jsonl").read_text()
    assert main(["data", "dedupe", name, "o2.jsonl", "--exact-only", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 4, "kept": 3, "exact": 1, "near": 0}
    assert main(["data", "dedupe", name, "o3.jsonl", "--by", "question", "--exact-only"]) == 0
    assert [row["id"] for row in read("o3.jsonl")] == [1, 4]


def test_dedupe_does_not_write_over_its_input_or_leave_half_a_file(capsys):
    name = write("in.jsonl", [{"text": "a"}])
    assert main(["data", "dedupe", name, name, "-f"]) == 2
    assert "the output is an input too" in capsys.readouterr().err
    Path(name).write_text('{"text": "a"}\n{broken\n')
    assert main(["data", "dedupe", name, "out.jsonl"]) == 2
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl"]


def test_overlap_exits_with_2_where_a_test_row_stands_in_the_training_data(capsys):
    train = write("train.jsonl", [{"question": "Dose?", "answer": ENGLISH}])
    clean = write("clean.jsonl", [{"question": "Storage?", "answer": OTHER}])
    same = write("same.jsonl", [{"question": "DOSE", "answer": "None."}, {"question": "Storage?", "answer": OTHER}])
    assert main(["data", "overlap", train, clean]) == 0
    assert main(["data", "overlap", train, clean, same]) == 2
    assert main(["data", "overlap", train, clean, same, "--max-overlap", "50%"]) == 0
    told = capsys.readouterr().out
    assert "same.jsonl: 1 of 2 rows (50.0%) share something with the training data: 1 the question" in told
    assert "  same.jsonl:1: exact, 100%, as train.jsonl:1" in told
    assert main(["data", "overlap", train, same, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["tests"]["same.jsonl"]["exact"] == 1


def test_overlap_reads_the_test_split_of_a_folder_that_has_one():
    write("train.jsonl", [{"text": ENGLISH}])
    Path("set").mkdir()
    write("set/train.jsonl", [{"text": ENGLISH}])
    write("set/test.jsonl", [{"text": OTHER}])
    assert main(["data", "overlap", "train.jsonl", "set"]) == 0
    assert main(["data", "overlap", "train.jsonl", "set", "--test-split", "train"]) == 2
    Path("set/train.jsonl").unlink()
    Path("set/test.jsonl").rename("set/questions.jsonl")
    assert main(["data", "overlap", "train.jsonl", "set"]) == 0

"""Text for terminals: no database."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_workflows.management.text import block, facts, one_line, shell_word, shortened, table

anything = st.text(st.characters(exclude_categories=()))
storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
few = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("order-17", "order-17"),
        ("order 17", "'order 17'"),
        ("it's", "'it'\"'\"'s'"),
        ("注文", "'注文'"),
        ("a\nb", "$'a\\u000ab'"),
        ("a'\\\x1b", "$'a\\u0027\\u005c\\u001b'"),
        ("\U000e0001", "$'\\U000e0001'"),
    ],
)
def test_an_id_is_printed_as_a_shell_takes_it(text: str, word: str) -> None:
    assert shell_word(text) == word


def test_a_shell_reads_back_what_is_printed() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    texts = [
        "plain",
        " ends with spaces ",
        "a\n\t\x1b[31m",
        "$HOME `id` \"x\" 'y' \\",
        "ümlaut \u202e注文 \U0001f4e6",
        "-x",
    ]
    script = " ".join(f"{shell_word(text)} '|'" for text in texts)
    read = subprocess.run(
        [bash, "-c", f"printf %s {script}"], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True
    )
    assert read.stdout.decode().split("|")[:-1] == texts


@few
@given(anything)
def test_one_line_is_printable(text: str) -> None:
    assert one_line(text).isprintable()


@few
@given(storable)
def test_an_id_is_printable(text: str) -> None:
    assert shell_word(text).isprintable()


@few
@given(anything)
def test_a_block_has_the_lines_of_its_text(text: str) -> None:
    lines = block(text)
    assert len(lines) == text.count("\n") + 1
    assert all(line.isprintable() for line in lines)


def test_columns_are_aligned_whatever_the_letters() -> None:
    assert table(["A", "B"], [("x", 1), ("注文", 22), ("e\u0301", 3)]) == [
        "A     B",
        "x     1",
        "注文  22",
        "e\u0301     3",
    ]


def test_colours_do_not_count() -> None:
    assert table(["A", "B"], [("x", 1)], {0: lambda cell: f"<{cell}>"}) == ["A  B", "<x>  1"]


def test_facts_without_a_value_are_left_out() -> None:
    assert facts([("Status", "running"), ("Version", ""), ("Id", 0)]) == ["Status  running", "Id      0"]


def test_a_shortened_text_tells_its_length() -> None:
    assert shortened("x" * 10, 10) == "x" * 10
    assert shortened("x" * 1100, 3) == "xxx… (1,100 characters)"

"""Tests of genwsgi.deploy.questions."""

from __future__ import annotations

import threading

import pytest

from genwsgi.deploy.questions import Questions


def test_a_question_is_answered_on_the_owner_s_thread():
    """Whoever asks waits for what the function returns when the owner calls it."""
    woken = threading.Event()
    questions = Questions(woken.set)
    answers: list[tuple[int, int]] = []

    def ask() -> None:
        answers.append((questions.ask(threading.get_ident, 10.0), threading.get_ident()))

    asking = threading.Thread(target=ask)
    asking.start()
    assert woken.wait(10)
    questions.answer()
    asking.join(10)
    ((owner, asker),) = answers
    assert owner == threading.get_ident() != asker


def test_a_busy_owner_is_not_waited_for():
    """After the time is over whoever asked goes on; a late answer disturbs nobody."""
    questions = Questions(lambda: None)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        questions.ask(lambda: 1, 0.01)
    questions.answer()

"""Tests of genwsgi.deploy.questions."""

from __future__ import annotations

import threading

import pytest

from genwsgi.deploy.questions import Questions
from tests.helpers import wait_until


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


def test_what_goes_wrong_is_the_asker_s():
    """An error is raised where the question was asked; the owner goes on."""
    questions = Questions(lambda: None)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            questions.ask(lambda: 1 / 0, 10.0)
        except ZeroDivisionError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: not questions._waiting.empty(), what="the question")
    questions.answer()
    asking.join(10)
    assert len(errors) == 1


def test_a_busy_owner_is_not_waited_for():
    """After the time is over whoever asked goes on; a late answer disturbs nobody."""
    questions = Questions(lambda: None)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        questions.ask(lambda: 1, 0.01)
    questions.answer()

"""Tests of genwsgi.triggers.amqp.obey: what becomes of a message, without a broker."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwsgi.triggers.amqp.builder import Request, Result
from genwsgi.triggers.amqp.memory import Memory
from genwsgi.triggers.amqp.obey import Delivery, Obedience
from genwsgi.triggers.amqp.settings import Settings
from genwsgi.triggers.amqp.signing import is_signed, signed

LOG = logging.getLogger("genwsgi")
KEY = b"0123456789abcdef"
COMMITTED = Result("committed", 2, 5, 0.25)


class Builder:
    """A builder that does nothing until the test says how it ends."""

    target = "shop:app"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.tell: dict[str, Callable[[Result], None]] = {}
        self.withdrawn: list[str] = []
        self.serves = 1

    def request(self, request: Request, tell: Callable[[Result], None]) -> None:
        self.requests.append(request)
        self.tell[request.id] = tell

    def withdraw(self, order: str, reason: str) -> None:
        self.withdrawn.append(order)

    def committed(self) -> int:
        return self.serves

    def end(self, result: Result = COMMITTED) -> None:
        """The last request has this result."""
        self.tell[self.requests[-1].id](result)


class Host:
    """A host that messages are delivered to.

    :ivar settled: for each delivery that was settled, whether it was acknowledged.
    :ivar answers: what was answered, without what every answer says.
    """

    def __init__(self, memory: str | None = None, **settings: Any) -> None:
        self.builder = Builder()
        self.settled: list[bool] = []
        self.answers: list[dict[str, Any]] = []
        self.whole: list[tuple[str, str, dict[str, Any]]] = []
        self.rules = Obedience(
            Settings("amqp://h/", **{"allow_unsigned": True, **settings}),
            self.builder,
            Memory(memory, LOG),
            LOG,
            host="host",
            server="server",
            answer=self._answer,
            told=lambda call: call(),
        )

    def _answer(self, reply_to: str, correlation_id: str, answer: dict[str, Any]) -> None:
        self.whole.append((reply_to, correlation_id, answer))
        said = ("id", "outcome", "release", "error")
        self.answers.append({name: answer[name] for name in said if answer[name]})

    def deliver(self, *, late: bool = False, body: bytes | None = None, **fields: Any) -> None:
        """A message comes."""
        text = json.dumps(fields).encode() if body is None else body
        self.rules.take(Delivery(text, self.settled.append, "replies", "7", late))

    def deliver_signed(self, *, late: bool = False, **fields: Any) -> None:
        """A message comes that is signed now, unless it says when."""
        self.deliver(late=late, **signed({"issued_at": int(time.time()), **fields}, [KEY]))

    @property
    def ids(self) -> list[str]:
        """The ids of what was requested."""
        return [request.id for request in self.builder.requests]


def test_an_order_is_acknowledged_and_answered_when_its_outcome_is_known():
    """Not before: a host that dies over it leaves it to be seen that nothing was done."""
    host = Host()
    host.deliver(id="a", model_path="shop.cart", modules=["shop"], release="v2")
    (request,) = host.builder.requests
    assert request == Request("a", "v2: shop.cart, shop", "", ("shop.cart", "shop"), 0.0)
    assert (host.settled, host.answers) == ([], [])
    host.builder.end()
    assert host.settled == [True]
    reply_to, correlation_id, answer = host.whole[0]
    assert (reply_to, correlation_id) == ("replies", "7")
    assert answer.pop("issued_at") == pytest.approx(time.time(), abs=10)
    assert answer == {
        "id": "a",
        "host": "host",
        "server": "server",
        "step": "deploy",
        "outcome": "committed",
        "release": 2,
        "generation": 5,
        "took": 0.25,
        "error": "",
    }


def test_an_order_that_failed_is_acknowledged_and_one_that_was_refused_rejected():
    """What could be tried is done with; what was not is rejected, with the builder's reason."""
    host = Host()
    host.deliver(id="a")
    host.builder.end(Result("failed", 2, None, 0.0, "ValueError: no"))
    host.deliver(id="b", model_path="none")
    host.builder.end(Result("refused", None, None, 0.0, "no module none"))
    assert host.settled == [True, False]
    assert [answer["error"] for answer in host.answers] == ["ValueError: no", "no module none"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"\xff", b"{" * 9999, b" " * 70_000])
def test_what_is_no_order_is_rejected_and_answered(body: bytes, caplog: pytest.LogCaptureFixture):
    """Nothing is requested; the reason is logged once and answered."""
    host = Host()
    host.deliver(body=body)
    assert (host.ids, host.settled) == ([], [False])
    assert [answer["outcome"] for answer in host.answers] == ["refused"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@given(st.binary() | st.dictionaries(st.text(), st.text()).map(lambda d: json.dumps(d).encode()))
def test_no_bytes_are_an_order_without_the_key(body: bytes):
    """Whatever comes: where orders must be signed, nothing is built of what nobody signed."""
    host = Host(keys=(KEY,), allow_unsigned=False)
    host.deliver(body=body)
    assert (host.ids, host.settled) == ([], [False])


def test_signed_orders_only():
    """With a key, an order without a signature, with another's, or changed later is refused."""
    host = Host(keys=(KEY,), allow_unsigned=False)
    order: dict[str, Any] = {"id": "a", "model_path": "shop", "issued_at": int(time.time())}
    host.deliver(**order)
    host.deliver(**signed(order, [b"another key......"]))
    host.deliver(**{**signed(order, [KEY]), "model_path": "shop.cart"})
    assert (host.ids, host.settled) == ([], [False] * 3)
    host.deliver(**signed(order, [KEY]))
    assert host.ids == ["a"]
    host.builder.end()
    assert is_signed(host.whole[-1][2], [KEY])


@pytest.mark.parametrize("forge", [{}, {"signature": "00"}, {"release": "\ud800"}])
def test_nobody_without_the_key_has_a_host_sign_an_answer(forge: dict[str, Any]):
    """Or else he could have it say that somebody's order, whose id he names, is refused."""
    host = Host(keys=(KEY,), allow_unsigned=False)
    host.deliver(id="a", **forge)
    assert "signature" not in host.whole[0][2]
    host.deliver_signed(
        id="a", physical_path="/nowhere", is_append_path=True, step="prepare", hold=1
    )
    assert is_signed(host.whole[1][2], [KEY])
    assert host.whole[1][2]["step"] == "prepare"


def test_a_forged_signature_is_refused_even_where_unsigned_orders_are_good():
    """Whoever signs means to be checked."""
    host = Host(keys=(KEY,))
    host.deliver(**signed({"id": "a"}, [b"another key......"]))
    assert host.settled == [False]
    host.deliver(id="a")
    assert host.ids == ["a"]


@pytest.mark.parametrize(
    ("since", "fields"),
    [
        (-4000, {"id": "a"}),
        (900, {"id": "a"}),
        (0, {"id": "a", "expires": 1000}),
        (0, {"model_path": "shop"}),
    ],
)
def test_a_signed_order_needs_its_time_and_its_id(since: int, fields: dict[str, Any]):
    """Too old, from the future, expired, without an id: it is refused, however well signed."""
    host = Host(keys=(KEY,))
    host.deliver_signed(issued_at=int(time.time()) + since, **fields)
    assert (host.ids, host.settled) == ([], [False])


def test_a_signed_order_without_a_time_is_refused():
    """It could be sent again for ever."""
    host = Host(keys=(KEY,))
    host.deliver(**signed({"id": "a"}, [KEY]))
    assert host.settled == [False]


def test_an_old_order_that_a_latecomer_finds_is_refused_quietly(caplog: pytest.LogCaptureFixture):
    """It is nobody's mistake, so it is no warning."""
    caplog.set_level(logging.INFO, "genwsgi")
    host = Host(keys=(KEY,), allow_unsigned=False)
    host.deliver_signed(late=True, id="a", issued_at=1000)
    host.deliver(late=True, id="b")
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


def test_a_message_without_an_id_that_is_found_while_it_is_obeyed_is_the_same():
    """It comes twice to a host that connects; one that comes to its own queue is always anew."""
    host = Host()
    host.deliver(model_path="shop")
    host.deliver(late=True, model_path="shop")
    assert len(host.ids) == 1
    host.deliver(late=True, model_path="shop.cart")
    host.deliver(model_path="shop")
    assert len(host.ids) == 3
    for tell in host.builder.tell.values():
        tell(COMMITTED)
    assert host.settled == [True] * 4


def test_an_order_that_comes_again_is_done_once():
    """While it is under way both are acknowledged together; afterwards its outcome is answered."""
    host = Host()
    host.deliver(id="a")
    host.deliver(id="a")
    assert host.ids == ["a"]
    host.builder.end()
    assert host.settled == [True, True]
    host.deliver(id="a")
    host.deliver(id="a", late=True)
    assert host.ids == ["a"]
    assert host.settled == [True] * 4
    assert [answer["outcome"] for answer in host.answers] == ["committed"] * 3


def test_an_order_without_an_id_is_done_each_time_it_is_sent():
    """Publishers send the same bytes for each change, so the same bytes are another order."""
    host = Host()
    for _ in range(2):
        host.deliver(model_path="shop")
        host.builder.end()
    assert len(set(host.ids)) == 2


def test_a_latecomer_does_what_it_has_not_done_yet():
    """Of an order without an id that means: these bytes were not done here, whatever is committed.

    A rollback, or another order, is not undone as the connection to the broker is made anew.
    """
    host = Host()
    host.deliver(model_path="shop", late=True)
    host.builder.serves = 2
    host.builder.end()
    host.deliver(model_path="shop", late=True)
    assert len(host.ids) == 1
    host.builder.serves = 3
    host.deliver(model_path="shop", late=True)
    assert len(host.ids) == 1
    host.deliver(model_path="shop.cart", late=True)
    assert len(host.ids) == 2


def test_an_order_without_an_id_that_failed_is_not_tried_at_each_connection():
    """It was done; who wants it again publishes it again, and then it is a new order."""
    host = Host()
    host.deliver(model_path="shop")
    host.builder.end(Result("failed", None, None, 0.25, "SyntaxError"))
    host.deliver(model_path="shop", late=True)
    assert len(host.ids) == 1
    host.deliver(model_path="shop")
    assert len(host.ids) == 2


def test_an_order_without_an_id_that_a_process_leaves_under_way_is_done_once(tmp_path: Path):
    """The next process goes on with it, and finds it as a latecomer too."""
    path = str(tmp_path / "amqp")
    Host(path).deliver(model_path="shop")
    after = Host(path)
    after.rules.resume()
    after.deliver(model_path="shop", late=True)
    after.builder.end()
    after.deliver(model_path="shop", late=True)
    assert len(after.ids) == 1


def test_an_order_for_another_application_is_let_be():
    """It is acknowledged, not answered, and nothing is done."""
    host = Host()
    host.deliver(id="a", target="blog:app")
    assert (host.ids, host.settled, host.answers) == ([], [True], [])
    host.deliver(id="b", target="shop")
    host.deliver(id="c", target="shop:app")
    assert host.ids == ["b", "c"]
    program = Host()
    program.builder.target = ""
    program.deliver(step="call", target="shop")
    program.deliver(id="d", target="shop")
    assert (program.ids, program.answers) == ([], [])


def test_the_path_is_checked_and_resolved(tmp_path: Path):
    """What is requested is the real path; one that may not be named is refused."""
    (tmp_path / "one").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    (tmp_path / "current").symlink_to("one")
    host = Host(roots=(str(tmp_path),))
    host.deliver(model_path="shop", physical_path=f"{tmp_path}/current", is_append_path=True)
    assert host.builder.requests[0].path == str((tmp_path / "one").resolve())
    host.deliver(model_path="shop", physical_path="/etc", is_append_path=True)
    host.deliver(model_path="shop", physical_path="/etc", is_append_path=False)
    assert [request.path for request in host.builder.requests[1:]] == [""]
    assert host.settled == [False]


# -- several hosts


def test_whoever_calls_is_told_who_is_here():
    """A roll call is answered at once."""
    host = Host()
    host.deliver(step="call", id="x")
    assert host.answers == [{"id": "x", "outcome": "here", "release": 1}]
    assert host.settled == [True]


def test_prepare_then_the_order_itself():
    """Prepared is answered; then the order of the same id lets it go live, and that is answered."""
    host = Host()
    host.deliver(id="a", step="prepare", hold=30)
    assert host.builder.requests[-1].hold == 30
    host.builder.end(Result("prepared", 2))
    assert (host.settled, host.answers[-1]["outcome"]) == ([True], "prepared")
    host.deliver(id="a", step="ask")
    assert host.answers[-1]["outcome"] == "prepared"
    host.deliver(id="a")
    assert host.builder.requests[-1] == Request("a", "all modules")
    host.builder.end()
    assert host.answers[-1] == {"id": "a", "outcome": "committed", "release": 2}
    host.deliver(id="a")
    assert host.ids == ["a", "a"]


def test_an_abort_withdraws_what_is_held_and_nothing_else():
    """It is acknowledged at once; what it meant is told with the outcome of the order."""
    host = Host()
    host.deliver(id="a", step="prepare", hold=30)
    host.deliver(id="b", step="abort")
    assert host.builder.withdrawn == []
    host.deliver(id="a", step="abort")
    assert host.builder.withdrawn == ["a"]
    host.builder.end(Result("failed", 2, None, 0.0, "the sender calls it off"))
    host.deliver(id="a", step="ask")
    assert host.answers[-1]["error"] == "the sender calls it off"


def test_a_prepare_is_done_once():
    """Sent again, by somebody who has recorded it, it prepares nothing."""
    host = Host()
    host.deliver(id="a", step="prepare", hold=30)
    host.builder.end(Result("failed", 2, None, 0.0, "no word came"))
    host.deliver(id="a", step="prepare", hold=30)
    assert host.ids == ["a"]
    host.deliver(id="b")
    host.builder.end()
    host.deliver(id="b", step="prepare", hold=30)
    assert host.ids == ["a", "b"]
    assert host.settled[-1] is False


def test_an_order_whose_hold_has_ended_is_built_again_and_says_so():
    """The word came too late for the hold, and the host goes live with all the others anyway."""
    host = Host()
    host.deliver(id="a", step="prepare", hold=30)
    host.builder.end(Result("failed", 2, None, 0.0, "no word came within 30 s"))
    host.deliver(id="a")
    host.builder.end()
    assert host.answers[-1]["outcome"] == "committed"
    assert "it was not held here any more" in host.answers[-1]["error"]


@pytest.mark.parametrize(
    ("end", "expected"), [(None, "running"), (COMMITTED, "committed")], ids=["before", "after"]
)
def test_whoever_asks_is_told_how_an_order_ended(end: Result | None, expected: str):
    """An answer that was lost can be asked for."""
    host = Host()
    host.deliver(id="a")
    if end is not None:
        host.builder.end(end)
    host.deliver(id="a", step="ask")
    assert host.answers[-1]["outcome"] == expected
    host.deliver(id="b", step="ask")
    assert host.answers[-1]["outcome"] == "unknown"


def test_the_next_process_goes_on_with_what_was_under_way(tmp_path: Path):
    """It requests the order again under its id, and answers whoever had asked."""
    memory = str(tmp_path / "amqp")
    (tmp_path / "root" / "one").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "root", tmp_path / "root" / "one"):
        folder.chmod(0o755)
    roots = (str(tmp_path / "root"),)
    before = Host(memory, roots=roots)
    path = str((tmp_path / "root" / "one").resolve())
    before.deliver(id="a", physical_path=path, is_append_path=True)
    before.deliver(id="b", step="prepare", hold=30)
    before.deliver(id="c")
    before.builder.end()
    after = Host(memory, roots=roots)
    after.rules.resume()
    assert [(one.id, one.path, one.hold) for one in after.builder.requests] == [
        ("a", path, 0.0),
        ("b", "", 30.0),
    ]
    after.builder.end(Result("prepared", 3))
    after.deliver(id="b")
    assert [one.hold for one in after.builder.requests] == [0.0, 30.0, 0.0]
    after.builder.end()
    assert after.answers[-1] == {"id": "b", "outcome": "committed", "release": 2}
    assert after.whole[-1][0] == "replies"


def test_what_was_under_way_and_may_not_be_done_any_more_is_refused(tmp_path: Path):
    """A folder that is no release any more is not imported from after a restart either."""
    memory = str(tmp_path / "amqp")
    (tmp_path / "one").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    before = Host(memory, roots=(str(tmp_path),))
    before.deliver(id="a", physical_path=str(tmp_path / "one"), is_append_path=True)
    after = Host(memory)
    after.rules.resume()
    assert after.ids == []
    after.deliver(id="a", step="ask")
    assert after.answers[-1]["outcome"] == "refused"


def test_a_refusal_is_said_once_though_the_message_is_found_as_well(
    caplog: pytest.LogCaptureFixture,
):
    """The latest message comes twice to a host that has just connected; two messages are two."""
    caplog.set_level(logging.INFO, "genwsgi")
    host = Host()
    for late in (False, True, False, False):
        host.deliver(body=b"{", late=late)
    assert len(caplog.records) == 2


def test_a_signed_message_that_is_nested_deeply_is_refused():
    """A signature is looked at when everything else is known to be plain."""
    host = Host(keys=(KEY,), allow_unsigned=False)
    deep = b"[" * 900 + b"]" * 900
    for count in (9, 90, 900):
        host.deliver(
            body=b'{"id": "a", "signature": "00", "modules": ' + deep[900 - count :] + b"}"
        )
        host.deliver(
            body=b'{"id": "a", "signature": "00", "x": ' + b"[" * count + b"]" * count + b"}"
        )
    assert (host.ids, host.settled) == ([], [False] * 6)


def test_a_mistake_of_ours_is_a_refusal_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """What we can't cope with is rejected once, with the traceback in the log, and no loop."""
    host = Host()
    monkeypatch.setattr(host.builder, "committed", lambda: 1 / 0)
    host.deliver(step="call")
    assert host.settled == [False]
    assert "ZeroDivisionError" in caplog.text
    assert "it broke down here" in host.answers[0]["error"]


def test_what_goes_live_is_what_was_prepared():
    """Whatever the order that is the word says besides its id."""
    host = Host()
    host.deliver(id="a", step="prepare", hold=30, modules=["shop"])
    host.builder.end(Result("prepared", 2))
    host.deliver(id="a", model_path="other", physical_path="/etc", is_append_path=True)
    assert host.builder.requests[-1] == Request("a", "shop", "", ("shop",))

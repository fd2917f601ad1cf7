"""What is said when the state of a server changes: what holds now, why, and until when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from evproxy.observe.log import TroubleLog
from evproxy.settings import Ejection, HealthCheck
from evproxy.upstream.pool.pool import Pool
from tests.support.pool_doubles import A, B, Caller, Doctor, Events, PoolMaker, fail

WHY = "connection refused (1 of 1)"
STILL = f"ejected for another LEFT s: {WHY}"
OFTEN = HealthCheck(interval=1.0, rise=1, fall=1)


class Story:
    """Two servers, of which `A` is ejected, checked and drained, with a check a second."""

    def __init__(self, make: PoolMaker, clock: Clock, events: Events, doctor: Doctor) -> None:
        self.clock = clock
        self.doctor = doctor
        self.events = events
        ejection = Ejection(failures=1, base_time=60.0)
        self.pool: Pool = make(A, B, ejection=ejection, health_check=doctor, check_timing=OFTEN)
        self.pool.start()
        self.seconds(3)

    def seconds(self, count: float) -> None:
        self.clock.pump([0.1] * round(count * 10))

    def ejected(self) -> None:
        fail(self.pool, A)

    def down(self) -> None:
        self.seconds(10)
        self.doctor.sick.add(A)
        self.seconds(2)

    def well(self) -> None:
        self.doctor.sick.clear()
        self.seconds(2)

    def drained(self) -> None:
        self.pool.drain(A)

    def resumed(self) -> None:
        self.pool.resume(A)

    def removed(self) -> None:
        self.pool.remove(A)

    def added(self) -> None:
        self.pool.add(A)

    def over(self) -> None:
        self.seconds(60)

    @property
    def left(self) -> float:
        """Seconds of the ejection that were left when the state changed last."""
        status = next((each for each in self.pool.servers if each.name == A), None)
        return status.until - status.since if status is not None and status.until else 0.0

    def said(self) -> str:
        """The one line that was said since the last time, without the name."""
        [line] = self.events.flush() or [""]
        return line.removeprefix(f"web/{A} ")


@pytest.fixture
def story(make: PoolMaker, clock: Clock, events: Events, doctor: Doctor) -> Story:
    return Story(make, clock, events, doctor)


Step = tuple[Callable[[Story], None], str]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            [
                (Story.down, f"down: {WHY}"),
                (Story.well, "up: check passed (1 of 1)"),
            ],
            id="down",
        ),
        pytest.param(
            [
                (Story.ejected, f"ejected: {WHY}, for 60 s"),
                (Story.over, "up: the ejection is over"),
                (Story.ejected, f"ejected: {WHY}, for 120 s"),
            ],
            id="ejected",
        ),
        pytest.param(
            [
                (Story.ejected, f"ejected: {WHY}, for 60 s"),
                (
                    Story.down,
                    f"down: {WHY}; also {STILL}",
                ),
                (
                    Story.well,
                    f"ejected: check passed (1 of 1), but {STILL}",
                ),
                (Story.over, "up: the ejection is over"),
            ],
            id="well before the ejection is over",
        ),
        pytest.param(
            [
                (Story.ejected, f"ejected: {WHY}, for 60 s"),
                (
                    Story.down,
                    f"down: {WHY}; also {STILL}",
                ),
                (Story.over, ""),
                (Story.well, "up: check passed (1 of 1)"),
            ],
            id="well after the ejection is over",
        ),
        pytest.param(
            [
                (Story.drained, "draining: by request, until it is resumed"),
                (Story.down, ""),
                (Story.resumed, f"down: resumed by request, but still down: {WHY}"),
                (
                    Story.drained,
                    f"draining: by request, until it is resumed; also down: {WHY}",
                ),
                (Story.well, ""),
                (Story.resumed, "up: resumed by request"),
            ],
            id="draining and down",
        ),
        pytest.param(
            [
                (Story.ejected, f"ejected: {WHY}, for 60 s"),
                (
                    Story.drained,
                    f"draining: by request, until it is resumed; also {STILL}",
                ),
                (
                    Story.resumed,
                    f"ejected: resumed by request, but {STILL}",
                ),
                (
                    Story.drained,
                    f"draining: by request, until it is resumed; also {STILL}",
                ),
                (Story.over, ""),
                (Story.resumed, "up: resumed by request"),
            ],
            id="draining and ejected",
        ),
        pytest.param(
            [
                (Story.ejected, f"ejected: {WHY}, for 60 s"),
                (
                    Story.down,
                    f"down: {WHY}; also {STILL}",
                ),
                (
                    Story.drained,
                    f"draining: by request, until it is resumed; also down: {WHY}; also {STILL}",
                ),
                (
                    Story.resumed,
                    f"down: resumed by request, but still down: {WHY}; also {STILL}",
                ),
            ],
            id="all three",
        ),
        pytest.param(
            [
                (Story.removed, "removed: by request"),
                (Story.added, "added: by request"),
                (Story.ejected, f"ejected: {WHY}, for 60 s"),
            ],
            id="removed and added",
        ),
    ],
)
def test_a_state_line(story: Story, steps: list[Step]) -> None:
    """Each says what holds from now on, and what is left of the reasons that it hides."""
    for step, expected in steps:
        step(story)
        assert story.said() == expected.replace("LEFT", f"{story.left:.0f}")


def test_a_server_that_is_removed_while_it_drains(story: Story) -> None:
    """That it will not be resumed any more is said, too."""
    caller = Caller(story.pool).open()
    assert caller.server is not None
    assert caller.server.name == A
    story.drained()
    assert story.said() == "draining: by request, until it is resumed"
    story.removed()
    assert story.said() == "draining: by request, until its last session ends"
    caller.close()
    assert story.said() == "removed: its last session has ended"


def test_what_a_status_page_needs(story: Story) -> None:
    """The state, why and since when, and until when it is ejected, whatever else it is."""
    story.ejected()
    began = story.clock.seconds()
    for step, state, why in (
        (story.down, "down", WHY),
        (story.drained, "draining", "by request"),
        (story.resumed, "down", WHY),
        (story.well, "ejected", WHY),
    ):
        step()
        status = story.pool.servers[0]
        assert (status.state, status.why) == (state, why)
        assert status.until == pytest.approx(began + 60)
        assert began < status.since <= story.clock.seconds()
    story.over()
    status = story.pool.servers[0]
    assert (status.state, status.why, status.until) == ("up", "the ejection is over", None)


@pytest.mark.parametrize(
    ("state", "level"),
    [
        ("up", LogLevel.info),
        ("added", LogLevel.info),
        ("removed", LogLevel.info),
        ("draining", LogLevel.info),
        ("down", LogLevel.warn),
        ("ejected", LogLevel.warn),
    ],
)
def test_only_what_is_wrong_is_a_warning(state: str, level: LogLevel) -> None:
    """That a server is well, or does as it was told, is no warning."""
    with capturedLogs() as events:
        TroubleLog().server_changed("web", A, state, "for some reason")
    [event] = events
    assert event["log_level"] is level
    assert formatEvent(event) == f"web/{A} {state}: for some reason"

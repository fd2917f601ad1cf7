"""
The operation that shows a proxy live, as a stream of events.
"""

from __future__ import annotations

from evproxy.admin.answers import Streamed
from evproxy.admin.fields import TEXT
from evproxy.admin.live.feed import Feed
from evproxy.admin.live.question import Question
from evproxy.admin.live.stream import CONTENT_TYPE
from evproxy.admin.operations import Asked, Context, Operation


def live_view(feed: Feed) -> Operation:
    """The operation that lets a viewer watch `feed`."""

    def run(context: Context, asked: Asked) -> Streamed:
        question: Question = asked.query
        feed.check(question)
        return Streamed(lambda request: feed.watch(question, request), CONTENT_TYPE)

    return Operation(
        "GET",
        "/live",
        "watch",
        "Shows the proxy live, as server-sent events: first one `history`, then a `look` a second.",
        run,
        TEXT,
        query=Question,
        problems=(503,),
        content_type=CONTENT_TYPE,
    )

"""The real servers that the study measures."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from study import servers
from study.computing import COMPUTING_HOST
from study.load import running_load
from study.processes import running_model, running_upstream
from study.run import UsageError, chosen_models
from study.stream import Stream


@pytest.mark.peers("apache2", "nginx")
def test_each_answers() -> None:
    """Each starts with its own configuration, and passes on what the upstream server answers."""
    assert servers.missing() == []
    with ExitStack() as stack:
        upstream = stack.enter_context(running_upstream())
        for model in servers.ALL:
            server = stack.enter_context(running_model(model, upstream.port))
            with running_load(server.port) as load:
                seen = load.run(
                    Stream("new", "/?size=100000&part=5", burst=3),
                    Stream("hook", burst=1, host=COMPUTING_HOST),
                )
            assert seen["new"].outcomes == {"whole": 3}, model.name
            [took] = seen["hook"].latencies
            assert not model.hooked or took >= 0.05, model.name


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not installed is said, with how to install it."""
    monkeypatch.setattr("study.servers.PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="apache2 is not installed: apt-get install apache2-bin; "):
        chosen_models(None, quick=False, real=True)

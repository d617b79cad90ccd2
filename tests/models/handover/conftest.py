from __future__ import annotations

import pytest

from cmat_graph.testing import StreamingChatModel


class Streams(StreamingChatModel):
    """Streams where it is asked to stream, and knows that it was."""

    cut_after: int = 0
    """Break off after this many words."""

    def _stream(self, *args, **kwargs):
        for at, chunk in enumerate(super()._stream(*args, **kwargs)):
            if self.cut_after and at == self.cut_after:
                raise ConnectionError("cut off")
            yield chunk


@pytest.fixture
def model():
    def make(*replies, name="scripted", **settings):
        return Streams(replies=list(replies), model_name=name, **settings)

    return make

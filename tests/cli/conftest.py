"""What the tests of the commands share."""

import json

import pytest


@pytest.fixture
def request_path(tmp_path):
    """Writes a request (or any text) to a file and returns its path."""

    def write(request):
        path = tmp_path / "request.json"
        path.write_text(request if isinstance(request, str) else json.dumps(request))
        return str(path)

    return write

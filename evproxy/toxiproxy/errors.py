"""
The errors of the API, with the words of Toxiproxy.

Source: ``api.go`` and ``toxic_collection.go`` of Toxiproxy 2.12.
"""

from __future__ import annotations


class ApiError(Exception):
    """A request that cannot be served; `status` is the status of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def body(self) -> dict[str, object]:
        """The body of the answer."""
        return {"error": str(self), "status": self.status}


def bad_body(why: str) -> ApiError:
    """The body is not JSON, or a value in it has a wrong type."""
    return ApiError(400, f"bad request body: {why}")


def missing(what: str) -> ApiError:
    """A required field is not there."""
    return ApiError(400, f"missing required field: {what}")


def invalid_stream() -> ApiError:
    """There is no such stream."""
    return ApiError(400, "stream was invalid, can be either upstream or downstream")


def invalid_type() -> ApiError:
    """There is no such type of toxics."""
    return ApiError(400, "invalid toxic type")


def no_proxy() -> ApiError:
    """There is no such proxy."""
    return ApiError(404, "proxy not found")


def no_toxic() -> ApiError:
    """There is no such toxic."""
    return ApiError(404, "toxic not found")


def proxy_exists() -> ApiError:
    """There is a proxy of this name."""
    return ApiError(409, "proxy already exists")


def toxic_exists() -> ApiError:
    """There is a toxic of this name."""
    return ApiError(409, "toxic already exists")

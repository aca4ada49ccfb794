"""Where an ensemble is pushed to and pulled from: a repository of the hub, or a folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from solution.errors import UserError
from solution.models import hub_problem

ENSEMBLE = "trained ensemble"  # the kind of manifest
# The hub's package has had several HTTP libraries, each with errors of its own.
_NETWORK = ("httpx", "httpcore", "requests", "urllib3")
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w.-]+")


def repository(place: str) -> str | None:
    """The hub's name, OWNER/NAME, that a place is; None where it is a folder: it exists, or its path says so."""
    return place if _REPOSITORY.fullmatch(place) and not Path(place).exists() else None


def _is_of_network(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, is of a connection; a full disk is no such error."""
    while not isinstance(error, (ConnectionError, TimeoutError)) and not type(error).__module__.startswith(_NETWORK):
        if error.__cause__ is None:
            return False
        error = error.__cause__
    return True


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn the errors of the hub's package into a `UserError` that says what to do.

    Raises:
        UserError: the hub is switched off or cannot be reached, or no longer, refuses the token, or has no such
            repository.
    """
    from huggingface_hub import errors

    if problem := hub_problem():
        raise UserError(f"{name}: {problem}. A folder is named by its path, as ./{name}")
    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise UserError(f"{name}: the hub wants to know who you are: run `hf auth login`, or set HF_TOKEN") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise UserError(
            f"the hub has no {name} with that revision, or hides it: `hf auth login` with a token that may see it"
        ) from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        hint = "the token may not write there: `hf auth login` with one that may" if code in (401, 403) else "try again"
        raise UserError(f"{name}: the hub answered with code {code} ({str(error).splitlines()[0]}); {hint}") from None
    except errors.HFValidationError as error:
        raise UserError(f"{name} is no name of a repository ({error})") from None
    except Exception as error:
        if not (isinstance(error, errors.LocalEntryNotFoundError) or _is_of_network(error)):
            raise
        reason = str(error.__cause__ or error) or type(error).__name__
        raise UserError(
            f"{name}: the connection to the hub failed ({reason.splitlines()[0]}). Check the network, and run the same "
            "command again"
        ) from None

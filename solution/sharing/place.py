"""Where an ensemble is pushed to and pulled from: a repository of the hub, or a folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from solution.errors import UserError
from solution.models import hub_problem

ENSEMBLE = "trained ensemble"  # the kind of manifest
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w.-]+")


def repository(place: str) -> str | None:
    """The hub's name, OWNER/NAME, that a place is; None where it is a folder: it exists, or its path says so."""
    return place if _REPOSITORY.fullmatch(place) and not Path(place).exists() else None


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn the errors of the hub's package into a `UserError` that says what to do.

    Raises:
        UserError: the hub is switched off or cannot be reached, refuses the token, or has no such repository.
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

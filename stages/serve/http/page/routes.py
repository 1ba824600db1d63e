"""Where the page and its data come from. The page is files of this folder; its data are behind the same key as requests are.

What it ranks goes to POST /rank, like everybody's requests.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import polars as pl
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from stages.serve.catalogue import IdCatalogue
from stages.serve.http.bodies import Id, Named
from stages.serve.parse import BadRequest, find, name_of
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import read_slate_table

FOLDER = Path(__file__).parent
FILES = {"/": ("page.html", "text/html"), "/page/page.css": ("page.css", "text/css"), "/page/page.js": ("page.js", "text/javascript")}
# The page may load its own two files and ask this server, and nothing else: no script in a title, or in a reasoning, would run.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
MOST = 1000  # users that the page offers, and names that it asks about at once


class OfUser(BaseModel):
    user_id: Id


class OfItems(BaseModel):
    items: list[Named] = Field(max_length=2 * MOST)


class Titled(BaseModel):
    """title: empty where the catalogue has none, or does not know the item."""

    id: str
    title: str


class Users(BaseModel):
    users: list[str]


class Titles(BaseModel):
    items: list[Titled]


class ShownSlate(BaseModel):
    """history: oldest first. next: the id of the item that the user took then."""

    history: list[Titled]
    items: list[Titled]
    scores: list[float]
    next: str


def page_router(catalogue: Callable[[], IdCatalogue]) -> APIRouter:
    """catalogue: of the model that is served now."""
    router = APIRouter()
    for path, (name, kind) in FILES.items():
        router.get(path, include_in_schema=False)(_file(name, kind))

    @lru_cache(maxsize=1)  # of the model that is served now
    def slates(run: Path) -> pl.DataFrame:
        """The last test slate of every user of this run."""
        try:
            table = read_slate_table(run / DATA / "retrieve/slates.parquet").filter(pl.col("split") == "test")
        except StageError as error:
            raise BadRequest(str(error)) from None
        return table.sort("user", "position").unique("user", keep="last", maintain_order=True)

    @router.post("/page/users")
    def users() -> Users:
        items = catalogue()
        known = {number: source_id for source_id, number in items.users.items()}
        return Users(users=[known[number] for number in slates(items.run)["user"].head(MOST)])

    @router.post("/page/slate")
    def slate(body: OfUser) -> ShownSlate:
        items = catalogue()
        rows = slates(items.run).filter(pl.col("user") == items.users.get(str(body.user_id), -1)).to_dicts()
        if not rows:
            raise BadRequest("no test slate of this user: choose one of the list, or paste a history")
        [row] = rows
        return ShownSlate(
            history=_titled(items, row["history"]),
            items=_titled(items, row["candidates"]),
            scores=row["scores"],
            next=items.source_ids[row["target"]] if row["target"] >= 0 else "",
        )

    @router.post("/page/titles")
    def titles(body: OfItems) -> Titles:
        items = catalogue()
        found = [(name_of(item, place), find(items, name_of(item, place))) for place, item in enumerate(body.items)]
        return Titles(items=[Titled(id=name, title="") if item is None else _titled(items, [item])[0] for name, item in found])

    return router


def _file(name: str, kind: str) -> Callable[[], Response]:
    def read() -> Response:
        return Response((FOLDER / name).read_bytes(), media_type=kind, headers=HEADERS)

    return read


def _titled(catalogue: IdCatalogue, items: list[int]) -> list[Titled]:
    return [Titled(id=catalogue.source_ids[item], title=catalogue.titles[item]) for item in items]

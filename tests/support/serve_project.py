"""A finished run of 40 users and 25 items for the reranker: its tables, its retriever, and a random model in place of the trained one."""

from pathlib import Path
from typing import Any

import polars as pl
import yaml

from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, USERS, write_table
from stages.shared.slates.sids import sid_text
from tests.support import retrieve_project
from tests.support.project_clone import ROOT
from tests.support.tiny_models import tiny_folder

MODEL = Path("data/rl/model")
EVALUATE = {"constrained": True, "max_tokens": 120, "threads": 1}  # freely, a random model would answer nothing


def write_run(project: Path, **sections: dict[str, Any]) -> None:
    """`project` must be the current directory. sections: keys laid over those of params.yaml.

    Item 7 has the source id "7" and the title "Title 7", user 3 the id "u3".
    """
    params = yaml.safe_load((ROOT / "infra/profiles/default.yaml").read_text(encoding="utf-8"))
    params["retrieve"] = retrieve_project.PARAMS.model_dump()
    params["evaluate"] |= EVALUATE
    for name, keys in sections.items():
        params[name] |= keys
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    codes = [[item // 8, item % 8, (item * 3) % 8, item % 5] for item in range(retrieve_project.N)]
    sids = pl.DataFrame([(item, code, sid_text(code)) for item, code in enumerate(codes)], schema=SIDS, orient="row")
    users = pl.DataFrame([(user, f"u{user}") for user in range(retrieve_project.USERS)], schema=USERS, orient="row")
    tables = {
        "ingest/interactions": (retrieve_project.interactions(), INTERACTIONS),
        "ingest/items": (retrieve_project.items(), ITEMS),
        "ingest/users": (users, USERS),
        "tokenize/sids": (sids, SIDS),
    }
    for name, (table, schema) in tables.items():
        path = project / f"data/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(table, path, schema)
    retrieve_project.run(project)
    tiny_folder(project / MODEL)

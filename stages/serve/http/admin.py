"""What operators ask of a running server: another model."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from stages.serve.http.bodies import ModelBody, problem
from stages.serve.http.router import Router, SwapUnderwayError
from stages.shared.core.errors import StageError


def add_admin(app: FastAPI, router: Router) -> None:
    @app.post("/admin/model", include_in_schema=False)
    async def model(body: ModelBody) -> dict[str, str]:
        """Answers once requests go to the new model and the old one has ranked what it was asked."""
        before = router.current.ranks.name
        served = await router.swap(body.model)
        return {"model": served.ranks.name, "mode": served.ranks.mode, "before": before}

    @app.exception_handler(SwapUnderwayError)
    async def underway(_: Request, __: SwapUnderwayError) -> JSONResponse:
        return problem(409, "another model is being loaded; ask again when it serves (GET /version)")

    @app.exception_handler(StageError)
    async def refused(_: Request, error: StageError) -> JSONResponse:
        return problem(422, f"{error}; {router.current.ranks.name} goes on serving")

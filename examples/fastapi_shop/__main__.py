"""A web application that answers a POST with what it has changed.

python -m examples.fastapi_shop     # PORT=8000; then, elsewhere:
curl -X POST localhost:8000/purchases/4711 -H 'Content-Type: application/json' -d '{"customer": "Ada", "total": 120}'
curl -X POST localhost:8000/purchases/4711/pay
curl localhost:8000/internal/healthz
"""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn

from examples.common import prepared, run
from examples.fastapi_shop.app import application


async def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    url = await prepared(Path(__file__).with_name("tables.sql"))
    print(__doc__, flush=True)
    config = uvicorn.Config(application(url), port=int(os.environ.get("PORT", "8000")))
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    run(main)

"""What starts like vLLM's server and answers like the stub server, to be killed at will.

`STAND_IN` in the environment is a JSON object: `say` is printed before an end with exit code 1;
`dies_at` are the numbers of the chat requests (over all lives, from 0) at which it ends at once;
`sick_at` those from which on it answers 500, to /health as well. `folder` keeps one file a life
with the command line, and one a request. `answer` is said whatever is asked.

The weights that it holds are the last byte of the checkpoint's file, which is its answer where
`tells_weights` is set. With VLLM_SERVER_DEV_MODE it takes others: `stale` keeps the old ones all
the same, `reload_ends` ends it in between, `keeps_prefixes` has it hold on to its cache, with
`resets_silently` it does not say whether it did, `lacks` are paths that it does not know. Beside
the requests' files is one for each time that it was to empty its cache, with the query. `old` is a
vLLM that cannot listen on a socket.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.processes import ROOT
from tests.stub_server import Body, StubServer, running

PACKAGE = "vllm/entrypoints/openai/api_server.py"


def install(folder: Path) -> str:
    """Put a package named vllm into a folder; gives the PYTHONPATH on which it is found."""
    program = folder / PACKAGE
    program.parent.mkdir(parents=True)
    program.write_text("from tests.vllm_stand_in import main\n\nmain()\n")
    return f"{folder}{os.pathsep}{ROOT}"


def main() -> None:
    """Serve until ended."""
    orders = json.loads(os.environ.get("STAND_IN", "{}"))
    options = _options(is_old=bool(orders.get("old")))
    folder = Path(orders["folder"])
    life = len(list(folder.glob("life-*")))
    (folder / f"life-{life}").write_text(json.dumps(sys.argv[1:]))
    if life < orders.get("stillborn", sys.maxsize) and "say" in orders:
        sys.stderr.write(orders["say"] + "\n")
        sys.exit(1)
    asyncio.run(_serve(options, orders, folder))


def _options(*, is_old: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=0)
    if not is_old:
        parser.add_argument("--uds", type=Path)
        parser.add_argument("--worker-extension-cls")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype")
    parser.add_argument("--quantization")
    parser.add_argument("--tool-call-parser")
    parser.add_argument("--chat-template-content-format", choices=("auto", "openai", "string"))
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--enforce-eager", action="store_true")
    return parser.parse_args()


class _Mortal(StubServer):
    sick = False
    orders: Body
    held: Path

    def application(self) -> web.Application:
        application = super().application()
        application.router.add_get("/health", self.tell_health)
        if os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
            controls = {
                "/collective_rpc": self.call_workers,
                "/reset_mm_cache": self.reset_cache,
                "/reset_encoder_cache": self.reset_cache,
                "/reset_prefix_cache": self.reset_prefixes,
            }
            for path in controls.keys() - set(self.orders.get("lacks", ())):
                application.router.add_post(path, controls[path])
        return application

    async def tell_health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.sick else 200)

    def hold(self, checkpoint: Path) -> None:
        self.held = checkpoint
        if self.orders.get("tells_weights"):
            self.answer = f"<answer>{_value(checkpoint)}</answer>"

    async def call_workers(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["method"] == "medeval_compare_weights":
            new, old = (_value(Path(path)) for path in asked["args"])
            if _value(self.held) != new:
                return web.json_response({"error": {"message": "'w' is not new"}}, status=500)
            found = {"compared": 1, "telling": int(new != old)}
            return web.json_response({"results": [found]})
        if asked["method"] == "medeval_pack_weights":
            return web.json_response({"results": [None]})
        if self.orders.get("reload_ends"):
            os._exit(3)
        if not self.orders.get("stale"):
            self.hold(Path(asked["kwargs"]["weights_path"]))
        return web.json_response({"results": [None]})

    async def reset_cache(self, request: web.Request) -> web.Response:
        return web.Response()

    async def reset_prefixes(self, request: web.Request) -> web.Response:
        folder = Path(self.orders["folder"])
        written = folder / f"reset-{len(list(folder.glob('reset-*')))}"
        written.write_text(request.query_string)
        if self.orders.get("resets_silently"):
            return web.Response()
        return web.json_response({"success": not self.orders.get("keeps_prefixes")})


def _value(checkpoint: Path) -> int:
    return (checkpoint / "model.safetensors").read_bytes()[-1]


async def _serve(options: argparse.Namespace, orders: Body, folder: Path) -> None:
    server = _Mortal(port=options.port, models=(options.served_model_name,), latency_s=0.02)
    server.orders = orders
    server.answer = orders.get("answer")
    server.hold(options.model)

    def respond(_: int, __: Body) -> web.Response | None:
        number = len(list(folder.glob("request-*")))
        (folder / f"request-{number}").touch()
        if number in orders.get("dies_at", ()):
            os._exit(3)
        if number in orders.get("sick_at", ()):
            server.sick = True
        return web.Response(status=500, text="engine dead") if server.sick else None

    server.respond = respond
    socket = getattr(options, "uds", None)
    async with running(server) if socket is None else running_on(server, socket):
        await asyncio.Event().wait()


@asynccontextmanager
async def running_on(server: StubServer, socket: Path) -> AsyncIterator[StubServer]:
    """The server, listening on a socket of the file system while the block runs."""
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield server
    finally:
        await runner.cleanup()
